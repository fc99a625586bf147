"""Finds the traces of batches that were published, in the headers of records.

Reading a header costs as much as reading the record, so of a large read only some records are
looked at, at an even distance: a batch that is traced left its header at each of its records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from confluent_kafka import Message

from k2 import limits, tracing

Traces: TypeAlias = tuple[tuple[int, str], ...]  # offset of a record, and its traceparent


def traces_of(
    messages: Sequence[Message], looked_at_max: int = limits.TRACE_LOOKED_AT_MAX
) -> dict[int, Traces]:
    """Find the traceparents of records, by partition; each with the first offset it was seen at."""
    distance = max(1, -(-len(messages) // looked_at_max))
    found: dict[int, dict[str, int]] = {}
    for message in messages[::distance]:
        headers = message.headers()
        for name, value in headers if isinstance(headers, list) else ():
            if name == tracing.HEADER and isinstance(value, bytes):
                traceparent = value.decode("ascii", "replace")
                seen = found.setdefault(message.partition() or 0, {})
                seen.setdefault(traceparent, message.offset() or 0)
    return {
        partition: tuple((offset, traceparent) for traceparent, offset in seen.items())
        for partition, seen in found.items()
    }
