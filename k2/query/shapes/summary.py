"""The shape of a day's summary: what a bar of the day has, and more, in one row an instrument.

The day is one of the calendar of a time zone. The time-weighted price is that of `twap` over the
same range: in a day that goes on it ends with the newest trade. A summary is final by the same
rules as a bar: the day is over, and no missing trade id may lie in it. Ids are the least and the
greatest of the day.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import ClassVar

import pyarrow as pa

from k2.market.offsets import TimeRange
from k2.query.shapes import bar_sql, exact, price_time
from k2.query.shapes.bar_grid import BarGrid, zone_of
from k2.query.shapes.shape import (
    COUNT,
    PRICE,
    QUOTE_VOLUME,
    REST_US,
    TEXT,
    TIME,
    TRADES,
    VOLUME,
    VOUCHED,
    Asked,
    Extent,
    Shape,
    Statement,
    bad_option,
    columns_of,
    within,
)

_SCHEMA = columns_of(
    date=pa.date32(),
    exchange=TEXT,
    symbol=TEXT,
    open=PRICE,
    high=PRICE,
    low=PRICE,
    close=PRICE,
    volume=VOLUME,
    quote_volume=QUOTE_VOLUME,
    count=COUNT,
    vwap=PRICE,
    twap=PRICE,
    buy_volume=VOLUME,
    first_time=TIME,
    last_time=TIME,
    first_trade_id=COUNT,
    last_trade_id=COUNT,
    largest_quantity=VOLUME,
    final=pa.bool_(),
)
_SHOWN = 40  # characters of an option in a message
_SUMS = bar_sql.SUMS | {
    "first_time": "min(event_time)",
    "last_time": "max(event_time)",
    "largest_quantity": "max(quantity)",
}
_WEIGHED = (  # the product is exact
    "weighed AS (SELECT exchange, symbol, sum(to_us - from_us) AS held_us,"
    " sum(price::DECIMAL(38, 8) * (to_us - from_us)::DECIMAL(18, 0)) AS price_us"
    " FROM held GROUP BY ALL)"
)


@dataclass(frozen=True)
class Summary(Shape):
    """A day of each instrument in one row.

    Attributes:
        day: as `2026-01-31`.
        zone: the time zone of the day.
    """

    day: str = ""
    zone: str = "UTC"

    name: ClassVar[str] = "summary"
    order: ClassVar[tuple[str, ...]] = ("exchange", "symbol")
    judges: ClassVar[bool] = True

    @property
    def schema(self) -> pa.Schema:
        """The columns of a day."""
        return _SCHEMA

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of trades that a summary is made of."""
        return ("exchange", "symbol", "trade_id", "event_time", "price", "quantity", "side")

    @property
    def stretch_us(self) -> int | None:
        """A day is lengthened by the rest after it."""
        return REST_US

    def checked(self, asked: Asked) -> Summary:
        """Return the shape.

        Raises:
            Invalid: BAD_REQUEST when it names no day or no zone, or a range besides.
        """
        if asked.last_us is not None or asked.range not in (TimeRange(), self._times):
            raise bad_option("a summary is of a day: give a date, and no range")
        return replace(self, day=date.fromisoformat(self.day).isoformat())

    def aligned(self, times: TimeRange) -> TimeRange:
        """Return the day."""
        return self._times

    def widened(self, times: TimeRange) -> TimeRange:
        """Return the times to read."""
        return price_time.with_rest(times)

    def complete_over(self, times: TimeRange) -> TimeRange:
        """Return the day: of later trades only some one is needed."""
        return times

    def statement(self, extent: Extent) -> Statement:
        """Write the statement; see the module."""
        end_us, inside = extent.range.end_us, within(extent.range)
        held = price_time.held(extent.range)
        sums = ", ".join(f"{text} AS {name}" for name, text in _SUMS.items())
        final = "coalesce(since_us <= ? AND until_us >= ? AND first_id > from_id, FALSE)"
        if extent.has_holes:
            final += f" AND NOT {bar_sql.HOLED}"
        prices = {
            "vwap": exact.rounded_price("quote_raw", "base_raw"),
            "twap": f"coalesce({exact.rounded_price('price_raw', 'held_us')}, close)",
        }
        text = (
            f"WITH {held.text}, {_WEIGHED},"
            f" sums AS (SELECT exchange, symbol, {sums} FROM {TRADES} WHERE TRUE{inside.text}"
            " GROUP BY ALL),"
            f" judged AS (SELECT *, {exact.raw('quote_volume')} AS quote_raw,"
            f" {exact.raw('volume')} AS base_raw, {exact.raw('price_us')} AS price_raw,"
            " last_id AS id_before, first_id AS id_after"
            " FROM sums JOIN weighed USING (exchange, symbol))"
            " SELECT ?::DATE AS date, exchange, symbol, open, high, low, close, volume,"
            f" quote_volume, count, {prices['vwap']} AS vwap, {prices['twap']} AS twap, buy_volume,"
            " first_time, last_time, first_id AS first_trade_id, last_id AS last_trade_id,"
            f" largest_quantity, {final} AS final"
            f" FROM judged LEFT JOIN {VOUCHED} USING (exchange, symbol)"
        )
        values = (*held.parameters, *inside.parameters)
        return Statement(text, (*values, self.day, extent.range.start_us, end_us))

    @property
    def _times(self) -> TimeRange:
        """The times of the day."""
        zone = zone_of(self.zone)
        try:
            day = date.fromisoformat(self.day)
        except ValueError as error:
            raise bad_option(f"{self.day[:_SHOWN]!r} is no day: write 2026-01-31") from error
        midday = datetime(day.year, day.month, day.day, 12, tzinfo=zone)
        midday_us = int(midday.timestamp()) * 1_000_000
        begin_us, end_us = BarGrid("1d", self.zone).edges(midday_us, midday_us)
        if not begin_us <= midday_us < end_us:
            raise bad_option(f"{self.day} lies beyond the calendar")
        return TimeRange(begin_us, end_us)
