"""The shape of an as-of join: each trade of one side with the nearest of another symbol.

Backward, that is the newest right trade at or before the time of the left one; forward, the oldest
at or after it; always of the same exchange. Of several right trades at one moment the canonical
order decides, so the join has one answer. A left trade that has none within the tolerance stays,
with nulls.

The right side is read beyond the range, as far as the tolerance, so that trades near its edge find
theirs. Without a tolerance that is the whole history of the right symbol before the range, or after
it (forward): a tolerance keeps a question about a short range cheap.

The join compares time and trade id as one number, which names one right trade: by the time alone
DuckDB would take any of a moment, and pairs of both it compares three times slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar, Final

import pyarrow as pa

from k2 import limits
from k2.market import schema
from k2.market.offsets import TimeRange
from k2.query.shapes import exact
from k2.query.shapes.shape import TRADES, Asked, Extent, Shape, Statement, bad_option, within

RIGHT: Final = "right_"
_TOLERANCE_MAX_US: Final = 366 * 24 * 3_600_000_000


class Direction(StrEnum):
    """Where the right trade lies."""

    BACKWARD = "backward"
    FORWARD = "forward"


@dataclass(frozen=True)
class Asof(Shape):
    """Trades beside the nearest ones of another symbol.

    Attributes:
        right: the other symbol; those of the request are the left ones.
        tolerance_us: how far apart both may be at most; None: any.
        direction: where the right trade lies.
    """

    right: str = ""
    tolerance_us: int | None = None
    direction: Direction = Direction.BACKWARD

    name: ClassVar[str] = "asof"
    order: ClassVar[tuple[str, ...]] = ("event_time", "exchange", "symbol", "trade_id")

    @property
    def schema(self) -> pa.Schema:
        """The columns of a trade, then the same of the right one."""
        trade = schema.arrow_schema(schema.TRADE)
        right = [each.with_name(RIGHT + each.name).with_nullable(True) for each in trade]
        return pa.schema([*trade, *right])

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a trade."""
        return schema.TRADE.columns

    @property
    def stretch_us(self) -> int | None:
        """A range is lengthened by the tolerance."""
        return self.tolerance_us

    def checked(self, asked: Asked) -> Asof:
        """Return the shape, with the symbol in upper case.

        Raises:
            Invalid: BAD_REQUEST when the right side is no symbol, there is no left one, or the
                tolerance is none.
        """
        right = self.right.upper()
        if not right or not right.isprintable() or len(right.encode()) > limits.LABEL_BYTES_MAX:
            shown = self.right[: limits.ERROR_NAME_MAX]
            raise bad_option(f"{shown!r} is not the name of a symbol for the right side")
        if not asked.symbols:
            raise bad_option("an as-of join needs a symbol for its left side")
        if self.tolerance_us is not None and not 0 <= self.tolerance_us <= _TOLERANCE_MAX_US:
            raise bad_option(f"a tolerance of {self.tolerance_us} us is not between 0 and a year")
        return replace(self, right=right)

    def widened(self, times: TimeRange) -> TimeRange:
        """Return the times to read, of which the right side takes all."""
        reach_us = self.tolerance_us
        start_us, end_us = times.start_us, times.end_us
        if self.direction is Direction.FORWARD:
            later_us = None if reach_us is None or end_us is None else end_us + reach_us
            return TimeRange(start_us, later_us)
        earlier_us = None if reach_us is None or start_us is None else start_us - reach_us
        return TimeRange(earlier_us, end_us)

    def read_symbols(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """Return the symbols of both sides."""
        return tuple(dict.fromkeys((*symbols, self.right)))

    def statement(self, extent: Extent) -> Statement:
        """Write the statement; see the module."""
        sign, edge = ">=", exact.order_key("epoch_us(event_time)", exact.ID_MAX)
        if self.direction is Direction.FORWARD:
            sign, edge = "<=", exact.order_key("epoch_us(event_time)", exact.ID_MIN)
        same = "" if extent.one_exchange else "near.exchange = far.exchange AND "
        marks = ", ".join("?" * len(extent.symbols))
        inside = within(extent.range)
        text = (
            f"SELECT {', '.join(self._chosen())}"
            f" FROM (SELECT *, {edge} AS edge FROM {TRADES}"
            f" WHERE symbol IN ({marks}){inside.text}) AS near"
            f" ASOF LEFT JOIN (SELECT *, {exact.ORDER_KEY} AS place FROM {TRADES}"
            f" WHERE symbol = ?) AS far ON {same}edge {sign} place"
        )
        return Statement(text, (*extent.symbols, *inside.parameters, self.right))

    def _chosen(self) -> Iterator[str]:
        """Yield the expressions of the columns; the right ones hold within the tolerance alone."""
        apart = "abs(epoch_us(near.event_time) - epoch_us(far.event_time))"
        for name in schema.TRADE.columns:
            yield f"near.{name}"
        for name in schema.TRADE.columns:
            value = f"far.{name}"
            if self.tolerance_us is not None:
                value = f"CASE WHEN {apart} <= {self.tolerance_us} THEN {value} END"
            yield f"{value} AS {RIGHT}{name}"
