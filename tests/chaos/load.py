"""Hybrid queries under load, each checked by what it must hold whatever the writer does meanwhile.

    python -m tests.chaos.load --queries 10000 --clients 4 --rate 2000

starts a stack on free ports over the synthetic market, with commits every 2 s and a short tail, and
lets clients ask for the newest trades of a symbol, some by time, some by count. For each answer:

* its ids are contiguous: no trade twice, none missing;
* its highest id is at least what the feed had acknowledged before the question was sent;
* it is not partial.

At least a third of the answers must hold rows of both the lake and the tail.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import k2client
from tests.chaos.stack import Stack, until

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
COMMITS_BEFORE = 4  # so that the tail has let go of what the lake holds
ENVIRONMENT = {"K2_LAKE__COMMIT_INTERVAL_S": "2", "K2_QUERY__TAIL_RECENT_S": "3"}


@dataclass
class Findings:
    """What the checks found, over all clients."""

    queries: int = 0
    rows: int = 0
    both_sides: int = 0
    faults: list[str] = field(default_factory=list)
    completeness: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rows: int, lake: int, tail: int, completeness: str, faults: list[str]) -> None:
        """Count one answer."""
        with self.lock:
            self.queries += 1
            self.rows += rows
            self.both_sides += lake > 0 and tail > 0
            self.completeness[completeness] += 1
            self.faults += faults

    def report(self) -> dict[str, object]:
        """A JSON document of it all."""
        return {
            "queries": self.queries,
            "rows": self.rows,
            "both_sides": self.both_sides,
            "completeness": dict(self.completeness),
            "faults": self.faults[:20],
            "fault_count": len(self.faults),
        }


class AcknowledgedIds:
    """The highest id per symbol that the feed says was acknowledged, as of the last look."""

    def __init__(self, k2: k2client.Client, stop: threading.Event) -> None:
        self._k2 = k2
        self._stop = stop
        self._ids: dict[str, int] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def __getitem__(self, symbol: str) -> int:
        return self._ids.get(symbol, -1)

    def close(self) -> None:
        """Wait for the watcher to end, after `stop` was set."""
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self._ids = acknowledged(self._k2)


def acknowledged(k2: k2client.Client) -> dict[str, int]:
    """Highest acknowledged id per symbol, from the control plane."""
    return {
        symbol.symbol: symbol.acknowledged_trade_id
        for feed in k2.feeds()
        for symbol in feed.symbols
        if symbol.acknowledged_trade_id is not None
    }


def faults_of(symbol: str, ids: list[int], at_least: int) -> list[str]:
    """What is wrong with the ids of one answer, ascending by canonical order."""
    if not ids:
        return [f"{symbol}: no rows although {at_least} was acknowledged"] if at_least >= 0 else []
    found = []
    if len(set(ids)) != len(ids):
        doubled = [trade_id for trade_id, count in Counter(ids).items() if count > 1]
        found.append(f"{symbol}: doubled {doubled[:5]}")
    ordered = sorted(set(ids))
    if ordered[-1] - ordered[0] + 1 != len(ordered):
        missing = [a + 1 for a, b in itertools.pairwise(ordered) if b != a + 1]
        found.append(f"{symbol}: missing {missing[:5]} of {ordered[0]}..{ordered[-1]}")
    if ordered[-1] < at_least:
        found.append(f"{symbol}: ends at {ordered[-1]}, {at_least} was acknowledged before")
    return found


def ask(control: str, count: int, first: int, known: AcknowledgedIds, found: Findings) -> None:
    """One client's queries."""
    with k2client.connect(control) as k2:
        for number in range(first, first + count):
            symbol = SYMBOLS[number % len(SYMBOLS)]
            at_least = known[symbol]
            shape = {"last": "8s"} if number % 2 else {"limit": 20_000, "order": "desc"}
            try:
                answer = k2.trades(symbol, columns=["trade_id"], **shape)
                ids = answer.to_arrow().column("trade_id").to_pylist()
            except k2client.K2Error as error:
                found.add(0, 0, 0, "FAILED", [f"{symbol}: {error}"])
                continue
            provenance = answer.provenance
            faults = faults_of(symbol, ids, at_least)
            if provenance.completeness == "PARTIAL":
                faults.append(f"{symbol}: partial")
            found.add(
                len(ids),
                provenance.rows_lake,
                provenance.rows_tail,
                provenance.completeness,
                faults,
            )


def run(control: str, queries: int, clients: int) -> Findings:
    """Ask `queries` questions from `clients` threads, each with a connection of its own."""
    found, stop = Findings(), threading.Event()
    with k2client.connect(control) as watcher:
        until(lambda: len(watcher.snapshots()) >= COMMITS_BEFORE, "the writer commits")
        known = AcknowledgedIds(watcher, stop)
        share = queries // clients
        threads = [
            threading.Thread(target=ask, args=(control, share, index * share, known, found))
            for index in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        known.close()
    return found


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options = ("--venue", "synthetic", "--rate", str(arguments.rate))
        with Stack(Path(folder), *options, environment=ENVIRONMENT) as stack:
            found = run(str(stack.addresses["control"]), arguments.queries, arguments.clients)
            verified = stack.k2("verify", "--json", check=False)
    report = found.report() | {"verify_exit": verified.returncode}
    print(json.dumps(report, indent=2))
    enough = found.both_sides * 3 >= found.queries
    return 0 if not found.faults and enough and verified.returncode == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
