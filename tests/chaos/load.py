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

import threading
from collections import Counter
from dataclasses import dataclass, field

import k2client
from tests.chaos.account import SYMBOLS, acknowledged, wrong_ids
from tests.chaos.command import asked, on_a_stack
from tests.chaos.stack import Stack, until

COMMITS_BEFORE = 4  # so that the tail has let go of what the lake holds


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
            faults = wrong_ids(symbol, ids, at_least)
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
    arguments = asked(__doc__, queries=10_000, clients=4, rate=2000.0)

    def checked(stack: Stack) -> dict[str, object]:
        found = run(str(stack.addresses["control"]), arguments.queries, arguments.clients)
        verified = stack.k2("verify", "--json", check=False)
        if found.both_sides * 3 < found.queries:
            found.faults.append(f"only {found.both_sides} answers are of both sides")
        if verified.returncode:
            found.faults.append(f"k2 verify exits {verified.returncode}")
        return found.report()

    return on_a_stack(checked, arguments.rate)


if __name__ == "__main__":
    raise SystemExit(main())
