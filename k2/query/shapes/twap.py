"""The shape of the time-weighted mean price of each instrument.

How long each price weighs is decided by `price_time`. Where no time passes, because all trades are
of one moment and no later one is known, the mean is the last price.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from k2.market.offsets import TimeRange
from k2.query.shapes import exact, price_time
from k2.query.shapes.shape import (
    COUNT,
    PRICE,
    REST_US,
    TEXT,
    TIME,
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

    @property
    def stretch_us(self) -> int | None:
        """A range is lengthened by the rest after it."""
        return REST_US

    def widened(self, times: TimeRange) -> TimeRange:
        """Return the times to read."""
        return price_time.with_rest(times)

    def complete_over(self, times: TimeRange) -> TimeRange:
        """Return the times themselves: of later trades only some one is needed."""
        return times

    def statement(self, extent: Extent) -> Statement:
        """Write the statement: how long each price held, then the quotient of sums."""
        held = price_time.held(extent.range)
        sums = (
            "SELECT exchange, symbol, min(event_time) AS start_time, make_timestamptz(max(to_us))"
            " AS end_time, sum(price::DECIMAL(38, 8) * (to_us - from_us)) AS held,"
            f" sum(to_us - from_us) AS length_us, arg_max(price, {exact.ORDER_KEY}) AS last,"
            " count(*) AS count FROM held GROUP BY ALL"
        )
        mean = exact.rounded_price("held_raw", "length_us")
        return Statement(
            f"WITH {held.text} SELECT exchange, symbol, start_time, end_time, count,"
            f" coalesce({mean}, last) AS twap"
            f" FROM (SELECT *, {exact.raw('held')} AS held_raw FROM ({sums}))",
            held.parameters,
        )
