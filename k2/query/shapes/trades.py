"""The shape of plain trades: the rows themselves, in canonical order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from k2.market import schema
from k2.query.shapes.shape import Reading, Shape


@dataclass(frozen=True)
class TradeRows(Shape):
    """Trades, row by row."""

    name: ClassVar[str] = "trades"
    reading: ClassVar[Reading] = Reading.ROWS
    order: ClassVar[tuple[str, ...]] = ("event_time", "exchange", "symbol", "trade_id")

    @property
    def schema(self) -> pa.Schema:
        """The columns of a trade."""
        return schema.arrow_schema(schema.TRADE)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a trade; of these only those asked for are read."""
        return schema.TRADE.columns
