"""Parses times and durations to the integer microseconds of the wire, without floats.

A time is a `datetime` or `date` (without a zone: UTC), an ISO 8601 text (the same; eight digits are
a date) or whole microseconds since 1970. A bare number outside 2009 to tomorrow is refused, since
it is more likely seconds, milliseconds or nanoseconds than a time of trades. A duration is a
`timedelta` or a text such as `90s`, `15m`, `1h30m`, `1.5d`. The types of numpy, pandas, polars and
pyarrow are accepted too; they are recognized by their attributes, so none of them is imported.
"""

from __future__ import annotations

import operator
import re
import time as clock
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from k2client.errors import Invalid

Time = datetime | date | str | int
Duration = timedelta | str

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY_US = 86_400_000_000
_NUMBER_US_MIN = 1_230_768_000_000_000  # 2009-01-01
_UNITS_US = {
    "ns": Decimal("0.001"),
    "us": Decimal(1),
    "µs": Decimal(1),
    "ms": Decimal(1_000),
    "s": Decimal(1_000_000),
    "m": Decimal(60_000_000),
    "h": Decimal(3_600_000_000),
    "d": Decimal(_DAY_US),
    "w": Decimal(7 * _DAY_US),
}
_FINE_UNITS = {"ns": 10**3, "ps": 10**6, "fs": 10**9, "as": 10**12}  # numpy's, in a microsecond
_PART = r"(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s|m|h|d|w)"
_DURATION = re.compile(rf"\s*(?:{_PART}\s*)+", re.ASCII)
_TOO_FINE = re.compile(r"[.,]\d{6}\d*[1-9]")
_DATE_DIGITS = 8
_INT64_MAX = 2**63 - 1


def to_us(value: Time, now_ns: Callable[[], int] = clock.time_ns) -> int:
    """Convert a time to microseconds since 1970-01-01 UTC.

    Args:
        value: a time in any form of this module.
        now_ns: nanoseconds since 1970, the upper bound of bare numbers.

    Raises:
        Invalid: BAD_REQUEST when it is not a time, or finer than a microsecond.
    """
    plain = _plain(value, "M")
    if isinstance(plain, str):
        plain = _parse(plain.strip())
    if (number := whole(plain)) is not None:
        return _checked(number, now_ns)
    if not isinstance(plain, date):
        raise Invalid("BAD_REQUEST", f"{value!r} is not a time")
    if not isinstance(plain, datetime):
        plain = datetime.combine(plain, time())
    if plain.tzinfo is None:
        plain = plain.replace(tzinfo=UTC)
    return (plain - _EPOCH) // _MICROSECOND


def whole(value: object) -> int | None:
    """Return a whole number, also numpy's, as an int; None for anything else."""
    kind = getattr(getattr(value, "dtype", None), "kind", "i")
    if isinstance(value, bool) or kind not in "iu":
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # the call decides
    except TypeError:
        return None


def plain_of(value: Any) -> Any:  # noqa: ANN401 anything
    """Return the Python object of an Arrow scalar; any other value as it is."""
    if not hasattr(value, "as_py"):
        return value
    try:
        return value.as_py()
    except ValueError as error:
        raise _too_fine(value) from error


def _plain(value: Any, kind: str) -> Any:  # noqa: ANN401 anything
    """Convert a time or duration to Python's type; return anything else as it is, or None.

    Args:
        value: a value in any form.
        kind: numpy's letter for times (M) or durations (m).
    """
    value = plain_of(value)
    if getattr(getattr(value, "dtype", None), "kind", "") == kind:
        value = _of_numpy(value)
    if isinstance(value, datetime) and value != value:  # noqa: PLR0124 pandas' NaT is not itself
        return None
    if getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0):
        raise _too_fine(value)
    for name in ("to_pydatetime", "to_pytimedelta"):
        if hasattr(value, name):
            return getattr(value, name)()
    return value


def _of_numpy(value: Any) -> Any:  # noqa: ANN401 anything
    """Convert numpy's time or duration, also the only item of an array or of a pandas column."""
    try:
        plain = value.item()
    except (AttributeError, TypeError, ValueError):
        return None
    if not isinstance(plain, int):
        return plain
    unit = re.search(r"\[(\d*)([a-z]+)\]", str(value.dtype))
    if unit is None or unit[2] not in _FINE_UNITS:
        raise Invalid("BAD_REQUEST", f"{value!r} is beyond the times that K2 knows, or has no unit")
    micros, rest = divmod(plain * int(unit[1] or 1), _FINE_UNITS[unit[2]])
    if rest:
        raise _too_fine(value)
    return timedelta(microseconds=micros) if value.dtype.kind == "m" else from_us(micros)


def _checked(number: int, now_ns: Callable[[], int]) -> int:
    """Return a bare number that can be microseconds of a time with trades; refuse any other."""
    latest = now_ns() // 1000 + _DAY_US
    if _NUMBER_US_MIN <= number <= latest:
        return number
    units = {"seconds": "s", "milliseconds": "ms", "nanoseconds": "ns"}
    meant = [
        name for name, unit in units.items() if _NUMBER_US_MIN <= number * _UNITS_US[unit] <= latest
    ]
    raise Invalid(
        "BAD_REQUEST",
        f"{_shown(number)}: a bare number is microseconds since 1970, from 2009 until tomorrow"
        + (f", and this one looks like {meant[0]}" if meant else "")
        + ": write microseconds, or a time such as 2026-01-31T09:30:00Z",
    )


def _shown(number: int) -> str:
    return str(number) if abs(number) <= _INT64_MAX else "so large a number"


def _parse(text: str) -> datetime | int:
    number = re.fullmatch(r"[+-]?\d+", text, re.ASCII)
    if number and len(text) != _DATE_DIGITS and len(text) < len(str(_INT64_MAX)) + 2:
        return int(text)
    if _TOO_FINE.search(text):
        raise _too_fine(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid(
            "BAD_REQUEST",
            f"{text!r} is not a time: write 2026-01-31T09:30:00Z or microseconds since 1970",
        ) from error


def _too_fine(value: object) -> Invalid:
    return Invalid("BAD_REQUEST", f"{value!r} is finer than the microseconds K2 keeps")


def duration_us(value: Duration) -> int:
    """Convert a duration to microseconds.

    Raises:
        Invalid: BAD_REQUEST when it is not a positive duration, or finer than a microsecond.
    """
    plain = _plain(value, "m")
    micros: int | Decimal = 0
    if isinstance(plain, timedelta):
        micros = plain // _MICROSECOND
    elif isinstance(plain, str) and _DURATION.fullmatch(plain):
        parts = re.findall(_PART, plain, re.ASCII)
        micros = sum(Decimal(number) * _UNITS_US[unit] for number, unit in parts)
    if not 0 < micros <= _INT64_MAX:
        raise Invalid("BAD_REQUEST", f"{value!r} is not a duration: write 90s, 15m, 2h or 1d")
    if micros != int(micros):
        raise _too_fine(value)
    return int(micros)


def from_us(micros: int) -> datetime:
    """Convert microseconds since 1970 to a datetime in UTC."""
    return _EPOCH + timedelta(microseconds=micros)
