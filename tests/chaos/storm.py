"""A storm: faults of every kind every few seconds on a running stack, then the whole account.

    python -m tests.chaos.storm --minutes 20 --rate 2000 --seed 1

starts a stack over the synthetic market and lets the venue drop, double, disorder and garble
frames and cut connections, kills and pauses processes, puts poison on the tape, locks the catalog,
takes the warehouse away, lets no file grow, starts a second writer, compacts and expires, and fills
what is there already. Then the faults end, and within a bounded time:

* every id from the first to the last that the feed had acknowledged is in the lake, once;
* no gap is open, and those that were are FILLED;
* each poisoned record, and no other, is a dead letter;
* `k2 verify` exits 0;
* no process holds more memory in the last third than in the second, beyond a small allowance; a
  Java process, which fills its heap in time, no more than that and an allowance.
"""

from __future__ import annotations

import argparse
import json
import random  # noqa: TID251 the seed is an argument of the command
import statistics
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import PriorityQueue
from typing import Any

import psutil

import k2client
from k2 import limits
from tests.chaos import faults
from tests.chaos.account import SYMBOLS, acknowledged, committed_ids, doubled, wrong_ids
from tests.chaos.faults import Fault, Trouble
from tests.chaos.stack import CLOCK, ENVIRONMENT, Stack, until

PAUSE_S = (2.0, 6.0)  # between two faults
CALM_S = 15.0  # between two deaths of one process: five within 60 s would end the stack
SETTLE_S = 300.0
SAMPLE_S = 5.0
GROWTH_MAX = 1.15
GROWTH_ALLOWED_MIB = 48.0
HEAPS = {"broker": limits.BROKER_HEAP, "registry": limits.REGISTRY_HEAP}
BESIDE_HEAP_MIB = 128.0  # code, classes, threads of a Java process

FAULTS: dict[str, Fault] = {
    "kill lake": faults.kill("lake"),
    "kill feed": faults.kill("feed"),
    "kill query": faults.kill("query"),
    "kill control": faults.kill("control"),
    "kill broker": faults.kill("broker"),
    "kill registry": faults.kill("registry"),
    "kill venue": faults.kill("venue"),
    "pause lake": faults.pause("lake", 40.0),
    "pause feed": faults.pause("feed", 8.0),
    "pause query": faults.pause("query", 8.0),
    "pause broker": faults.pause("broker", 60.0),
    "pause registry": faults.pause("registry", 20.0),
    "drop": faults.venue(drop=0.05),
    "duplicate": faults.venue(duplicate=0.1),
    "reorder": faults.venue(reorder=0.1),
    "garbage": faults.venue(garbage=0.02),
    "delay": faults.venue(delay=0.01),
    "disconnect": faults.venue(disconnect=1),
    "shutdown": faults.shut_venue,
    "poison": faults.poison,
    "lock catalog": faults.lock_catalog,
    "store away": faults.store_away,
    "no room": faults.no_room,
    "second writer": faults.second_writer,
    "compact": faults.command("compact", "--json"),
    "expire": faults.command("expire", "--json"),
    "backfill again": faults.backfill_again,
}


