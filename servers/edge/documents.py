"""Describes the answers of the API for its OpenAPI document.

Answers are written as bytes from columns and records (`negotiation.py`, `json_form.py` of the
client); these models say what those bytes look like. Models of records follow the records: an id is
a string, a time ISO 8601 text. Fields of rows are optional, because a request may choose columns.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import date, datetime
from functools import cache
from typing import Any, Final, TypeAlias, Union

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, create_model

from k2.market import schema
from k2client import records

Model: TypeAlias = type[BaseModel]


@cache
def of_record(kind: type) -> Model:
    """Make the model of a record of `k2client.records`, by its fields."""
    hints = typing.get_type_hints(kind)
    fields: dict[str, Any] = {name: (_value(name, hint), ...) for name, hint in hints.items()}
    made: Model = create_model(kind.__name__, __doc__=kind.__doc__, **fields)
    return made


def _value(name: str, hint: Any) -> Any:  # noqa: ANN401 a type
    """Return the JSON type of a record's field."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return Union[tuple(_value(name, arg) for arg in args)]  # noqa: UP007 a computed union
    if origin is tuple:
        return list[_value("", args[0])]  # type: ignore[misc]  # computed
    if origin is not None and issubclass(origin, Mapping):
        return dict[str, str]
    if dataclasses.is_dataclass(hint):
        return of_record(typing.cast(type, hint))
    return str if hint is int and name.endswith("_id") else hint


def _of_rows(name: str, doc: str, columns: pa.Schema) -> Model:
    """Make the model of rows, by their Arrow columns."""
    fields: dict[str, Any] = {column.name: (_cell(column.type), None) for column in columns}
    made: Model = create_model(name, __doc__=doc, **fields)
    return made


def _cell(kind: pa.DataType) -> Any:  # noqa: ANN401 a type
    """Return the JSON type of a column: 64-bit integers, decimals and times are strings."""
    if pa.types.is_boolean(kind):
        return bool | None
    if pa.types.is_int32(kind):
        return int | None
    if pa.types.is_timestamp(kind):
        return datetime | None
    if pa.types.is_date(kind):
        return date | None
    return dict[str, str | None] | None if pa.types.is_map(kind) else str | None


TradeRow = _of_rows(
    "TradeRow",
    "A trade; `columns` chooses among its fields.",
    schema.arrow_schema(schema.TRADE),
)


_TEXT, _TIME, _COUNT = pa.string(), pa.timestamp("us", "UTC"), pa.int64()
_DECIMAL: Final = pa.decimal128(38, 8)
_BAR: Final = {
    "exchange": _TEXT,
    "symbol": _TEXT,
    **dict.fromkeys(("open", "high", "low", "close", "volume", "quote_volume"), _DECIMAL),
    "count": _COUNT,
    "vwap": _DECIMAL,
}
BarRow = _of_rows(
    "BarRow",
    "A bar; `columns` chooses among its fields.",
    pa.schema({"bar_start": _TIME, **_BAR, "buy_volume": _DECIMAL, "final": pa.bool_()}),
)
SummaryRow = _of_rows(
    "SummaryRow",
    "A day of an instrument.",
    pa.schema(
        {
            "date": pa.date32(),
            **_BAR,
            "twap": _DECIMAL,
            "buy_volume": _DECIMAL,
            **dict.fromkeys(("first_time", "last_time"), _TIME),
            **dict.fromkeys(("first_trade_id", "last_trade_id"), _COUNT),
            "largest_quantity": _DECIMAL,
            "final": pa.bool_(),
        }
    ),
)
SymbolRow = _of_rows(
    "SymbolRow",
    "An instrument that has trades.",
    pa.schema(
        {
            "exchange": _TEXT,
            "symbol": _TEXT,
            "first_time": _TIME,
            "last_time": _TIME,
            **dict.fromkeys(("first_trade_id", "last_trade_id", "count"), _COUNT),
        }
    ),
)


class TimingDocument(BaseModel):
    """The time that an answer took here, in milliseconds."""

    plan: float = Field(description="until it was fixed which rows it has")
    first_batch: float | None = Field(description="until the first rows were here")
    total: float = Field(description="until the last rows were here")


class TookDocument(BaseModel):
    """The time that an answer took here, in milliseconds."""

    total: float


class _Rows(BaseModel):
    model_config = ConfigDict(extra="forbid")

    next_cursor: str | None = Field(description="`cursor` of the next page; null at the end")
    provenance: of_record(records.Provenance)  # type: ignore[valid-type]  # computed
    estimate: of_record(records.Estimate)  # type: ignore[valid-type]  # computed
    timing_ms: TimingDocument


class TradesDocument(_Rows):
    """A page of trades."""

    data: list[TradeRow]  # type: ignore[valid-type]  # computed


class BarsDocument(_Rows):
    """A page of bars."""

    data: list[BarRow]  # type: ignore[valid-type]  # computed


class SummaryDocument(_Rows):
    """A day of an instrument in one row, or none where it had no trade."""

    data: list[SummaryRow]  # type: ignore[valid-type]  # computed


class SymbolsDocument(_Rows):
    """A page of instruments."""

    data: list[SymbolRow]  # type: ignore[valid-type]  # computed


class HealthDocument(BaseModel):
    """Whether K2 serves: feeds and queries both."""

    status: typing.Literal["SERVING", "NOT_SERVING"]
    level: str | None = Field(description="of degradation; null where control does not answer")
    processes: dict[str, str] = Field(description="the state of each, by name")


class SnapshotsDocument(BaseModel):
    """The retained snapshots of the lake, newest first."""

    data: list[of_record(records.Snapshot)]  # type: ignore[valid-type]  # computed
    timing_ms: TookDocument


class GapsDocument(BaseModel):
    """Runs of trade ids that were missed."""

    data: list[of_record(records.GapRecord)]  # type: ignore[valid-type]  # computed
    timing_ms: TookDocument


class LevelDocument(of_record(records.Degradation)):  # type: ignore[misc]  # computed
    """The degradation level, the pressures behind it, and its last changes, newest first."""

    transitions: list[of_record(records.Transition)]  # type: ignore[valid-type]  # computed


class DegradationDocument(BaseModel):
    """The degradation of the platform."""

    data: LevelDocument
    timing_ms: TookDocument


class StatusDocument(BaseModel):
    """The state of the platform and of each of its components."""

    data: of_record(records.Status)  # type: ignore[valid-type]  # computed
    timing_ms: TookDocument


class PanelsDocument(BaseModel):
    """Whether a Prometheus answers for the panels of the board System Health, and their titles."""

    class Panels(BaseModel):
        """The board."""

        prometheus: bool
        titles: list[str]

    data: Panels
    timing_ms: TookDocument


class SeriesDocument(BaseModel):
    """The series of a panel's query, as Prometheus has them."""

    class Series(BaseModel):
        """Labels, and values by Unix seconds."""

        metric: dict[str, str]
        values: list[tuple[float, str]]

    data: list[Series]
    timing_ms: TookDocument


class Stats(BaseModel):
    """How much there is: the newest snapshot, the topics of the tape, the feeds."""

    snapshot: of_record(records.Snapshot) | None  # type: ignore[valid-type]  # computed
    topics: list[of_record(records.Topic)]  # type: ignore[valid-type]  # computed
    feeds: list[of_record(records.Feed)]  # type: ignore[valid-type]  # computed
    gaps: dict[str, int] = Field(description="runs of missed ids by state")


class StatsDocument(BaseModel):
    """How much there is."""

    data: Stats
    timing_ms: TookDocument
