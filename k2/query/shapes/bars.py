"""The shape of bars: open, high, low, close, sums and vwap, by instrument and interval.

Open and close follow the canonical order, so ties in time go by trade id.

A bar is final when nothing can be missing in it: it ends within the range and not after the newest
trade of its instrument, it begins after the first one that was seen, and no missing trade id may
lie in it. Ids and times of an instrument grow
together, so ids missing between two trades were traded between them; a bar that holds one of the
two, or lies between, is not final.

Filled bars reach from the start of the range, else the instrument's first bar, to the end of the
range, else its last bar. An instrument without a trade in the range has no bars. With `prev`, the
bars before the first trade of the range have the price of the last trade before the range: trades
of the hour before it are read for that, and count for nothing else. Where the instrument rested for
longer, or the range has no start, their prices are null.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

import pyarrow as pa

from k2 import limits
from k2.market.offsets import TimeRange
from k2.query.shapes import bar_sql, exact
from k2.query.shapes.bar_grid import DAY_US, BarGrid
from k2.query.shapes.shape import (
    COUNT,
    PRICE,
    QUOTE_VOLUME,
    REST_US,
    TEXT,
    TIME,
    VOLUME,
    VOUCHED,
    Asked,
    Extent,
    Shape,
    Statement,
    bad_option,
    columns_of,
    nullable,
    within,
)

_SCHEMA = columns_of(
    bar_start=TIME,
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
    buy_volume=VOLUME,
    final=pa.bool_(),
)


class Fill(StrEnum):
    """How bars without trades are given: left out, with the last close, or with null prices."""

    NONE = "none"
    PREV = "prev"
    NULL = "null"


@dataclass(frozen=True)
class Bars(Shape):
    """Bars of trades.

    Attributes:
        every: the length of a bar, as in `BarGrid`.
        fill: how bars without trades are given.
        zone: the time zone of the days, weeks and months that they follow.
    """

    every: str = "1m"
    fill: Fill = Fill.NONE
    zone: str = "UTC"

    name: ClassVar[str] = "bars"
    order: ClassVar[tuple[str, ...]] = ("bar_start", "exchange", "symbol")
    judges: ClassVar[bool] = True

    @property
    def grid(self) -> BarGrid:
        """Where bars begin."""
        return BarGrid(self.every, self.zone)

    @property
    def schema(self) -> pa.Schema:
        """The columns of a bar."""
        prices = bar_sql.NO_PRICES if self.fill is not Fill.NONE else ()
        return nullable(_SCHEMA, (*prices, "vwap"))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of trades that bars are made of."""
        return ("exchange", "symbol", "trade_id", "event_time", "price", "quantity", "side")

    @property
    def stretch_us(self) -> int | None:
        """A range is lengthened by less than a bar, and with `prev` by the rest before it."""
        return self.grid.length_max_us + self._rest_us

    def checked(self, asked: Asked) -> Bars:
        """Return the shape; `24h` is `1d`.

        Raises:
            Invalid: BAD_REQUEST for a length, a zone, or a number of filled bars that is none.
        """
        self.grid.check()
        shape = replace(self, every="1d") if self.grid.step_us == DAY_US else self
        if asked.range.start_us is not None and asked.range.end_us is not None:
            shape._assert_fillable(asked.range.start_us, asked.range.end_us)
        return shape

    def aligned(self, times: TimeRange) -> TimeRange:
        """Return the range from the start of a bar on."""
        return self.grid.aligned(times)

    def widened(self, times: TimeRange) -> TimeRange:
        """Return the times to read: with `prev` before the start so far that a price is known."""
        if times.start_us is None:
            return times
        return TimeRange(times.start_us - self._rest_us, times.end_us)

    def statement(self, extent: Extent) -> Statement:
        """Write the statement; see the module."""
        relations = self._relations(extent)
        source = "bars" if self.fill is Fill.NONE else "filled"
        neighbours = bar_sql.OWN if self.fill is Fill.NONE else bar_sql.NEIGHBOURS
        end_us = extent.range.end_us
        ends: tuple[object, ...] = ()
        final = (
            "coalesce(start_us >= since_us AND end_us <= until_us AND id_after > from_id, FALSE)"
        )
        if end_us is not None:
            final, ends = f"{final} AND end_us <= ?", (end_us,)
        if extent.has_holes:
            final += f" AND NOT {bar_sql.HOLED}"
        text = (
            f"WITH {', '.join(relation.text for relation in relations)},"
            f" judged AS (SELECT *, {exact.raw('quote_volume')} AS quote_raw,"
            f" {exact.raw('volume')} AS base_raw, {neighbours} FROM {source})"
            " SELECT make_timestamptz(start_us) AS bar_start, exchange, symbol, open, high, low,"
            f" close, volume, quote_volume, count, {exact.rounded_price('quote_raw', 'base_raw')}"
            f" AS vwap, buy_volume, {final} AS final"
            f" FROM judged LEFT JOIN {VOUCHED} USING (exchange, symbol)"
        )
        values = (value for relation in relations for value in relation.parameters)
        return Statement(text, (*values, *ends))

    def largest(self, extent: Extent) -> Statement:
        """Write the statement that finds the bar with the greatest volumes."""
        edges = self._edges(extent.low_us, extent.high_us)
        relation = bar_sql.bars(self.grid, edges, bar_sql.SIZES, within(extent.range))
        return Statement(
            f"WITH {relation.text} SELECT exchange, symbol, start_us FROM bars"
            " ORDER BY greatest(quote_volume, volume * 1e-8) DESC LIMIT 1",
            relation.parameters,
        )

    def _relations(self, extent: Extent) -> list[Statement]:
        low_us, high_us = extent.low_us, extent.high_us
        if self.fill is Fill.NONE:
            return [bar_sql.bars(self.grid, self._edges(low_us, high_us))]
        start_us, end_us = extent.range.start_us, extent.range.end_us
        low_us = low_us if start_us is None else start_us
        high_us = high_us if end_us is None else end_us
        self._assert_fillable(low_us, high_us)
        edges = self._edges(low_us, high_us)
        prices = bar_sql.NO_PRICES if self.fill is Fill.NULL else bar_sql.LAST_CLOSE
        times = (start_us, end_us)
        return [
            bar_sql.bars(self.grid, edges, inside=within(extent.range)),
            bar_sql.seeds(start_us if self.fill is Fill.PREV else None),
            bar_sql.filled(self.grid, edges, times, prices),
        ]

    @property
    def _rest_us(self) -> int:
        return REST_US if self.fill is Fill.PREV else 0

    def _edges(self, low_us: int, high_us: int) -> list[int]:
        """Return what trades are joined to; nothing where bars begin at multiples of a length."""
        if self.grid.step_us and self.zone == "UTC":
            return []
        edges = self.grid.edges(low_us, high_us)
        return [] if self.grid.unit_us(edges) == self.grid.step_us else edges

    def _assert_fillable(self, start_us: int, end_us: int) -> None:
        bars = (end_us - start_us) // self.grid.length_max_us
        if self.fill is not Fill.NONE and bars > limits.BARS_FILLED_MAX:
            raise bad_option(
                f"{bars} filled bars of an instrument are more than {limits.BARS_FILLED_MAX}: give"
                " a shorter range, longer bars, or no fill"
            )
