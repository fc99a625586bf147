"""Columns of trades, read step by step from every message of a batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2 import limits
from k2.market import schema
from k2.market.events import Bools, Bytes, Fault, Int32s, Int64s
from k2.market.schema import Kind
from k2.tape.avro.cursors import (
    ALL,
    NONE,
    Cursors,
    Joined,
    big_endian,
    for_each_item,
    hash_words,
    masked_words,
    some,
)
from k2.tape.avro.optional_columns import read_optional
from k2.tape.avro.resolution import LABELS, NO_SIDE, ReadStep
from k2.tape.avro.tag_table import BAD, LabelTable, label_of

_PRICE_END = 10**limits.PRICE_DIGITS
_QUANTITY_END = 10**limits.QUANTITY_DIGITS
_WORD_MASK = (1 << 64) - 1
_INT_MAX = (1 << 31) - 1
_HASHED_KEY_BYTES = 64


@dataclass
class Entries:
    """Entries of the vendor_data of some messages, as spans of the joined batch.

    Attributes:
        row: message of each entry, ascending; entries of a message are in its order. int64[m]
        key_start, key_length, value_start, value_length: int64[m]
    """

    row: Int64s
    key_start: Int64s
    key_length: Int64s
    value_start: Int64s
    value_length: Int64s

    def where(self, chosen: Bools) -> Entries:
        """Select some of the entries."""
        return Entries(
            self.row[chosen],
            self.key_start[chosen],
            self.key_length[chosen],
            self.value_start[chosen],
            self.value_length[chosen],
        )


_NOTHING = np.empty(0, dtype=np.int64)
NO_ENTRIES = Entries(_NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING)


@dataclass
class Cells:
    """The values read of n messages; meaningless where there is a fault.

    Attributes:
        label: codes of a `LabelTable`. int32[n]
        longs: trade_id, event_time, receive_time. int64[n] each
        price: int64[n]
        quantity: (low, high) words. int64[n, 2]
        side: uint8[n]
        entries: vendor_data.
        fault: uint8[n]
        optional: of the optional columns those that the writer of the messages knows.
    """

    label: Int32s
    longs: dict[str, Int64s]
    price: Int64s
    quantity: Int64s
    side: Bytes
    entries: Entries
    fault: Bytes
    optional: dict[str, pa.Array]


def read_cells(steps: Sequence[ReadStep], cursors: Cursors, labels: LabelTable) -> Cells:
    """Read one trade from each message.

    Args:
        steps: of the schema that wrote them (`resolution.resolve`).
        cursors: standing after the messages' headers.
        labels: gives the codes; new labels join it.
    """
    reading = _ColumnReader(cursors, labels)
    for step in steps:
        reading.take(step)
    cursors.finish()
    return reading.cells()


class _ColumnReader:
    """The columns read so far."""

    def __init__(self, cursors: Cursors, labels: LabelTable) -> None:
        self._cursors = cursors
        self._labels = labels
        self._texts: dict[str, tuple[Int64s, Int64s]] = {}
        self._longs: dict[str, Int64s] = {}
        self._words: dict[str, Int64s] = {}
        self._label: Int32s | None = None
        self._side: Bytes = np.zeros(0, dtype=np.uint8)
        self._entries = NO_ENTRIES
        self._optional: dict[str, pa.Array] = {}

    def take(self, step: ReadStep) -> None:
        """Read what a step names."""
        if step.column == LABELS:
            self._label = _read_labels(self._cursors, self._labels)
        elif step.skip is not None:
            step.skip(self._cursors, ALL)
        elif step.optional:
            self._optional[step.column] = read_optional(self._cursors, step)
        elif step.kind is Kind.STRING:
            self._texts[step.column] = self._cursors.spans()
        elif step.kind in (Kind.LONG, Kind.TIME):
            self._longs[step.column] = _read_long(self._cursors, step.narrow)
        elif step.kind is Kind.SIDE and step.sides is not None:
            self._side = _read_side(self._cursors, step.sides)
        elif step.kind is Kind.MAP:
            self._entries = _read_entries(self._cursors)
        else:
            end = _PRICE_END if step.kind is Kind.PRICE else _QUANTITY_END
            self._words[step.column] = _read_decimal(self._cursors, end)

    def cells(self) -> Cells:
        """Everything read."""
        label = self._label
        if label is None:
            label = _join_labels(self._cursors, self._texts, self._labels)
        return Cells(
            label,
            self._longs,
            np.ascontiguousarray(self._words["price"][:, 0]),
            self._words["quantity"],
            self._side,
            self._entries,
            self._cursors.fault,
            self._optional,
        )


# --- labels -------------------------------------------------------------------------------------


def _read_labels(cursors: Cursors, labels: LabelTable) -> Int32s:
    """Codes of labels whose six texts lead the record: one span of bytes each."""
    start = cursors.position.copy()
    for _ in schema.LABEL_COLUMNS:
        cursors.spans()
    length = cursors.position - start
    large = length > limits.LABEL_BYTES_MAX
    if some(large):
        cursors.mark(ALL, large, Fault.OVERSIZE)
    sound = cursors.fault == NONE
    if some(sound) == len(sound):
        codes = labels.codes(cursors.joined, start, length)
    else:
        codes = np.full(len(cursors), BAD, dtype=np.int32)
        codes[sound] = labels.codes(cursors.joined, start[sound], length[sound])
    bad = sound & (codes == BAD)
    if some(bad):
        cursors.mark(ALL, bad, Fault.BAD_VALUE)
    return codes


def _join_labels(
    cursors: Cursors, texts: dict[str, tuple[Int64s, Int64s]], labels: LabelTable
) -> Int32s:
    """Codes of labels whose texts are apart: another writer's order, one record at a time."""
    codes = np.full(len(cursors), BAD, dtype=np.int32)
    for row in cursors.sound().tolist():
        parts = [
            cursors.joined.bytes_at(int(texts[name][0][row]), int(texts[name][1][row]))
            for name in schema.LABEL_COLUMNS
        ]
        if sum(map(len, parts)) <= limits.LABEL_BYTES_MAX:
            span = b"".join(len(part).to_bytes(2, "big") + part for part in parts)
            codes[row] = labels.code(span, lambda parts=parts: label_of(parts))  # type: ignore[misc]
        else:
            cursors.fault[row] = Fault.OVERSIZE
    cursors.mark(ALL, (cursors.fault == NONE) & (codes == BAD), Fault.BAD_VALUE)
    return codes


