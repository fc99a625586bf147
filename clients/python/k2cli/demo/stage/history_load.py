"""Loads an hour of history of every symbol by backfill from the venue's REST, with progress.

The range of ids is found by asking the venue for single trades: an id so much lower than the oldest
trade of the lake, and lower again until it was printed before the hour. K2 itself then fetches the
ids, as it fills any gap.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from k2cli.operate.fetching import NotServed, fetch
from k2cli.operate.running_stack import RunningStack
from k2client import records
from k2client.errors import K2Error, Unavailable
from k2client.times import to_us

SPAN_S = 3600.0
TARGET_S = 300.0
_MARGIN = 1.02  # of the hour, since the search ends at an id somewhat older
_SPARE = 1.2  # of an estimate
_LEAST_IDS = 200
_ROUNDS_MAX = 4
_SEARCHES_MAX = 12
_POLL_S = 1.0
_FIRST_TRADES_S = 30.0
_STALLED_S = 60.0

IdTime = Callable[[int], int | None]
"""Returns the time of a trade id in microseconds; None when the venue has no such id."""


@dataclass(frozen=True)
class Load:
    """What to fetch of a symbol: ids, both ends inclusive."""

    symbol: str
    first_id: int
    last_id: int

    @property
    def ids(self) -> int:
        """How many ids that is."""
        return self.last_id - self.first_id + 1


def load(demo: RunningStack, step: Callable[[str, float, float], None]) -> tuple[int, float]:
    """Load the hour; returns the trades fetched and the seconds that took.

    Args:
        demo: the stack.
        step: shows progress: words, done, total.

    Raises:
        Unavailable: VENUE_UNAVAILABLE when the venue or the feed does not go on, or the hour is not
            there after some rounds.
    """
    began, loaded = time.monotonic(), 0
    for _ in range(_ROUNDS_MAX):
        loads = []
        for each in _wanted_of_all(demo, step):
            demo.k2.backfill(each.symbol, each.first_id, each.last_id)
            loads.append(each)
        if not loads:
            return loaded, time.monotonic() - began
        total = sum(each.ids for each in loads)
        loaded += total - _wait(demo, loads, total, step)
    if missing := ", ".join(each.symbol for each in _wanted_of_all(demo, step)):
        raise Unavailable(
            "VENUE_UNAVAILABLE",
            f"the venue has not given the hour of {missing}: see `k2 gaps --state unfillable`",
        )
    return loaded, time.monotonic() - began


def _wanted_of_all(demo: RunningStack, step: Callable[[str, float, float], None]) -> Iterator[Load]:
    """Choose the ids to fetch of each symbol that lacks its hour."""
    for done, symbol in enumerate(demo.symbols):
        step(f"looking for the ids of the last hour of {symbol}", done, len(demo.symbols))
        if (wanted := _wanted(demo, symbol)) is not None:
            yield wanted


def seldom(step: Callable[[str, float, float], None], every_s: float) -> Callable[..., None]:
    """Pass on a step only every so often, and the last one: for a log instead of a terminal."""
    last = [float("-inf")]

    def pass_on(words: str, done: float, total: float) -> None:
        if time.monotonic() - last[0] >= every_s or done == total:
            last[0] = time.monotonic()
            step(words, done, total)

    return pass_on


def first_id_before(oldest_id: int, oldest_us: int, until_us: int, time_of: IdTime) -> int:
    """Find an id that was printed at or before a time, close below it.

    Args:
        oldest_id: of a trade from which the search goes down.
        oldest_us: when it was printed, after `until_us`.
        until_us: the time to reach.
        time_of: asks the venue.
    """
    low_id, low_us = oldest_id, oldest_us
    reach = 1024
    for _ in range(_SEARCHES_MAX):
        if low_us <= until_us or low_id <= 0:
            break
        low_id = max(0, oldest_id - reach)
        found = time_of(low_id)
        if found is None:
            return low_id
        low_us = found
        if low_us > until_us:
            rate = reach / max(1, oldest_us - low_us)
            reach = max(reach * 5 // 4, int((oldest_us - until_us) * rate * _MARGIN))
    return low_id


def estimated_first_id(oldest: tuple[int, int], newest: tuple[int, int], until_us: int) -> int:
    """Estimate an id printed at about a time, from the rate between two trades; never below 0.

    Args:
        oldest: id and time of the trade from which to go back.
        newest: of a later trade.
        until_us: the time to reach.
    """
    rate = max(1, newest[0] - oldest[0]) / max(1, newest[1] - oldest[1])
    return max(0, oldest[0] - max(_LEAST_IDS, int((oldest[1] - until_us) * rate * _SPARE)))


def _wanted(demo: RunningStack, symbol: str) -> Load | None:
    """Choose the ids to fetch of a symbol; None when it has its hour already.

    The practice venue of a stack is asked; otherwise the rate of the trades that are there decides,
    and the next round looks whether they were enough.
    """
    venue = demo.described.addresses.get("venue")
    oldest_id, oldest_us = _oldest(demo, symbol)
    until_us = time.time_ns() // 1000 - int(SPAN_S * 1e6)
    if oldest_us <= until_us or oldest_id == 0:
        return None
    if venue is None:
        newest = _outermost_trade(demo, symbol, "desc") or (oldest_id, oldest_us)
        first = estimated_first_id((oldest_id, oldest_us), newest, until_us)
        return Load(symbol, first, oldest_id - 1)

    def time_of(trade_id: int) -> int | None:
        return _venue_time(venue, symbol, trade_id)

    goal_us = until_us - int(SPAN_S * 1e6 * (_MARGIN - 1))
    return Load(symbol, first_id_before(oldest_id, oldest_us, goal_us, time_of), oldest_id - 1)


def _outermost_trade(demo: RunningStack, symbol: str, order: str) -> tuple[int, int] | None:
    """Return id and time of the oldest (asc) or newest (desc) trade; None before the first."""
    try:
        columns = ["trade_id", "event_time"]
        rows = demo.k2.trades(symbol, limit=1, order=order, columns=columns).to_arrow()
    except K2Error:
        return None  # a symbol is not known before its first trade
    if not rows.num_rows:
        return None
    row = rows.to_pylist()[0]
    return int(row["trade_id"]), to_us(row["event_time"])


def _oldest(demo: RunningStack, symbol: str) -> tuple[int, int]:
    """Return id and time of the oldest trade of a symbol; waits for the first one."""
    end = time.monotonic() + _FIRST_TRADES_S
    while (found := _outermost_trade(demo, symbol, "asc")) is None:
        if time.monotonic() > end:
            return _newest_of_venue(demo, symbol)
        time.sleep(_POLL_S)
    return found


def _newest_of_venue(demo: RunningStack, symbol: str) -> tuple[int, int]:
    """Return the newest trade of the venue: the symbol trades so seldom that K2 has none yet."""
    venue = demo.described.addresses.get("venue")
    trades = _history(venue, f"symbol={symbol}&limit=1") if venue else []
    if not trades:
        raise Unavailable(
            "VENUE_UNAVAILABLE", f"no trade of {symbol} has come yet: load again later"
        )
    return int(trades[0]["id"]) + 1, int(trades[0]["time"]) * 1000


def _venue_time(venue: str, symbol: str, trade_id: int) -> int | None:
    trades = _history(venue, f"symbol={symbol}&fromId={trade_id}&limit=1")
    return int(trades[0]["time"]) * 1000 if trades else None


def _history(venue: str, query: str) -> list[dict[str, Any]]:
    try:
        answer = json.loads(fetch(f"http://{venue}/api/v3/historicalTrades?{query}", 10.0))
    except (NotServed, ValueError) as error:
        raise Unavailable("VENUE_UNAVAILABLE", f"the practice venue: {error}") from error
    return [dict(trade) for trade in answer]


def _wait(
    demo: RunningStack, loads: Iterable[Load], total: int, step: Callable[[str, float, float], None]
) -> int:
    """Wait until nothing of the loads is open any more; how many ids the venue did not have.

    Raises:
        Unavailable: VENUE_UNAVAILABLE when nothing is fetched for a minute.
    """
    wanted = {each.symbol: each for each in loads}
    last, moved = -1, time.monotonic()
    seen: set[str] = set()
    while wanted:
        gaps = demo.k2.gaps()
        ours = [gap for gap in gaps if _within(gap, wanted)]
        seen |= {gap.symbol for gap in ours}
        left = _ids(ours, "OPEN")
        left += sum(each.ids for each in wanted.values() if each.symbol not in seen)
        step(f"{total - left:,} of {total:,} trades of {len(wanted)} symbols", total - left, total)
        if left == 0:
            return _ids(ours, "UNFILLABLE")
        if left != last:
            last, moved = left, time.monotonic()
        elif time.monotonic() - moved > _STALLED_S:
            raise Unavailable(
                "VENUE_UNAVAILABLE",
                f"{left:,} trades were not fetched, and none in the last {_STALLED_S:.0f} s: see"
                " `k2 gaps --state open` and `k2 logs feed`",
            )
        time.sleep(_POLL_S)
    return 0


def _ids(gaps: Iterable[records.GapRecord], state: str) -> int:
    return sum(gap.last_trade_id - gap.first_trade_id + 1 for gap in gaps if gap.state == state)


def _within(gap: records.GapRecord, wanted: dict[str, Load]) -> bool:
    of = wanted.get(gap.symbol)
    return of is not None and of.first_id <= gap.first_trade_id <= of.last_id
