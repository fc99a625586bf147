"""What shapes of trades are by definition: plain loops over rows, with `Decimal`.

Rows are those of `tape_world`; their prices, quantities and sides go by trade id.
"""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from zoneinfo import ZoneInfo

from tests.support.trades import is_buy, price_of, quantity_of

EXACT = Context(prec=120)
UNIT = Decimal("1e-8")
HOUR_US = 3600 * 10**6
STEPS_US = {"ms": 1000, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6}


def price(row):
    return price_of(row.trade_id) * UNIT


def quantity(row):
    return quantity_of(row.trade_id) * UNIT


def half_even(dividend, divisor):
    """The exact quotient as a price."""
    quotient = Context(prec=200).divide(dividend, divisor)
    return quotient.quantize(UNIT, ROUND_HALF_EVEN, Context(prec=200))


def by_instrument(rows):
    of = defaultdict(list)
    for row in sorted(rows):
        of[row.exchange, row.symbol].append(row)
    return of


# --- where bars begin -----------------------------------------------------------------------------


def _day(time_us, zone):
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)).astimezone(zone)


def _midnight_us(day, zone):
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 10**6


def bar_of(time_us, every, zone_name):
    """The start and the end of the bar that holds a time."""
    zone = ZoneInfo(zone_name)
    day = _day(time_us, zone).date()
    if every == "1mo":
        later = date(day.year + day.month // 12, day.month % 12 + 1, 1)
        return _midnight_us(day.replace(day=1), zone), _midnight_us(later, zone)
    if every == "1w":
        monday = day - timedelta(days=day.weekday())
        return _midnight_us(monday, zone), _midnight_us(monday + timedelta(days=7), zone)
    begin, end = _midnight_us(day, zone), _midnight_us(day + timedelta(days=1), zone)
    if every == "1d":
        return begin, end
    unit = every.lstrip("0123456789")
    step = int(every.removesuffix(unit)) * STEPS_US[unit]
    start = begin + (time_us - begin) // step * step
    return start, min(start + step, end)


# --- bars -----------------------------------------------------------------------------------------


def bars(rows, shape, times, seen, before=()):
    """All bars in order, as tuples of the shape's columns.

    Args:
        rows: of the range.
        shape: with `every`, `fill`, `zone`.
        times: the range, from the start of a bar on.
        seen: every trade that was accepted, of any time, by instrument.
        before: rows of before the range.
    """
    made, earlier = [], by_instrument(before)
    for name, some in by_instrument(rows).items():
        rested = [row for row in earlier[name] if row.event_time >= times.start_us - HOUR_US]
        seed = price(rested[-1]) if rested else None
        made += _bars_of(name, some, shape, times, seen[name], seed)
    return sorted(made)


def _bars_of(name, rows, shape, times, seen, close):
    held = defaultdict(list)
    for row in rows:
        held[bar_of(row.event_time, shape.every, shape.zone)].append(row)
    starts = sorted(held)
    if shape.fill != "none":
        low = starts[0][0] if times.start_us is None else times.start_us
        high = starts[-1][1] if times.end_us is None else times.end_us
        starts = []
        while low < high:
            starts.append(bar_of(low, shape.every, shape.zone))
            low = starts[-1][1]
    for at, (start, end) in enumerate(starts):
        some = held.get((start, end), [])
        own = [row.trade_id for row in some]
        before = own or [row.trade_id for key in starts[:at] for row in held.get(key, [])]
        after = own or [row.trade_id for key in starts[at:] for row in held.get(key, [])]
        final = end <= max(row.event_time for row in seen) and _whole(before, after, seen)
        final = final and (times.end_us is None or end <= times.end_us)
        bar, close = _bar(some, close if shape.fill == "prev" else None)
        yield (start, *name, *bar, final)


def _bar(rows, last_close):
    if not rows:
        zero = Decimal(0)
        return (*[last_close] * 4, zero, zero, 0, None, zero), last_close
    prices = [price(row) for row in rows]
    volume = sum(map(quantity, rows))
    quote = sum(EXACT.multiply(price(row), quantity(row)) for row in rows)
    bought = sum((quantity(row) for row in rows if is_buy(row.trade_id)), Decimal(0))
    sums = (volume, quote, len(rows), half_even(quote, volume), bought)
    return (prices[0], max(prices), min(prices), prices[-1], *sums), prices[-1]


def _whole(before, after, seen):
    """Whether no id is missing beside the trades of a bar, or between those around it.

    Args:
        before: ids of the bar, or of all before it.
        after: ids of the bar, or of all after it.
        seen: every trade of the instrument.
    """
    ids = {row.trade_id for row in seen}
    last = max(before) if before else min(after) - 1
    first = min(after) if after else max(before) + 1
    missing = [one for one in range(min(ids) - 1, max(ids)) if one not in ids]
    runs = []
    for one in missing:
        if runs and runs[-1][1] == one - 1:
            runs[-1][1] = one
        else:
            runs.append([one, one])
    return not any(run[0] - 1 <= last and run[1] + 1 >= first for run in runs)


# --- means, the newest ----------------------------------------------------------------------------


def vwap(rows):
    """Rows of the shape, in order."""
    for name, some in sorted(by_instrument(rows).items()):
        volume = sum(map(quantity, some))
        quote = sum(EXACT.multiply(price(row), quantity(row)) for row in some)
        times = some[0].event_time, some[-1].event_time
        yield (*name, *times, half_even(quote, volume), volume, quote, len(some))


def twap(rows, times, after=()):
    """Rows of the shape, in order; `after` are rows of after the range."""
    newest = max((row.event_time for row in rows), default=None)
    over = any(row.event_time < times.end_us + HOUR_US for row in after)
    for name, some in sorted(by_instrument(rows).items()):
        end = times.end_us if over else newest
        until = [*(row.event_time for row in some[1:]), end]
        held = [after - row.event_time for row, after in zip(some, until, strict=True)]
        weighed = sum(EXACT.multiply(price(row), us) for row, us in zip(some, held, strict=True))
        mean = half_even(weighed, sum(held)) if sum(held) else price(some[-1])
        yield (*name, some[0].event_time, end, mean, len(some))


def latest(rows):
    """The newest row of each instrument, in order of exchange and symbol."""
    return [some[-1] for _, some in sorted(by_instrument(rows).items())]
