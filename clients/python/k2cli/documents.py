"""Records as JSON documents for programs: ids are strings, times ISO 8601 (microseconds, Z)."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def document(value: object) -> Any:  # noqa: ANN401 JSON
    """A record, or anything made of records, as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _field(field.name, getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, Mapping):
        return {str(key): _field(str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [document(each) for each in value]
    return value


def text(value: object) -> str:
    """One JSON document, laid out for reading."""
    return json.dumps(document(value), indent=2, ensure_ascii=_is_escaped())


def line(value: object) -> str:
    """One JSON document on one line, for whoever reads a running command line by line."""
    return json.dumps(document(value), ensure_ascii=_is_escaped())


def _is_escaped() -> bool:
    """Whether stdout lacks characters, or would write them in no encoding of JSON."""
    return not (sys.stdout.encoding or "utf-8").lower().startswith("utf")


def _field(name: str, value: object) -> Any:  # noqa: ANN401 JSON
    # 64-bit ids lose digits as JSON numbers.
    if name.endswith("_id") and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return document(value)
