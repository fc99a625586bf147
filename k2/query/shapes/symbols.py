"""The shape of a list of instruments: what each has, from its first trade to its last.

It reads names, times and ids of all trades of its range: files have no statistics of a symbol. Ids
are the least and the greatest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from k2.query.shapes.shape import COUNT, TEXT, TIME, TRADES, Extent, Shape, Statement, columns_of

_SCHEMA = columns_of(
    exchange=TEXT,
    symbol=TEXT,
    first_time=TIME,
    last_time=TIME,
    first_trade_id=COUNT,
    last_trade_id=COUNT,
    count=COUNT,
)


@dataclass(frozen=True)
class Symbols(Shape):
    """The instruments that have trades."""

    name: ClassVar[str] = "symbols"

    @property
    def schema(self) -> pa.Schema:
        """The columns of an instrument."""
        return _SCHEMA

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of trades that name, date and count them."""
        return ("exchange", "symbol", "trade_id", "event_time")

    def statement(self, extent: Extent) -> Statement:
        """Write the statement; see the module."""
        return Statement(
            "SELECT exchange, symbol, min(event_time) AS first_time, max(event_time) AS last_time,"
            " min(trade_id) AS first_trade_id, max(trade_id) AS last_trade_id, count(*) AS count"
            f" FROM {TRADES} GROUP BY ALL"
        )
