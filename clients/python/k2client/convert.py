"""Converts messages of `k2.v1` to records, field by field of the same name.

The declared type of a record's field says how to convert its value, so a new field is added in two
places only: the proto and the record.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from k2.v1 import dead_letter_service_pb2, degradation_service_pb2, feed_service_pb2
from k2client import records, times
from k2client.errors import Internal, Invalid

R = TypeVar("R")

# The first value of each enumeration; all its values have the same prefix.
_ABSENT = "UNSPECIFIED"


@dataclass(frozen=True, slots=True)
class _Declared:
    """A field of a record, as its type says.

    Attributes:
        name: of the field.
        kind: its type, None aside.
        optional: whether it may be None.
        element: of a tuple; None where it is no tuple.
        mapping: whether it is a mapping.
    """

    name: str
    kind: Any
    optional: bool
    element: Any
    mapping: bool


def record(kind: type[R], message: Message) -> R:
    """Convert a message to a record of that kind."""
    return kind(**{declared.name: _value(message, declared) for declared in _declared(kind)})


def _read_types(kind: Any) -> tuple[_Declared, ...]:  # noqa: ANN401 a type
    return tuple(_of_hint(name, hint) for name, hint in typing.get_type_hints(kind).items())


# Once a kind: to look at types takes longer than to convert a value.
_declared: Callable[[Any], tuple[_Declared, ...]] = functools.cache(_read_types)


def _of_hint(name: str, hint: Any) -> _Declared:  # noqa: ANN401 a type
    optional = isinstance(hint, types.UnionType) and type(None) in hint.__args__
    if optional:
        (hint,) = (arg for arg in hint.__args__ if arg is not type(None))
    origin = typing.get_origin(hint)
    element = typing.get_args(hint)[0] if origin is tuple else None
    return _Declared(name, hint, optional, element, origin is not None and not optional)


def gap(message: Message) -> records.Gap:
    """Convert a gap; the record has its instrument as two fields."""
    flat: Any = message
    return records.Gap(
        flat.instrument.exchange,
        flat.instrument.symbol,
        flat.first_trade_id,
        flat.last_trade_id,
    )


def gap_state(name: str | None) -> feed_service_pb2.GapState.ValueType:
    """Return a gap's state by its name in any case; None is any state.

    Raises:
        Invalid: BAD_REQUEST for an unknown name.
    """
    if name is None:
        return feed_service_pb2.GAP_STATE_UNSPECIFIED
    values = feed_service_pb2.GapState.DESCRIPTOR.values_by_name
    value = values.get(f"GAP_STATE_{name.upper()}")
    if value is None or value.number == feed_service_pb2.GAP_STATE_UNSPECIFIED:
        raise Invalid("BAD_REQUEST", f"{name!r} is none of open, filled, unfillable, void")
    return feed_service_pb2.GapState.ValueType(value.number)


LEVELS = tuple(
    name.removeprefix("DEGRADATION_LEVEL_")
    for name, number in degradation_service_pb2.DegradationLevel.items()
    if number
)


def degradation_level(name: str) -> degradation_service_pb2.DegradationLevel.ValueType:
    """Return a degradation level by its name in any case.

    Raises:
        Invalid: BAD_REQUEST for an unknown name.
    """
    if name.upper() not in LEVELS:
        raise Invalid("BAD_REQUEST", f"{name!r} is none of {', '.join(LEVELS)}")
    return degradation_service_pb2.DegradationLevel.Value(f"DEGRADATION_LEVEL_{name.upper()}")


def duration(seconds: float) -> Duration:
    """Convert seconds to a Duration.

    Raises:
        Invalid: BAD_REQUEST when a Duration cannot carry it.
    """
    try:
        made = Duration()
        made.FromMicroseconds(round(seconds * 1_000_000))
    except (ValueError, OverflowError) as error:
        raise Invalid("BAD_REQUEST", f"{seconds} s is no duration") from error
    return made


def backfill_plan(message: feed_service_pb2.BackfillResponse) -> records.BackfillPlan:
    """Convert the answer to a backfill request."""
    return records.BackfillPlan(
        message.exchange,
        message.symbol,
        message.first_trade_id,
        message.last_trade_id,
        message.requests,
        message.eta.ToTimedelta().total_seconds(),
    )


def timestamp(micros: int) -> Timestamp:
    """Convert microseconds since 1970 to a Timestamp, exactly."""
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def trade_message(fields: Mapping[str, Any]) -> dead_letter_service_pb2.TradeRecord:
    """Make a trade from JSON values: times are ISO 8601 texts, ids may be texts.

    Raises:
        Invalid: BAD_REQUEST when a field is unknown or has another type.
    """
    try:
        return json_format.ParseDict(dict(fields), dead_letter_service_pb2.TradeRecord())
    except json_format.ParseError as error:
        raise Invalid("BAD_REQUEST", f"not a trade: {error}") from error


def micros(stamp: Timestamp) -> int:
    """Convert a Timestamp to microseconds since 1970; finer digits are cut off."""
    return stamp.seconds * 1_000_000 + stamp.nanos // 1000


def _value(message: Message, declared: _Declared) -> Any:  # noqa: ANN401 a field of any type
    name = declared.name
    field: Any = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        raise Internal("INTERNAL", f"{message.DESCRIPTOR.full_name} has no field {name}")
    if declared.optional and _unset(message, field):
        return None
    value = getattr(message, name)
    if declared.element is not None:
        return tuple(_single(item, field, declared.element) for item in value)
    if isinstance(value, Message):
        return _single(value, field, declared.kind)
    if field.enum_type is not None:
        return _name(field.enum_type, value)
    return dict(value) if declared.mapping else value


def _unset(message: Message, field: FieldDescriptor) -> bool:
    """Return whether an optional field is absent, or has no presence and is zero."""
    if field.has_presence:
        return not message.HasField(field.name)
    return not getattr(message, field.name)


def _single(value: Any, field: FieldDescriptor, hint: Any) -> Any:  # noqa: ANN401 a field of any type
    if isinstance(value, Timestamp):
        return times.from_us(micros(value))
    if hint is records.Gap:
        return gap(value)
    if isinstance(value, Message):
        return record(hint, value)
    return _name(field.enum_type, value) if field.enum_type is not None else value


def _name(enum: EnumDescriptor, number: int) -> str:
    """Return an enumeration's value as its name without prefix; an unknown one as its number."""
    known = enum.values_by_number.get(number)
    if known is None:
        return str(number)
    prefix = enum.values_by_number[0].name.removesuffix(_ABSENT)
    return known.name.removeprefix(prefix)
