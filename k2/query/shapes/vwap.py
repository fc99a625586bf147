"""The shape of the volume-weighted mean price of each instrument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from k2.query.shapes import exact
from k2.query.shapes.shape import (
    COUNT,
    PRICE,
    QUOTE_VOLUME,
    TEXT,
    TIME,
    TRADES,
    VOLUME,
    Extent,
    Shape,
    Statement,
    columns_of,
    nullable,
)

_SCHEMA = nullable(
    columns_of(
        exchange=TEXT,
        symbol=TEXT,
        start_time=TIME,
        end_time=TIME,
        vwap=PRICE,
        volume=VOLUME,
        quote_volume=QUOTE_VOLUME,
        count=COUNT,
    ),
    ("vwap",),
)


@dataclass(frozen=True)
class Vwap(Shape):
    """Quote volume by volume, exact, rounded half to even; the times are of first and last trade.

    It is null where the volume is 0.
    """

    name: ClassVar[str] = "vwap"

    @property
    def schema(self) -> pa.Schema:
        """The columns of a mean price."""
        return _SCHEMA

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of trades that it is made of."""
        return ("exchange", "symbol", "event_time", "price", "quantity")

    def statement(self, extent: Extent) -> Statement:
        """Write the statement: sums, then their quotient."""
        sums = (
            "SELECT exchange, symbol, min(event_time) AS start_time, max(event_time) AS end_time,"
            f" sum(quantity) AS volume, sum({exact.QUOTE}) AS quote_volume, count(*) AS count"
            f" FROM {TRADES} GROUP BY ALL"
        )
        digits = (
            f"SELECT *, {exact.raw('quote_volume')} AS quote_raw, {exact.raw('volume')} AS base_raw"
        )
        return Statement(
            f"SELECT * EXCLUDE (quote_raw, base_raw),"
            f" {exact.rounded_price('quote_raw', 'base_raw')} AS vwap FROM ({digits} FROM ({sums}))"
        )
