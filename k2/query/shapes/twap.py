"""The shape of the time-weighted mean price of each instrument.

A price holds from its trade until the next trade of the instrument, in canonical order; the last
one until the end of the range, or not at all where the range has no end: then the newest trade ends
the time. So of several trades at one moment only the last one weighs. Where no time passes, because
all trades are of one moment and the range has no end, the mean is the last price.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from k2.query.shapes import exact
from k2.query.shapes.shape import (
    COUNT,
    PRICE,
    TEXT,
    TIME,
    TRADES,
    Extent,
    Shape,
    Statement,
    columns_of,
)

_SCHEMA = columns_of(
    exchange=TEXT, symbol=TEXT, start_time=TIME, end_time=TIME, twap=PRICE, count=COUNT
)


@dataclass(frozen=True)
class Twap(Shape):
    """The mean price over time, exact, rounded half to even; the times are where it is taken."""

    name: ClassVar[str] = "twap"

    @property
    def schema(self) -> pa.Schema:
        """The columns of a mean price."""
        return _SCHEMA

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of trades that it is made of."""
        return ("exchange", "symbol", "trade_id", "event_time", "price")

    def statement(self, extent: Extent) -> Statement:
        """Write the statement: how long each price held, then the quotient of sums."""
        held = (
            "SELECT *, epoch_us(event_time) AS from_us, coalesce(lead(epoch_us(event_time)) OVER"
            " (PARTITION BY exchange, symbol ORDER BY event_time, trade_id), ?::BIGINT,"
            f" epoch_us(event_time)) AS to_us FROM {TRADES}"
        )
        sums = (
            "SELECT exchange, symbol, min(event_time) AS start_time, make_timestamptz(max(to_us))"
            " AS end_time, sum(price::DECIMAL(38, 8) * (to_us - from_us)) AS held,"
            f" sum(to_us - from_us) AS length_us, arg_max(price, {exact.ORDER_KEY}) AS last,"
            f" count(*) AS count FROM ({held}) GROUP BY ALL"
        )
        mean = exact.rounded_price("held_raw", "length_us")
        return Statement(
            "SELECT exchange, symbol, start_time, end_time, count,"
            f" coalesce({mean}, last) AS twap"
            f" FROM (SELECT *, {exact.raw('held')} AS held_raw FROM ({sums}))",
            (extent.range.end_us,),
        )
