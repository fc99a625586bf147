"""Reading positions in a joined batch: one per message, moved together, field by field.

A batch of messages is one buffer; each message has a position and an end in it. One call reads the
next Avro value of *every* message with a few array operations. Eight bytes at any position are one
unaligned 64-bit word, so a varint of up to eight bytes (56 bits, every id and time that exists) is
one gather and some masking.

A message whose next value does not fit is marked with a `Fault`, its first one, and its position
goes to its end: it stays in step, reads bytes of no meaning, and its values are not used. The
buffer is padded on both sides so that no read leaves it: positions never pass ends, and ends never
pass the padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.market.events import Bools, Bytes, Fault, Int64s

Words: TypeAlias = npt.NDArray[np.uint64]
Rows: TypeAlias = slice | npt.NDArray[np.intp]

ALL = slice(None)
NONE = int(Fault.NONE)  # a plain number: comparing with an enum costs as much as a small batch
some = np.count_nonzero  # the quickest way to ask whether a mask is empty
PAD = bytes(16)

_STOPS = np.uint64(0x8080808080808080)
_BYTE_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)
# Seven-bit groups of a varint, closed up in pairs, then fours, then eights.
_CLOSE_UP = [
    (np.uint64(0x007F007F007F007F), np.uint64(0x7F007F007F007F00), np.uint64(1)),
    (np.uint64(0x00003FFF00003FFF), np.uint64(0x3FFF00003FFF0000), np.uint64(2)),
    (np.uint64(0x000000000FFFFFFF), np.uint64(0x0FFFFFFF00000000), np.uint64(4)),
]
_U1, _U56, _U63 = np.uint64(1), np.uint64(56), np.uint64(63)


@dataclass(frozen=True)
class Joined:
    """Byte strings laid end to end.

    Attributes:
        buffer: their bytes, with padding before and after.
        words: the little-endian 64-bit word at each position of the buffer.
        start, end: of each byte string in the buffer.
    """

    buffer: Bytes
    words: Words
    start: Int64s
    end: Int64s

    def bytes_at(self, start: int, length: int) -> bytes:
        """Copy some of the bytes."""
        return self.buffer[start : start + length].tobytes()


def join(values: Sequence[bytes]) -> Joined:
    """Lay byte strings end to end."""
    buffer = np.frombuffer(b"".join((PAD, *values, PAD)), dtype=np.uint8)
    bounds = np.empty(len(values) + 1, dtype=np.int64)
    bounds[0] = len(PAD)
    np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=bounds[1:])
    bounds[1:] += len(PAD)
    words: Words = np.ndarray((len(buffer) - 7,), "<u8", buffer, strides=(1,))
    return Joined(buffer, words, bounds[:-1], bounds[1:])


class Cursors:
    """A position in each message, between its start and its end.

    Args:
        joined: the messages.
        position, end: where reading begins and where each message ends. int64[n]

    Attributes:
        fault: the first `Fault` of each message, or NONE. uint8[n]
        passed: values in arrays and maps of each message that were passed over. int64[n]
    """

    def __init__(self, joined: Joined, position: Int64s, end: Int64s) -> None:
        self.joined = joined
        self.position = position.copy()
        self.end = end
        self.fault: Bytes = np.zeros(len(position), dtype=np.uint8)
        self.passed: Int64s = np.zeros(len(position), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.end)

    def sound(self) -> npt.NDArray[np.intp]:
        """Return the messages without a fault."""
        return np.flatnonzero(self.fault == NONE)

    def indices(self, rows: Rows) -> npt.NDArray[np.intp]:
        """`rows` as indices."""
        return np.arange(len(self)) if isinstance(rows, slice) else rows

    def mark(self, rows: Rows, bad: Bools, fault: Fault) -> None:
        """Give the bad ones among `rows` a fault, unless they have one, and end them."""
        marked = np.flatnonzero(bad) if isinstance(rows, slice) else rows[bad]
        fresh = marked[self.fault[marked] == NONE]
        self.fault[fresh] = fault
        self.position[marked] = self.end[marked]

    def longs(self, rows: Rows = ALL) -> Int64s:
        """Read the next int or long of each of `rows`: a zigzag varint of at most ten bytes."""
        position = self.position[rows]
        word = self.joined.words[position]
        stops = ~word & _STOPS
        lowest = stops & (~stops + _U1)
        within = lowest | (lowest - _U1)
        value = word & within
        for low, high, shift in _CLOSE_UP:
            value = (value & low) | ((value & high) >> shift)
        length = np.bitwise_count(within).astype(np.int64) >> 3
        if some(stops) < len(stops):
            self._lengthen(rows, position, value, length, np.flatnonzero(stops == 0))
        self._move(rows, position + length)
        return ((value >> _U1) ^ (~(value & _U1) + _U1)).view(np.int64)

    def _lengthen(
        self,
        rows: Rows,
        position: Int64s,
        value: Words,
        length: Int64s,
        long: npt.NDArray[np.intp],
    ) -> None:
        """Add the ninth and tenth byte to the varints that have them."""
        ninth = self.joined.buffer[position[long] + 8].astype(np.uint64)
        tenth = self.joined.buffer[position[long] + 9].astype(np.uint64)
        more = ninth >= 0x80
        value[long] |= (ninth & np.uint64(0x7F)) << _U56
        value[long] |= np.where(more, tenth & _U1, np.uint64(0)) << _U63
        length[long] = np.where(more, 10, 9)
        overflow = np.zeros(len(position), dtype=np.bool_)
        overflow[long] = more & (tenth > 1)
        # Beyond the end it is truncated, not too large: the bytes are a neighbour's.
        overflow &= position + length <= self.end[rows]
        if some(overflow):
            self.mark(rows, overflow, Fault.BAD_VALUE)
            position[overflow] = self.end[rows][overflow]
            length[overflow] = 0

    def small(self, rows: Rows = ALL) -> Int64s:
        """Like `longs`, quick when every value takes one byte: lengths, counts, enums."""
        position = self.position[rows]
        byte = self.joined.buffer[position]
        if some(byte >= 0x80):
            return self.longs(rows)
        self._move(rows, position + 1)
        value = byte.astype(np.int64)
        return (value >> 1) ^ -(value & 1)

    def spans(self, rows: Rows = ALL) -> tuple[Int64s, Int64s]:
        """Start and length of the next string or bytes of each of `rows`."""
        length = self.small(rows)
        start = self.position[rows].copy()
        negative = length < 0
        if some(negative):
            self.mark(rows, negative, Fault.BAD_VALUE)
        short = length > self.end[rows] - start
        if some(short):
            self.mark(rows, short, Fault.TRUNCATED)
        unusable = negative | short
        if some(unusable):
            length[unusable] = 0
            start[unusable] = self.end[rows][unusable]
        self.position[rows] = start + length
        return start, length

    def skip(self, size: int, rows: Rows = ALL) -> None:
        """Pass over so many bytes."""
        self._move(rows, self.position[rows] + size)

    def finish(self) -> None:
        """Mark every message that has bytes left."""
        left = self.position < self.end
        if some(left):
            self.mark(ALL, left, Fault.TRAILING)

    def _move(self, rows: Rows, position: Int64s) -> None:
        beyond = position > self.end[rows]
        self.position[rows] = position
        if some(beyond):
            self.mark(rows, beyond, Fault.TRUNCATED)


def for_each_item(
    cursors: Cursors,
    rows: Rows,
    items_max: int,
    item: Callable[[npt.NDArray[np.intp]], object],
) -> None:
    """Read arrays or maps: blocks of items, each with its count, until a count of zero.

    Args:
        cursors: the messages.
        rows: those whose next value is an array or a map.
        items_max: a message with more items than that is marked OVERSIZE.
        item: reads one item of each of the messages it is given; called once a round.
    """
    total = np.zeros(len(cursors), dtype=np.int64)
    active = cursors.indices(rows)
    active = active[cursors.fault[active] == NONE]
    while len(active):
        left, ends = _next_block(cursors, active)
        many = (left < 0) | (left > items_max) | (total[active] + left > items_max)
        if some(many):
            cursors.mark(active, many, Fault.OVERSIZE)
        going = (left > 0) & (cursors.fault[active] == NONE)
        active, left, ends = active[going], left[going], ends[going]
        total[active] += left
        busy = active
        while len(busy):
            item(busy)
            left = left - 1
            going = (left > 0) & (cursors.fault[busy] == NONE)
            busy, left = busy[going], left[going]
        wrong = (ends >= 0) & (cursors.position[active] != ends)
        if some(wrong):
            cursors.mark(active, wrong, Fault.BAD_VALUE)
        active = active[cursors.fault[active] == NONE]


def _next_block(cursors: Cursors, rows: npt.NDArray[np.intp]) -> tuple[Int64s, Int64s]:
    """Count of the next block of each, and where it ends if it says so, else -1."""
    count = cursors.small(rows)
    ends = np.full(len(rows), -1, dtype=np.int64)
    sized = np.flatnonzero(count < 0)
    if len(sized):
        size = cursors.longs(rows[sized])
        position = cursors.position[rows[sized]]
        wrong = (size < 0) | (size > cursors.end[rows[sized]] - position)
        cursors.mark(rows[sized], wrong, Fault.TRUNCATED)
        ends[sized] = position + np.where(wrong, 0, size)
        count[sized] = -count[sized]
    return count, ends


def masked_words(joined: Joined, start: Int64s, length: Int64s, size_max: int) -> list[Words]:
    """Read the first `size_max` bytes of spans as 64-bit words, zero after each span's end.

    Args:
        joined: where the spans are.
        start: of each span. int64[n]
        length: of each span. int64[n]
        size_max: bytes of a span to take.

    Returns:
        As many arrays as the longest span needs, each uint64[n].
    """
    longest = min(int(length.max()), size_max) if len(length) else 0
    last = len(joined.words) - 1
    words = []
    for skipped in range(0, longest, 8):
        at = np.minimum(start + skipped, last) if skipped else start
        left = np.minimum(np.maximum(length - skipped, 0), 8)
        words.append(joined.words[at] & _BYTE_MASKS[left])
    return words


def hash_words(length: Int64s, words: Sequence[Words]) -> Words:
    """Hash spans by their length and words, to 64 bits; equal spans have equal hashes."""
    hashed: Words = length.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for word in words:
        hashed = (hashed ^ word) * np.uint64(0xFF51AFD7ED558CCD)
        hashed ^= hashed >> np.uint64(29)
    return hashed


def big_endian(joined: Joined, end: Int64s, length: Int64s) -> Int64s:
    """Read the last (at most eight) bytes before `end` as signed big-endian numbers.

    Args:
        joined: where they are.
        end: the position after each number.
        length: bytes of each, from 0 (the number 0) to 8; longer ones count as 8.
    """
    size = np.minimum(length, 8)
    word = joined.words[end - 8].byteswap().view(np.int64)
    unused = 64 - 8 * np.maximum(size, 1)
    signed: Any = (word << unused) >> unused
    return np.where(size > 0, signed, 0)


def gather(joined: Joined, start: Int64s, length: Int64s) -> tuple[Bytes, Int64s]:
    """Copy the bytes of spans, end to end, and their bounds. uint8[total], int64[m + 1]."""
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
