"""Decides until when a price weighs in a mean over time, and writes the SQL of it.

A price holds from its trade until the next trade of the instrument, in canonical order. The last
one holds until the end of the range, or until the newest trade that is known of any instrument of
the answer where that is earlier: nothing weighs beyond what is known. So the mean of a day that
goes on ends with its newest trade, and of several trades at one moment only the last one weighs.

To tell whether a range has ended, trades up to an hour after it are read, and only their times
count. All that is a function of the rows below E, so a read token gives the same mean at any time,
whichever snapshot answers it. Where all instruments rest for longer than that hour, the newest
trade within the range ends the time.
"""

from __future__ import annotations

from k2.market.offsets import TimeRange
from k2.query.shapes.shape import REST_US, TRADES, Statement, within


def with_rest(times: TimeRange) -> TimeRange:
    """Return the times to read: beyond the end so far that it is known to have come."""
    if times.end_us is None:
        return times
    return TimeRange(times.start_us, times.end_us + REST_US)


def held(times: TimeRange) -> Statement:
    """Write the relation `held`: exchange, symbol, event_time, trade_id, price, from_us, to_us.

    Args:
        times: those of the mean; the rows are of its trades.
    """
    inside = within(times)
    known = "max(epoch_us(event_time))"
    until, ends = (known, ()) if times.end_us is None else (f"least({known}, ?)", (times.end_us,))
    text = (
        "held AS (SELECT exchange, symbol, event_time, trade_id, price,"
        " epoch_us(event_time) AS from_us, coalesce(lead(epoch_us(event_time)) OVER"
        " (PARTITION BY exchange, symbol ORDER BY event_time, trade_id), until_us) AS to_us"
        f" FROM {TRADES}, (SELECT {until} AS until_us FROM {TRADES}) WHERE TRUE{inside.text})"
    )
    return Statement(text, (*ends, *inside.parameters))
