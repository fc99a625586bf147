"""One frame in ten comes out of order and one in ten twice: every id is there once.

    python -m tests.chaos.disorder --seconds 60

runs the whole stack against the practice venue with these faults and checks per symbol that every
id from the first to the last is in the lake once, that duplicates were really dropped, and that
`k2 verify` exits 0 and knows of no hole.
"""

from __future__ import annotations

from typing import Any

import k2client
from tests.chaos.account import (
    SYMBOLS,
    acknowledged,
    all_acknowledged,
    committed_ids,
    settle,
    wrong_ids,
)
from tests.chaos.command import asked, on_a_stack
from tests.chaos.faults import ask_venue
from tests.chaos.stack import CLOCK, Stack

SHARE = 0.1


def run(stack: Stack, seconds: float) -> dict[str, Any]:
    """Disorder for so long, then the account.

    Args:
        stack: a running one, over the synthetic market.
        seconds: how long.
    """
    with k2client.connect(str(stack.addresses["control"])) as k2:
        before = all_acknowledged(k2)
    ask_venue(stack, f"/k2/faults?reorder={SHARE}&duplicate={SHARE}&seed=5")
    CLOCK.sleep(seconds)
    ask_venue(stack, "/k2/faults?clear=")
    faults, rows = [], 0
    with k2client.connect(str(stack.addresses["control"])) as k2:
        goal = acknowledged(k2)
        heard = [symbol for feed in k2.feeds() for symbol in feed.symbols]
    told = {
        "duplicates": sum(symbol.duplicates for symbol in heard),
        "reordered": sum(symbol.reordered for symbol in heard),
    }
    verified = settle(stack)
    for symbol in SYMBOLS:
        ids = committed_ids(stack, symbol)
        faults += wrong_ids(symbol, ids, goal[symbol])
        rows += len(ids)
    document = verified["document"]
    if verified["exit"] != 0 or document["holes"]:
        faults.append(f"k2 verify exits {verified['exit']}: {document}")
    meanwhile = sum(goal.values()) - sum(before.values())
    for name, count in told.items():
        if count < meanwhile * SHARE / 4:
            faults.append(f"only {count} {name} of {meanwhile} trades: the venue did no wrong")
    return {"rows": rows, **told, "faults": faults}


def main() -> int:
    """The command."""
    arguments = asked(__doc__, seconds=60.0, rate=1000.0)
    return on_a_stack(lambda stack: run(stack, arguments.seconds), arguments.rate)


if __name__ == "__main__":
    raise SystemExit(main())
