"""Converts the values that several services share: times, ranges, positions, levels, sources.

Protobuf goes no further than `servers`. What comes in is checked for its form here (a timestamp
outside the calendar, a duration that is none); `k2.query.request` checks what it means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf import duration_pb2, timestamp_pb2

from k2.degrade.level import Level
from k2.errors import Invalid, Reason
from k2.market.events import TIME_MAX_US
from k2.market.offsets import OffsetVector, TimeRange
from k2.v1 import market_pb2
from k2.v1.degradation_service_pb2 import DegradationLevel

_SECONDS_MIN = -62_135_596_800  # 0001-01-01
_SECONDS_END = 253_402_300_800  # 10000-01-01


def bad_field(field: str, message: str) -> Invalid:
    """Make the BAD_REQUEST error that names a field."""
    return Invalid(Reason.BAD_REQUEST, message, metadata={"field": field})


def time_us_from(message: timestamp_pb2.Timestamp, field: str) -> int:
    """Convert a timestamp to microseconds since 1970; finer digits are cut off.

    Raises:
        Invalid: BAD_REQUEST when it is outside the years 1 to 9999.
    """
    if not (_SECONDS_MIN <= message.seconds < _SECONDS_END and 0 <= message.nanos < 10**9):
        raise bad_field(field, f"{field} is not a time between the years 1 and 9999")
    return message.seconds * 1_000_000 + message.nanos // 1000


def is_nameable(time_us: int) -> bool:
    """Tell whether a protobuf timestamp can carry a time: years 1 to 9999."""
    return _SECONDS_MIN <= time_us // 1_000_000 < _SECONDS_END


def time_to(time_us: int) -> timestamp_pb2.Timestamp:
    """Convert microseconds since 1970 to a timestamp, at most the last that protobuf can name."""
    seconds, micros = divmod(min(time_us, TIME_MAX_US), 1_000_000)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=micros * 1000)


def time_or_unset(time_us: int | None) -> timestamp_pb2.Timestamp | None:
    """Convert a time like `time_to`; None stays None, which leaves a field unset."""
    return None if time_us is None else time_to(time_us)


def duration_us_from(message: duration_pb2.Duration, field: str) -> int:
    """Convert a duration to microseconds.

    Raises:
        Invalid: BAD_REQUEST when it is longer than 10,000 years or its parts are out of range.
    """
    if abs(message.seconds) > 315_576_000_000 or abs(message.nanos) >= 10**9:
        raise bad_field(field, f"{field} is not a duration")
    return message.seconds * 1_000_000 + message.nanos // 1000


def range_from(message: market_pb2.TimeRange) -> TimeRange:
    """Convert a range of times; an end that is not set is open."""
    start = message.start_time if message.HasField("start_time") else None
    end = message.end_time if message.HasField("end_time") else None
    return TimeRange(
        time_us_from(start, "range.start_time") if start is not None else None,
        time_us_from(end, "range.end_time") if end is not None else None,
    )


def range_to(times: TimeRange) -> market_pb2.TimeRange:
    """Convert a range of times; an open end stays unset."""
    return market_pb2.TimeRange(
        start_time=time_or_unset(times.start_us), end_time=time_or_unset(times.end_us)
    )


def vector_from(message: market_pb2.OffsetVector) -> OffsetVector:
    """Convert positions on the tape."""
    return OffsetVector(message.epoch, tuple(message.offsets))


def vector_to(vector: OffsetVector) -> market_pb2.OffsetVector:
    """Convert positions on the tape."""
    return market_pb2.OffsetVector(epoch=vector.epoch, offsets=vector.offsets)


def level_to(level: Level) -> DegradationLevel.ValueType:
    """Convert a level; the wire keeps 0 for "not known"."""
    return DegradationLevel.Value(f"DEGRADATION_LEVEL_{level.name}")


def level_from(value: DegradationLevel.ValueType, field: str) -> Level:
    """Convert a level from the wire.

    Raises:
        Invalid: BAD_REQUEST when it is not set or not known.
    """
    if value in DegradationLevel.values() and value:
        return Level[DegradationLevel.Name(value).removeprefix("DEGRADATION_LEVEL_")]
    raise bad_field(field, f"{field} is one of {', '.join(level.name for level in Level)}")


def source_to(source: str) -> market_pb2.DataSource.ValueType:
    """Convert a source by its name in settings and stamp; any other name becomes unspecified."""
    name = f"DATA_SOURCE_{source.upper()}"
    known = name in market_pb2.DataSource.keys()  # noqa: SIM118 the enum is no mapping
    return market_pb2.DataSource.Value(name if known else "DATA_SOURCE_UNSPECIFIED")


def flat_counters(counters: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten counters to dotted names; numbers become decimal text."""
    flat: dict[str, str] = {}
    for name, value in counters.items():
        if isinstance(value, Mapping):
            flat |= flat_counters(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return flat
