"""The account of a stack: what its lake holds against what its feed had acknowledged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

import k2client
from tests.chaos.stack import Stack, until
from tests.support.commanded import commanded

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
Span = tuple[int, int]  # first and last id


def acknowledged(k2: k2client.Client) -> dict[str, int]:
    """Highest acknowledged id per symbol, from the control plane."""
    return {
        symbol.symbol: symbol.acknowledged_trade_id
        for feed in k2.feeds()
        for symbol in feed.symbols
        if symbol.acknowledged_trade_id is not None
    }


def all_acknowledged(k2: k2client.Client) -> dict[str, int]:
    """The same, once there is one of every symbol: a stack that has just started has few."""

    def ids() -> dict[str, int] | None:
        found = acknowledged(k2)
        return found if found.keys() >= set(SYMBOLS) else None

    return until(ids, "trades of every symbol are acknowledged")


def committed(stack: Stack, symbol: str) -> pa.Table:
    """Ids and times of a symbol in the lake's newest snapshot."""
    with k2client.connect(str(stack.addresses["control"])) as k2:
        columns = ["trade_id", "event_time"]
        return k2.trades(symbol, columns=columns, consistency="committed").to_arrow()


def committed_ids(stack: Stack, symbol: str) -> list[int]:
    """Ids of a symbol in the lake's newest snapshot."""
    ids: list[int] = committed(stack, symbol).column("trade_id").to_pylist()
    return ids


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
    code, document = commanded(stack.configured(), "verify")
    return {"exit": code, "document": document}


def holes_of(document: dict[str, Any], symbol: str) -> list[Span]:
    """The holes of a symbol that `k2 verify` lists."""
    return [
        (int(hole["first_id"]), int(hole["last_id"]))
        for hole in document.get("holes", [])
        if hole["symbol"] == symbol
    ]


def wrong_ids(
    symbol: str, ids: Sequence[int], acknowledged: int = -1, holes: Iterable[Span] = ()
) -> list[str]:
    """What is wrong with a symbol's ids: each is to be held once, or to lie in a hole.

    Args:
        symbol: which.
        ids: those that are held, as often as they are.
        acknowledged: every id from the first held up to this one is to be held.
        holes: where ids are known to be missing.
    """
    if not ids:
        return [f"{symbol}: no rows, {acknowledged} was acknowledged"] if acknowledged >= 0 else []
    held = set(ids)
    missing = Counter(one for first, last in holes for one in range(first, last + 1))
    found = {
        "of the ids acknowledged are lost": {*range(min(held), acknowledged + 1)} - held,
        "ids are neither held nor in a hole": {*range(min(held), max(held))} - held - {*missing},
        "ids are held and in a hole": held & {*missing},
        "ids are in two holes": {one for one, count in missing.items() if count > 1},
    }
    return doubled(symbol, ids) + [
        f"{symbol}: {len(those)} {what}: {sorted(those)[:5]}"
        for what, those in found.items()
        if those
    ]


def doubled(symbol: str, ids: Iterable[int]) -> list[str]:
    """Whether ids are held more than once."""
    more = sorted(one for one, count in Counter(ids).items() if count > 1)
    return [f"{symbol}: {len(more)} ids are doubled: {more[:5]}"] if more else []
