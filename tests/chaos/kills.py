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

import argparse
import json
import random  # noqa: TID251 the seed is an argument of the command
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import k2client
from tests.chaos.load import ENVIRONMENT, SYMBOLS, acknowledged
from tests.chaos.stack import CLOCK, Stack, until

VICTIMS = ("lake", "feed", "query", "broker")
PAUSE_S = 4.0  # at most so long between two kills
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
    before = stack.processes()[name]["restarts"]
    killed_us = CLOCK.now_us()
    stack.kill(name)

    def serving() -> bool:
        processes = stack.processes()
        return processes[name]["restarts"] > before and all(
            process["state"] == "SERVING" for process in processes.values()
        )

    until(serving, f"{name} serves again")
    return Outage(name, killed_us, CLOCK.now_us())


def committed(stack: Stack, symbol: str) -> pa.Table:
    """Ids and times of a symbol in the lake's newest snapshot."""
    with k2client.connect(str(stack.addresses["control"])) as k2:
        columns = ["trade_id", "event_time"]
        return k2.trades(symbol, columns=columns, consistency="committed").to_arrow()


def balance(
    symbol: str, rows: pa.Table, holes: list[dict[str, Any]], outages: list[Outage]
) -> tuple[float, list[str]]:
    """Share of a symbol's ids in the lake, and what is wrong with its account."""
    ids = rows.column("trade_id").to_pylist()
    held = set(ids)
    faults = [] if len(held) == len(ids) else [f"{symbol}: {len(ids) - len(held)} ids doubled"]
    missing: set[int] = set()
    for hole in holes:
        first, last = int(hole["first_id"]), int(hole["last_id"])
        inside = set(range(first, last + 1))
        if inside & held or inside & missing:
            faults.append(f"{symbol}: hole {first}..{last} overlaps")
        missing |= inside
        faults += misplaced(symbol, rows, first, last, outages)
    span = set(range(min(held), max(held) + 1))
    if span - held - missing:
        faults.append(f"{symbol}: {len(span - held - missing)} ids neither held nor in a hole")
    return len(held) / len(span), faults


def misplaced(
    symbol: str, rows: pa.Table, first: int, last: int, outages: list[Outage]
) -> list[str]:
    """Whether a hole lies outside every outage of the feed."""
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


def settle(stack: Stack) -> dict[str, Any]:
    """Wait until the lake has caught up with the feed, then verify."""
    with k2client.connect(str(stack.addresses["control"])) as k2:
        goal = acknowledged(k2)

        def caught_up() -> bool:
            for symbol, trade_id in goal.items():
                newest = k2.trades(
                    symbol, columns=["trade_id"], order="desc", limit=1, consistency="committed"
                ).to_arrow()
                if not len(newest) or newest.column("trade_id")[0].as_py() < trade_id:
                    return False
            return True

        until(caught_up, "the lake holds what the feed had acknowledged")
    done = stack.k2("verify", "--json", check=False)
    return {"exit": done.returncode, "document": json.loads(done.stdout or "{}")}


def run(stack: Stack, rounds: int, seed: int, share_min: float = 0.9) -> dict[str, Any]:
    """The kills and the account.

    Args:
        stack: a running one, over the synthetic market.
        rounds: kills of each process.
        seed: of the order and the moments.
        share_min: of the ids that must be in the lake; a short run is mostly outage.
    """
    chance = random.Random(seed)
    # Each round kills each process once: five deaths of one within 60 s would end the stack.
    order = [name for _ in range(rounds) for name in chance.sample(VICTIMS, len(VICTIMS))]
    outages = []
    for name in order:
        CLOCK.sleep(chance.uniform(0.5, PAUSE_S))
        outages.append(kill_and_wait(stack, name))
    verified = settle(stack)
    holes = verified["document"].get("holes", [])
    faults: list[str] = [] if verified["exit"] == 0 else [f"k2 verify exits {verified['exit']}"]
    shares = {}
    for symbol in SYMBOLS:
        of_symbol = [hole for hole in holes if hole["symbol"] == symbol]
        shares[symbol], found = balance(symbol, committed(stack, symbol), of_symbol, outages)
        faults += found
        if shares[symbol] < share_min:
            faults.append(f"{symbol}: only {shares[symbol]:.1%} in the lake")
    return {
        "kills": len(outages),
        "holes": len(holes),
        "shares": shares,
        "longest_outage_s": max(o.serving_us - o.killed_us for o in outages) / 1e6,
        "faults": faults,
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options = ("--venue", "synthetic", "--rate", str(arguments.rate))
        with Stack(Path(folder), *options, environment=ENVIRONMENT) as stack:
            report = run(stack, arguments.rounds, arguments.seed)
    print(json.dumps(report, indent=2))
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
