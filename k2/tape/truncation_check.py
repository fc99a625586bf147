"""Detects a tape that was truncated and filled again, by a mark of the last record read.

A broker that loses power may lose acknowledged records, and get others at the same offsets at once.
Its topic is the same, and its end may lie above every position again; only the records differ. So
K2 stores a mark of the record just below each stored position, and compares it before it goes on.
(While a reader runs, the client compares leader epochs itself; a stored position has none.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b

from k2 import limits
from k2.errors import Reason, Unavailable
from k2.tape.ports import BatchReader

_MARK_BYTES = 8


def mark_of(value: bytes | None) -> str:
    """Return the mark of a record, by its bytes."""
    return blake2b(value or b"", digest_size=_MARK_BYTES).hexdigest()


def read_marks(
    reader_at: Callable[[Mapping[int, int]], BatchReader], offsets: Mapping[int, int]
) -> dict[int, str]:
    """Read the mark of the record at one offset of each partition named.

    Args:
        reader_at: opens a reader at these offsets.
        offsets: of records that are there.

    Raises:
        Unavailable: TAPE_UNAVAILABLE when they do not come in time.
        Data: one is not there.
    """
    found: dict[int, str] = {}
    if not offsets:
        return found
    reader = reader_at(offsets)
    try:
        for _ in range(limits.TAPE_ATTEMPTS_MAX):
            for batch in reader.read(limits.CONSUME_BATCH_RECORDS, limits.WRITER_READ_TIMEOUT_S):
                found.setdefault(batch.partition, mark_of(batch.values[0]))
                reader.pause([batch.partition])
            if len(found) == len(offsets):
                return found
    finally:
        reader.close()
    raise Unavailable(
        Reason.TAPE_UNAVAILABLE,
        f"the last records of {len(offsets) - len(found)} partitions did not come",
        retry_after_s=limits.RECONNECT_MAX_S,
    )
