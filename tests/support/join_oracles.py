"""Joins, markouts, summaries and availability of a list of trades, by definition, in plain Python.

Independent of the statements under test: nothing here knows SQL, and sums are `Decimal`s.
"""

import itertools
from collections import defaultdict
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

_HOUR_US = 3_600_000_000


class Print(NamedTuple):
    """A trade, in canonical order by its first four."""

    event_time: int
    exchange: str
    symbol: str
    trade_id: int
    side: str = "BUY"
    price: Decimal = Decimal(1)
    quantity: Decimal = Decimal(1)

    @property
    def of(self):
        return self.exchange, self.symbol


def asof(prints, left, right, inside, *, tolerance_us=None, backward=True):
    """(left, right or None) of each left trade of a range, in canonical order."""
    pairs = []
    for near in sorted(one for one in prints if one.symbol in left and inside(one)):
        far = sorted(one for one in prints if one.symbol == right and one.exchange == near.exchange)
        if backward:
            found = [one for one in far if one.event_time <= near.event_time][-1:]
        else:
            found = [one for one in far if one.event_time >= near.event_time][:1]
        if tolerance_us is not None:
            found = [one for one in found if abs(one.event_time - near.event_time) <= tolerance_us]
        pairs.append((near, found[0] if found else None))
    return pairs


def markouts(prints, inside, horizons_us, end_us):
    """(trade, horizon, price then, markout) of each trade of a range, in canonical order."""
    reach_us = None if end_us is None else end_us + max(horizons_us) + _HOUR_US
    made = []
    for one in sorted(filter(inside, prints)):
        same = sorted(other for other in prints if other.of == one.of)
        for horizon_us in sorted(horizons_us):
            then_us = one.event_time + horizon_us
            later = [
                other.event_time
                for other in same
                if reach_us is None or other.event_time < reach_us
            ]
            price = markout = None
            if max(later) >= then_us:
                price = [other for other in same if other.event_time <= then_us][-1].price
                markout = price - one.price if one.side == "BUY" else one.price - price
            made.append((one, horizon_us, price, markout))
    return made


def symbols(prints):
    """(exchange, symbol, first and last time, least and greatest id, count) of each instrument."""
    made = []
    for (exchange, symbol), some in sorted(_by_instrument(prints).items()):
        times = [one.event_time for one in some]
        ids = [one.trade_id for one in some]
        made.append((exchange, symbol, min(times), max(times), min(ids), max(ids), len(some)))
    return made


def availability(prints, day_of, missing=None, filling=(), since=None):
    """(day, exchange, symbol, status, count, gaps, missing ids), by that order.

    Args:
        prints: all trades that are read.
        day_of: the number of the day of a time.
        missing: ids that are missing, as (exchange, symbol, id); None: all that are not there.
        filling: those of them that are being filled.
        since: the first id that was ever seen, by instrument.
    """
    made = []
    for (exchange, symbol), some in _by_instrument(prints).items():
        days = {one.trade_id: day_of(one.event_time) for one in some}
        ids = sorted(days)
        gaps = []
        for low, high in itertools.pairwise(ids):
            hole = {(exchange, symbol, number) for number in range(low + 1, high)}
            hole &= hole if missing is None else set(missing)
            if hole:
                gaps.append((sorted((days[low], days[high])), hole))
        oldest, newest = min(days.values()), max(days.values())
        for day in range(oldest, newest + 1):
            count = sum(of == day for of in days.values())
            touching = [hole for (first, last), hole in gaps if first <= day <= last]
            pending = day == newest or any(hole & set(filling) for hole in touching)
            cut = 1 < min(ids) == (since or {}).get((exchange, symbol)) and day == oldest
            held = "degraded" if touching or cut else "available"
            whole = "missing" if touching and not count else held
            status = "pending" if pending else whole
            numbers = (count, len(touching), sum(map(len, touching)))
            made.append((day, exchange, symbol, status, *numbers))
    return sorted(made)


def _by_instrument(prints):
    by = defaultdict(list)
    for one in sorted(prints):
        by[one.of].append(one)
    return by


def summary(prints, day, end_us, later=()):
    """The columns of each instrument's day, without `final`.

    Args:
        prints: those of the day.
        day: its date.
        end_us: when it ends.
        later: those of after it.
    """
    made = []
    over = any(one.event_time < end_us + _HOUR_US for one in later)
    until_us = end_us if over else max((one.event_time for one in prints), default=None)
    for (exchange, symbol), some in sorted(_by_instrument(prints).items()):
        prices, ids = [one.price for one in some], [one.trade_id for one in some]
        volume = sum(one.quantity for one in some)
        quote = sum(one.price * one.quantity for one in some)
        ends = [one.event_time for one in some[1:]] + [until_us]
        held = [end - one.event_time for one, end in zip(some, ends, strict=True)]
        weighed = sum(price * us for price, us in zip(prices, held, strict=True))
        made.append(
            {
                "date": day,
                "exchange": exchange,
                "symbol": symbol,
                "open": prices[0],
                "high": max(prices),
                "low": min(prices),
                "close": prices[-1],
                "volume": volume,
                "quote_volume": quote,
                "count": len(some),
                "vwap": _rounded(quote / volume),
                "twap": _rounded(weighed / sum(held)) if sum(held) else prices[-1],
                "buy_volume": sum(one.quantity for one in some if one.side == "BUY"),
                "first_time": some[0].event_time,
                "last_time": some[-1].event_time,
                "first_trade_id": min(ids),
                "last_trade_id": max(ids),
                "largest_quantity": max(one.quantity for one in some),
            }
        )
    return made


def _rounded(price):
    return price.quantize(Decimal("1e-8"), ROUND_HALF_EVEN)