@dataclass
class Memory:
    """Resident memory of each process of a stack over time, in MiB."""

    stack: Stack
    samples: dict[str, list[float]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Memory:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            for name, process in self.stack.recorded().items():
                try:
                    size = psutil.Process(int(process["pid"])).memory_info().rss / 2**20
                except (psutil.Error, TypeError):
                    continue
                self.samples.setdefault(name, []).append(size)

    def thirds(self) -> dict[str, tuple[float, float]]:
        """Per process the median of the second and of the last third, in MiB."""
        found = {}
        for name, sizes in self.samples.items():
            third = len(sizes) // 3
            if third:
                middle, last = sizes[third : 2 * third], sizes[2 * third :]
                found[name] = statistics.median(middle), statistics.median(last)
        return found


@dataclass
class Storm:
    """The faults that are in force, and those that have been."""

    stack: Stack
    chance: random.Random
    past: list[Trouble] = field(default_factory=list)
    _going: PriorityQueue[tuple[float, int, Trouble]] = field(default_factory=PriorityQueue)
    _calm_until_s: dict[str, float] = field(default_factory=dict)
    _deck: list[str] = field(default_factory=list)

    def blow(self, seconds: float) -> None:
        """Start faults, and undo them in time, for so long; then undo all.

        They are undone by a thread of its own: to start one may wait for what another stopped.
        """
        end_s = CLOCK.monotonic_s() + seconds
        over = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            undoing = pool.submit(self._undo_in_time, over)
            try:
                while CLOCK.monotonic_s() < end_s and not undoing.done():
                    CLOCK.sleep(self.chance.uniform(*PAUSE_S))
                    self._start(self._choose())
            finally:
                over.set()
                undoing.result()
                self._undo(float("inf"))

    def _undo_in_time(self, over: threading.Event) -> None:
        while not over.wait(0.1):
            self._undo(CLOCK.monotonic_s())

    def _choose(self) -> str:
        """The next fault; each comes once before any comes again."""
        if not self._deck:
            self._deck = self.chance.sample(sorted(FAULTS), len(FAULTS))
        now_s = CLOCK.monotonic_s()
        calm = [one for one in self._deck if self._calm_until_s.get(_victim(one), 0.0) <= now_s]
        if not calm:
            return "duplicate"
        self._deck.remove(calm[0])
        self._calm_until_s[_victim(calm[0])] = now_s + CALM_S
        return calm[0]

    def _start(self, name: str) -> None:
        if name in ("kill query", "kill control"):  # who never answers between deaths is failing
            self.stack.k2("trades", SYMBOLS[0], "--limit", "1", check=False)
        trouble = FAULTS[name](self.stack, self.chance)
        print(f"{trouble.name}: {trouble.detail}", flush=True)
        self.past.append(trouble)
        if trouble.lasts_s:
            self._going.put((CLOCK.monotonic_s() + trouble.lasts_s, len(self.past), trouble))

    def _undo(self, now_s: float) -> None:
        """Undo what is due, the earliest first."""
        while not self._going.empty():
            due = self._going.get()
            if due[0] > now_s:
                self._going.put(due)
                return
            due[2].undo()


def _victim(name: str) -> str:
    """The process that a fault befalls, or the fault itself."""
    return name.removeprefix("kill ").removeprefix("pause ")


def account(stack: Stack, storm: Storm) -> dict[str, Any]:
    """Wait until all is well again, then balance everything; the report, with its faults."""
    wrong: list[str] = []
    with k2client.connect(str(stack.addresses["control"])) as k2:
        _await_serving(stack)
        goal = acknowledged(k2)
        until(lambda: k2.degradation().level == "NORMAL", "nothing is shed", SETTLE_S)
        until(lambda: _whole(stack, goal), "the lake holds every id", SETTLE_S)
    rows = {symbol: committed_ids(stack, symbol) for symbol in SYMBOLS}
    for symbol, ids in rows.items():
        wrong += wrong_ids(symbol, [one for one in ids if one <= goal[symbol]], goal[symbol])
        wrong += doubled(symbol, [one for one in ids if one > goal[symbol]])
    states = _gap_states(stack)
    wrong += [f"{count} gaps are {state}" for state, count in states.items() if state != "FILLED"]
    verified = stack.k2("verify", "--json", check=False)
    if verified.returncode:
        wrong.append(f"k2 verify exits {verified.returncode}")
    document = json.loads(verified.stdout or "{}")
    poisoned = sum(trouble.poison for trouble in storm.past)
    if document.get("dead") != poisoned:
        wrong.append(f"{poisoned} poisoned records, {document.get('dead')} dead ones")
    return {
        "troubles": dict(Counter(trouble.name for trouble in storm.past)),
        "ids": {symbol: len(ids) for symbol, ids in rows.items()},
        "duplicates_dropped": document.get("duplicate"),
        "poisoned": poisoned,
        "gaps": dict(states),
        "restarts": faults.restarts(stack),
        "verify_exit": verified.returncode,
        "faults": wrong,
    }


def _await_serving(stack: Stack) -> None:
    """Wait until every process serves; who does not is named."""
    states: dict[str, str] = {}

    def serving() -> bool:
        states.update({name: one["state"] for name, one in stack.processes().items()})
        return set(states.values()) == {"SERVING"}

    try:
        until(serving, "every process serves again", SETTLE_S)
    except AssertionError as error:
        raise AssertionError(f"{error}: {states}") from error


def _whole(stack: Stack, goal: dict[str, int]) -> bool:
    """Whether the lake holds an unbroken run of ids up to the goal, and no gap is open."""
    for symbol in SYMBOLS:
        ids = set(committed_ids(stack, symbol))
        if not ids or max(ids) < goal[symbol] or len(ids) != max(ids) - min(ids) + 1:
            return False
    return _gap_states(stack)["OPEN"] == 0


def _gap_states(stack: Stack) -> Counter[str]:
    return Counter(str(gap["state"]) for gap in stack.json("gaps")["gaps"])


def grown(memory: Memory) -> list[str]:
    """Processes that held more in the last third than in the second, beyond what is allowed."""
    return [
        f"{name} grew from {middle:.0f} to {last:.0f} MiB"
        for name, (middle, last) in memory.thirds().items()
        if last > _allowed_mib(name, middle)
    ]


def _allowed_mib(name: str, middle: float) -> float:
    if name in HEAPS:
        return HEAPS[name] / 2**20 + BESIDE_HEAP_MIB
    return max(middle * GROWTH_MAX, middle + GROWTH_ALLOWED_MIB)


def run(stack: Stack, seconds: float, seed: int) -> dict[str, Any]:
    """The storm and the account."""
    storm = Storm(stack, random.Random(seed))
    with Memory(stack) as memory:
        storm.blow(seconds)
        report = account(stack, storm)
    (stack.data_dir / "rss.json").write_text(json.dumps(memory.samples))
    report["rss_mib"] = {
        name: [round(size) for size in sizes] for name, sizes in memory.thirds().items()
    }
    report["faults"] += grown(memory)
    return report


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data-dir", type=Path, help="kept; default: one that is removed")
    arguments = parser.parse_args()
    options = ("--venue", "synthetic", "--rate", str(arguments.rate))
    with tempfile.TemporaryDirectory() as folder:
        data_dir = arguments.data_dir or Path(folder)
        with Stack(data_dir, *options, environment=ENVIRONMENT) as stack:
            report = run(stack, arguments.minutes * 60, arguments.seed)
    print(json.dumps(report, indent=2))
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
