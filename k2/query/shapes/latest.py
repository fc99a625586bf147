"""The shape of the newest trade of each instrument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from k2.market import schema
from k2.query.shapes.shape import Reading, Shape


@dataclass(frozen=True)
class Latest(Shape):
    """The newest trade of each instrument, by canonical order; found without a scan."""

    name: ClassVar[str] = "latest"
    reading: ClassVar[Reading] = Reading.NEWEST
    judges: ClassVar[bool] = True  # so that reading ends where the newest trades are known to be

    @property
    def schema(self) -> pa.Schema:
        """The columns of a trade."""
        return schema.arrow_schema(schema.TRADE)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a trade; of these only those asked for are read."""
        return schema.TRADE.columns
