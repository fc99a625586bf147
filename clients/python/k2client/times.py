"""Times and durations as people write them, to the integer microseconds of the wire; never a float.

A time is a `datetime` or `date` (without a zone: UTC), an ISO 8601 text (the same) or whole
microseconds since 1970. A duration is a `timedelta` or a text such as `90s`, `15m`, `2h`, `1.5d`.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from k2client.errors import Invalid

Time = datetime | date | str | int
Duration = timedelta | str

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNITS_US = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d|w)")
_TOO_FINE = re.compile(r"[.,]\d{7,}")
_INT64_MAX = 2**63 - 1


def to_us(value: Time) -> int:
    """A time in microseconds since 1970-01-01 UTC.

    Raises:
        Invalid: BAD_REQUEST when it is not a time, or finer than a microsecond.
    """
    if isinstance(value, bool) or not isinstance(value, datetime | date | str | int):
        raise Invalid("BAD_REQUEST", f"{value!r} is not a time")
    if isinstance(value, str):
        value = _parse(value)
    if isinstance(value, int):
        if abs(value) > _INT64_MAX:
            raise Invalid("BAD_REQUEST", f"{value} is beyond the times that K2 knows")
        return value
    if not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if getattr(value, "nanosecond", 0):
        raise Invalid("BAD_REQUEST", f"{value} is finer than the microseconds K2 keeps")
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return (value - _EPOCH) // _MICROSECOND


def _parse(text: str) -> datetime | int:
    text = text.strip()
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if _TOO_FINE.search(text):
        raise Invalid("BAD_REQUEST", f"{text!r} is finer than the microseconds K2 keeps")
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid(
            "BAD_REQUEST",
            f"{text!r} is not a time: write 2026-01-31T09:30:00Z or microseconds since 1970",
        ) from error


def duration_us(value: Duration) -> int:
    """A duration in microseconds.

    Raises:
        Invalid: BAD_REQUEST when it is not a positive duration.
    """
    micros = 0
    if isinstance(value, timedelta):
        micros = value // _MICROSECOND
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        micros = int(Decimal(match[1]) * _UNITS_US[match[2]])
    if not 0 < micros <= _INT64_MAX:
        raise Invalid("BAD_REQUEST", f"{value!r} is not a duration: write 90s, 15m, 2h or 1d")
    return micros


def from_us(micros: int) -> datetime:
    """Microseconds since 1970 as a datetime in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def iso(micros: int) -> str:
    """Microseconds since 1970 as ISO 8601 with microseconds and Z."""
    return from_us(micros).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
