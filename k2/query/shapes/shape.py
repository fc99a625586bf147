"""Defines the shape of an answer: what is made of the trades of lake and tail.

Planning, cutting and provenance are the same for every shape: a shape names the columns and the
times that it reads, and one statement over the relation `TRADES`, which holds exactly the trades of
the answer. So a shape knows nothing of lake, tail and tape, and they know only this module.

A statement is text that K2 wrote; what a caller names is a parameter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import ClassVar, Final, Protocol, Self

import pyarrow as pa

from k2.errors import Data, Invalid, Reason
from k2.market import schema
from k2.market.offsets import TimeRange

TRADES = "trades"  # relation: the trades to read, with the columns of the shape
VOUCHED = "vouched"  # relation: exchange, symbol, since_us, until_us, from_id
HOLES = "holes"  # relation: exchange, symbol, first_id, last_id, filling

TEXT = pa.string()
PRICE = schema.arrow_schema(schema.TRADE).field("price").type
VOLUME = schema.arrow_schema(schema.TRADE).field("quantity").type
QUOTE_VOLUME = pa.decimal128(38, 16)
TIME = pa.timestamp("us", tz="UTC")
COUNT = pa.int64()
REST_US: Final = 3_600_000_000  # how far beyond a range the nearest trade is searched
_ALWAYS = TimeRange()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Statement:
    """SQL text, and the values of its `?` in order."""

    text: str
    parameters: tuple[object, ...] = ()


class Reading(Enum):
    """How an answer is made of the trades that it reads.

    ROWS: it consists of them. NEWEST: of the newest one of each instrument, so the newest are read
    first and reading ends when each was found. TABLE: of what one statement computes of all.
    """

    ROWS = "rows"
    NEWEST = "newest"
    TABLE = "table"


class Asked(Protocol):
    """What a shape sees of the request that it belongs to."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols named; empty means all."""

    @property
    def range(self) -> TimeRange:
        """The times named."""

    @property
    def last_us(self) -> int | None:
        """Instead of times, a duration before the moment of planning."""


@dataclass(frozen=True)
class Extent:
    """What a statement can rely on.

    Attributes:
        symbols: those that the request names; empty means all.
        range: the times that the answer is about (`Shape.aligned`).
        low_us, high_us: no trade that is read is older or newer; equal where there is none.
        has_holes: whether the relation `HOLES` has a row.
        one_exchange: whether no two trades that are read are of different exchanges.
    """

    symbols: tuple[str, ...] = ()
    range: TimeRange = _ALWAYS
    low_us: int = 0
    high_us: int = 0
    has_holes: bool = False
    one_exchange: bool = False


class Shape(ABC):
    """One shape with its options; a frozen dataclass, so that requests compare.

    Attributes:
        name: its name in requests, metrics and commands.
        reading: how its answer is made of trades.
        order: columns of the answer that order its rows totally.
        judges: whether its statement reads `VOUCHED` and `HOLES`.
    """

    name: ClassVar[str]
    reading: ClassVar[Reading] = Reading.TABLE
    order: ClassVar[tuple[str, ...]] = ("exchange", "symbol")
    judges: ClassVar[bool] = False

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """All columns of the answer."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The columns of trades that its statement reads."""

    @property
    def stretch_us(self) -> int | None:
        """By how much `aligned` and `widened` lengthen a range at most; None: without a bound."""
        return 0

    def checked(self, asked: Asked) -> Self:
        """Return the shape in its normal form.

        Raises:
            Invalid: BAD_REQUEST when its options have no meaning, alone or in this request.
        """
        return self

    def aligned(self, times: TimeRange) -> TimeRange:
        """Return the times that the answer is about; aligned once more they stay the same."""
        return times

    def widened(self, times: TimeRange) -> TimeRange:
        """Return the times to read for an answer about `times`."""
        return times

    def complete_over(self, times: TimeRange) -> TimeRange:
        """Return the times in which an answer about `times` is incomplete where a trade is missing.

        They are those to read, unless a shape needs no more than to find some trade there.
        """
        return self.widened(times)

    def read_symbols(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """Return the symbols to read for an answer about these; empty means all."""
        return symbols

    def statement(self, extent: Extent) -> Statement:
        """Write the statement that makes the rows of the answer, in any order, of `TRADES`.

        Only for `Reading.TABLE`. Its columns are those of `schema`, of types that cast to them.

        Raises:
            Invalid: BAD_REQUEST when the answer would be too large.
        """
        raise NotImplementedError(self.name)

    def largest(self, extent: Extent) -> Statement:
        """Write the statement that finds the row whose value is too large for its column.

        It runs when `statement` ended because a sum did not fit; it yields one row: exchange,
        symbol, and the start of a bar in microseconds, or null where the shape has no bars.
        """
        return Statement(
            f"SELECT exchange, symbol, NULL FROM {TRADES} GROUP BY ALL"
            " ORDER BY sum(price::DOUBLE * quantity::DOUBLE) DESC LIMIT 1"
        )


def columns_of(**types: pa.DataType) -> pa.Schema:
    """Make a schema of columns that are never null; `nullable` makes exceptions."""
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


def nullable(columns: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """Return the schema with the named columns nullable."""
    return pa.schema([each.with_nullable(each.name in names) for each in columns])


def too_large(shape: str, exchange: str, symbol: str, start_us: int | None) -> Data:
    """Make the error of a value that its column cannot hold.

    Args:
        shape: name of the shape.
        exchange: of the row.
        symbol: of the row.
        start_us: start of its bar; None where it is of no bar.
    """
    where, metadata = "", {"exchange": exchange, "symbol": symbol}
    if start_us is not None:
        metadata["bar_start"] = (_EPOCH + timedelta(microseconds=start_us)).isoformat()
        where = f" in the bar of {metadata['bar_start']}"
    return Data(
        Reason.VALUE_TOO_LARGE,
        f"a sum of {exchange} {symbol}{where} has more digits than its column takes: ask for"
        f" {shape} of fewer trades, or without this symbol",
        metadata=metadata,
    )


def within(times: TimeRange) -> Statement:
    """Write the condition that a trade lies in times, to append to another."""
    bounds = ((">=", times.start_us), ("<", times.end_us))
    named = [(sign, time_us) for sign, time_us in bounds if time_us is not None]
    text = "".join(f" AND event_time {sign} make_timestamptz(?)" for sign, _ in named)
    return Statement(text, tuple(time_us for _, time_us in named))


def bad_option(message: str) -> Invalid:
    """Make the BAD_REQUEST error of an option."""
    return Invalid(Reason.BAD_REQUEST, message)
