"""Converts records to JSON values: ids are strings, times ISO 8601 in UTC."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

_PLAIN: Final = (str, int, float, type(None))  # most values: looked for first


def json_value(value: object) -> Any:  # noqa: ANN401 JSON
    """Convert a record, or anything made of records, to JSON values."""
    if isinstance(value, _PLAIN):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _field(field.name, getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, Mapping):
        return {str(key): _field(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return value


def _field(name: str, value: object) -> Any:  # noqa: ANN401 JSON
    # 64-bit ids lose digits as JSON numbers.
    if name.endswith("_id") and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return json_value(value)
