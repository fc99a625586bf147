"""Spans of a joined batch as Arrow texts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.market.events import Bytes, Int64s
from k2.tape.avro.cursors import Joined, some


def gather(joined: Joined, start: Int64s, length: Int64s) -> tuple[Bytes, Int64s]:
    """The bytes of spans, end to end, and their bounds. uint8[total], int64[m + 1]."""
    bounds = np.zeros(len(start) + 1, dtype=np.int64)
    np.cumsum(length, out=bounds[1:])
    at = np.repeat(start - bounds[:-1], length) + np.arange(bounds[-1])
    return joined.buffer[at], bounds


def not_text(data: Bytes, bounds: Int64s) -> npt.NDArray[np.intp]:
    """Which of the spans that `gather` gave are not UTF-8."""
    high = data >= 0x80
    if not some(high):
        return np.empty(0, dtype=np.intp)
    before = np.concatenate(([0], np.cumsum(high)))
    suspects = np.flatnonzero(before[bounds[1:]] > before[bounds[:-1]])
    bad = [
        each for each in suspects.tolist() if not _is_text(data[bounds[each] : bounds[each + 1]])
    ]
    return np.array(bad, dtype=np.intp)


def _is_text(data: Bytes) -> bool:
    try:
        data.tobytes().decode()
    except UnicodeDecodeError:
        return False
    return True


def text_array(data: Bytes, bounds: Int64s) -> pa.StringArray:
    """Spans that `gather` gave, as Arrow strings."""
    return pa.StringArray.from_buffers(
        len(bounds) - 1, pa.py_buffer(bounds.astype(np.int32)), pa.py_buffer(data)
    )
