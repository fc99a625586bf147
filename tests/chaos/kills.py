"""`kill -9` of every process at random moments under load, then the accounts are balanced.

    python -m tests.chaos.kills --rounds 5 --rate 2000 --seed 1

kills the writer, the feed, the query server and the broker `rounds` times each, waits until all is
SERVING again, lets the lake catch up, and checks per symbol:

* every id from the first to the last is once in the lake or inside one reported hole, never both;
* holes lie only between a kill of the feed and its next SERVING + 5 s;
* at least 90 % of the ids are in the lake;
* `k2 verify` exits 0.
"""

from __future__ import annotations

import random  # noqa: TID251 the seed is an argument of the command
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import k2client
from tests.chaos.account import SYMBOLS, Span, committed, holes_of, settle, wrong_ids
from tests.chaos.command import asked, on_a_stack
from tests.chaos.stack import CLOCK, Stack, until

VICTIMS = ("lake", "feed", "query", "broker")
PAUSE_S = 4.0
BEFORE_S = 1.0  # frames on their way when the feed was killed
AFTER_S = 5.0


@dataclass(frozen=True)
class Outage:
    """From a kill of a process to its next SERVING, wall microseconds."""

    name: str
    killed_us: int
    serving_us: int


def kill_and_wait(stack: Stack, name: str) -> Outage:
    """Kill one process and wait until it, and all others, serve again."""
    before = stack.recorded()[name]["restarts"]
    killed_us = CLOCK.now_us()
    stack.kill(name)

    def serving() -> bool:
        processes = stack.recorded()
        return processes[name]["restarts"] > before and all(
            process["state"] == "SERVING" for process in processes.values()
        )

    until(serving, f"{name} serves again")
    with k2client.connect(str(stack.addresses["control"])) as k2:
        until(lambda: _answered(k2), "a query is answered")  # who never does so is failing
    return Outage(name, killed_us, CLOCK.now_us())


def _answered(k2: k2client.Client) -> bool:
    """Whether a query is answered; a server may be starting, or wait for the tape."""
    try:
        return len(k2.trades(SYMBOLS[0], columns=["trade_id"], limit=1).to_arrow()) == 1
    except k2client.K2Error:
        return False


def balance(
    symbol: str, rows: pa.Table, holes: list[Span], outages: list[Outage]
) -> tuple[float, list[str]]:
    """Share of a symbol's ids in the lake, and what is wrong with its account."""
    ids = rows.column("trade_id").to_pylist()
    faults = wrong_ids(symbol, ids, holes=holes)
    for hole in holes:
        faults += misplaced(symbol, rows, hole, outages)
    return len(set(ids)) / (max(ids) - min(ids) + 1), faults


def misplaced(symbol: str, rows: pa.Table, hole: Span, outages: list[Outage]) -> list[str]:
    """Whether a hole lies outside every outage of the feed."""
    first, last = hole
    start, end = (
        pc.max(rows.filter(pc.equal(rows["trade_id"], trade_id))["event_time"].cast(pa.int64()))
        for trade_id in (first - 1, last + 1)
    )
    for outage in outages:
        began = outage.killed_us - BEFORE_S * 1e6
        ended = outage.serving_us + AFTER_S * 1e6
        if outage.name == "feed" and began <= start.as_py() and end.as_py() <= ended:
            return []
    return [f"{symbol}: hole {first}..{last} is no outage of the feed"]


def run(
    stack: Stack, rounds: int, seed: int, share_min: float = 0.9, pause_s: float = PAUSE_S
) -> dict[str, Any]:
    """The kills and the account.

    Args:
        stack: a running one, over the synthetic market.
        rounds: kills of each process.
        seed: of the order and the moments.
        share_min: of the ids that must be in the lake; a short run is mostly outage.
        pause_s: at most so long between two kills.
    """
    chance = random.Random(seed)
    # Each round kills each process once: five deaths of one within 60 s would end the stack.
    order = [name for _ in range(rounds) for name in chance.sample(VICTIMS, len(VICTIMS))]
    outages = []
    for name in order:
        CLOCK.sleep(chance.uniform(0.5, pause_s))
        outages.append(kill_and_wait(stack, name))
    verified = settle(stack)
    document = verified["document"]
    faults: list[str] = [] if verified["exit"] == 0 else [f"k2 verify exits {verified['exit']}"]
    shares = {}
    for symbol in SYMBOLS:
        rows, holes = committed(stack, symbol), holes_of(document, symbol)
        shares[symbol], found = balance(symbol, rows, holes, outages)
        faults += found
        if shares[symbol] < share_min:
            faults.append(f"{symbol}: only {shares[symbol]:.1%} in the lake")
    return {
        "kills": len(outages),
        "holes": len(document.get("holes", [])),
        "shares": shares,
        "longest_outage_s": max(o.serving_us - o.killed_us for o in outages) / 1e6,
        "faults": faults,
    }


def main() -> int:
    """The command."""
    arguments = asked(__doc__, rounds=5, rate=2000.0, seed=1)
    return on_a_stack(lambda stack: run(stack, arguments.rounds, arguments.seed), arguments.rate)


if __name__ == "__main__":
    raise SystemExit(main())