# --- numbers ------------------------------------------------------------------------------------


def _read_long(cursors: Cursors, narrow: bool) -> Int64s:
    value = cursors.longs()
    if narrow:
        cursors.mark(ALL, (value > _INT_MAX) | (value < -_INT_MAX - 1), Fault.BAD_VALUE)
    return value


def _read_side(cursors: Cursors, sides: Bytes) -> Bytes:
    index = cursors.small()
    outside = (index < 0) | (index >= len(sides))
    side = sides[np.where(outside, 0, index)]
    bad = outside | (side == NO_SIDE)
    if some(bad):
        cursors.mark(ALL, bad, Fault.BAD_VALUE)
    return side


def _read_decimal(cursors: Cursors, end: int) -> Int64s:
    """Words (low, high) of decimals; OUT_OF_RANGE unless -end < mantissa < end."""
    start, length = cursors.spans()
    words = np.empty((len(cursors), 2), dtype=np.int64)
    words[:, 0] = big_endian(cursors.joined, start + length, length)
    words[:, 1] = words[:, 0] >> 63
    long = np.flatnonzero(length > 8)
    if len(long):
        after = start[long] + length[long]
        low = cursors.joined.words[after - 8].byteswap()
        words[long, 0] = low.view(np.int64)
        words[long, 1] = big_endian(cursors.joined, after - 8, length[long] - 8)
        for row in np.flatnonzero(length > 16).tolist():
            words[row] = _wide(cursors.joined, int(start[row]), int(length[row]), end)
    outside = _outside(words, end)
    if some(outside):
        cursors.mark(ALL, outside, Fault.OUT_OF_RANGE)
    return words


def _wide(joined: Joined, start: int, length: int, end: int) -> tuple[int, int]:
    """Read a number of more than 16 bytes: mostly out of range, but it may be padded."""
    value = int.from_bytes(joined.bytes_at(start, length), "big", signed=True)
    return _split(value if -end < value < end else end)


def _split(value: int) -> tuple[int, int]:
    low = value & _WORD_MASK
    return low - (1 << 64) if low >> 63 else low, value >> 64


def _outside(words: Int64s, end: int) -> Bools:
    low, high = words[:, 0].view(np.uint64), words[:, 1]
    above = np.uint64(end & _WORD_MASK), end >> 64
    below = np.uint64(-end & _WORD_MASK), -end >> 64
    too_high = (high > above[1]) | ((high == above[1]) & (low >= above[0]))
    too_low = (high < below[1]) | ((high == below[1]) & (low <= below[0]))
    outside: Bools = too_high | too_low
    return outside


# --- vendor_data --------------------------------------------------------------------------------


@dataclass
class _Rounds:
    """Entries as they are read, a round at a time."""

    rows: list[npt.NDArray[np.intp]] = field(default_factory=list)
    keys: list[tuple[Int64s, Int64s]] = field(default_factory=list)
    values: list[tuple[Int64s, Int64s]] = field(default_factory=list)


def _read_entries(cursors: Cursors) -> Entries:
    rounds = _Rounds()

    def entry(rows: npt.NDArray[np.intp]) -> None:
        rounds.rows.append(rows)
        rounds.keys.append(cursors.spans(rows))
        rounds.values.append(cursors.spans(rows))

    for_each_item(cursors, ALL, limits.VENDOR_ENTRIES_MAX, entry)
    if not rounds.rows:
        return NO_ENTRIES
    row = np.concatenate(rounds.rows)
    order = np.argsort(row, kind="stable")
    columns = [
        np.concatenate([pair[part] for pair in pairs])[order]
        for pairs in (rounds.keys, rounds.values)
        for part in (0, 1)
    ]
    entries = Entries(row[order].astype(np.int64), *columns)
    return _refuse_doubles(cursors, entries.where(cursors.fault[entries.row] == NONE))


def _refuse_doubles(cursors: Cursors, entries: Entries) -> Entries:
    """Mark the messages that name a key twice: a map that engines would refuse to read."""
    row = entries.row
    if len(row) < 2 or not some(row[1:] == row[:-1]):
        return entries
    words = masked_words(cursors.joined, entries.key_start, entries.key_length, _HASHED_KEY_BYTES)
    hashed = hash_words(entries.key_length, words) ^ hash_words(row, [])
    hashed.sort()
    if not some(hashed[1:] == hashed[:-1]):
        return entries
    seen: set[tuple[int, bytes]] = set()
    doubled = np.zeros(len(cursors), dtype=np.bool_)
    for index, start, length in zip(
        row.tolist(), entries.key_start.tolist(), entries.key_length.tolist(), strict=True
    ):
        key = (index, cursors.joined.bytes_at(start, length))
        doubled[index] |= key in seen
        seen.add(key)
    cursors.mark(ALL, doubled, Fault.BAD_VALUE)
    return entries.where(cursors.fault[row] == NONE)
