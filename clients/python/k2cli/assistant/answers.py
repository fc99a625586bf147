"""Turns answers of K2 into bounded JSON documents: rows, whether there are more, and the origin."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import k2client
from k2client import arrow_text
from k2client.errors import K2Error
from k2client.json_form import json_value

ROWS_DEFAULT = 100
ROWS_MAX = 1000
_GAPS_MAX = 20  # that an answer lists; `gaps_total` counts all


def row_document(answer: k2client.Trades, limit: int) -> dict[str, Any]:
    """Convert the first rows of an answer, which was asked for one row more than `limit`."""
    rows = answer.to_arrow()
    origin = json_value(answer.provenance)
    origin["gaps"] = origin["gaps"][:_GAPS_MAX]
    shown = [
        row for batch in rows.slice(0, limit).to_batches() for row in arrow_text.json_objects(batch)
    ]
    return _bounded("rows", shown, rows.num_rows, limit) | {"provenance": origin}


def record_document(
    name: str, listed: Sequence[object], limit: int, k2: k2client.Client
) -> dict[str, Any]:
    """Convert the first records of a list, which was asked for one more than `limit`."""
    records = [json_value(record) for record in listed[:limit]]
    return _bounded(name, records, len(listed), limit) | {"provenance": platform_origin(k2)}


def platform_origin(k2: k2client.Client) -> dict[str, Any]:
    """Describe the platform that an answer without rows comes from, and when."""
    status = k2.status()
    return {
        "address": k2.address,
        "source": status.source,
        "state": status.state,
        "level": status.level,
        "time": json_value(status.time),
    }


def error_document(error: K2Error) -> dict[str, Any]:
    """Convert an error: a program compares `reason`, and `message` says what to do."""
    return {
        "reason": error.reason,
        "message": error.message,
        "retry_after_s": error.retry_after_s,
        "metadata": error.metadata,
    }


def compact(document: dict[str, Any]) -> str:
    """Format a document on one line; what JSON lacks, such as a date, is text."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), default=str)


def _bounded(name: str, shown: list[Any], found: int, limit: int) -> dict[str, Any]:
    cut = found > limit
    note = (
        f"there are more: only the first {limit} are here. Narrow the range, reverse the order, or"
        f" raise limit (at most {ROWS_MAX})"
    )
    return {name: shown, "count": len(shown), "cut": cut} | ({"note": note} if cut else {})
