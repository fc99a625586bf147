"""Keeps recent rows in columns that only grow, so that readers need no lock.

A chunk holds accepted rows of one label from one partition in offset order. Its arrays are
allocated once; the one writer fills rows beyond the published count and then raises the count. A
reader takes (chunk, count) and may use the rows below it without limit of time: they never change,
also after the chunk has left the tail.

Within a chunk offsets ascend, so a cut is a binary search. `TailRows` picks rows from several
chunks, orders them canonically, and gives them the Arrow form of the wire; it copies only the
columns of the request. A column that most rows lack is stored as runs of the rows that have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.market import schema
from k2.market.events import (
    Bytes,
    Int64s,
    Label,
    TradeColumns,
    decimal_array,
    no_optional,
    no_vendor,
    widen,
)
from k2.market.offsets import ChunkRange, TimeRange

Indices = npt.NDArray[np.intp]

_INT64 = np.iinfo(np.int64)
ROW_BYTES = 5 * 8 + 2 * 8 + 1
_RUNS_MAX: Final = 64  # kept apart before they are made one


class SparseColumn:
    """Values of rows by their number; one thread adds, any thread reads.

    Args:
        nothing: makes the values of a number of rows that lack the column.
    """

    def __init__(self, nothing: Callable[[int], pa.Array]) -> None:
        self._nothing = nothing
        self._runs: tuple[tuple[int, pa.Array], ...] = ()
        self.size_bytes = 0

    def add(self, first: int, values: pa.Array) -> None:
        """Add the values of the rows from `first` on, above all added before."""
        if len(self._runs) >= _RUNS_MAX:
            start = self._runs[0][0]
            last, of_last = self._runs[-1]
            self._runs = ((start, self.between(start, last + len(of_last))),)
        self._runs = (*self._runs, (first, values))
        self.size_bytes = sum(values.nbytes for _, values in self._runs)

    def between(self, start: int, stop: int) -> pa.Array | None:
        """Return the values of a range of rows; None when all lack the column."""
        parts, done = [], start
        for first, values in self._runs:
            low, high = max(first, done), min(first + len(values), stop)
            if low < high:
                parts += [self._nothing(low - done), values.slice(low - first, high - low)]
                done = high
        return pa.concat_arrays([*parts, self._nothing(stop - done)]) if parts else None


class Chunk:
    """Rows of one label from one partition; one thread appends, any thread reads.

    Args:
        chunk_id: its id within its tail.
        label: the constant columns.
        epoch, partition: where its rows are on the tape.
        capacity: rows it can hold.
    """

    def __init__(
        self, chunk_id: int, label: Label, epoch: int, partition: int, capacity: int
    ) -> None:
        self.chunk_id = chunk_id
        self.label = label
        self.epoch = epoch
        self.partition = partition
        self.capacity = capacity
        self.offset: Int64s = np.empty(capacity, np.int64)
        self.trade_id: Int64s = np.empty(capacity, np.int64)
        self.event_time: Int64s = np.empty(capacity, np.int64)
        self.receive_time: Int64s = np.empty(capacity, np.int64)
        self.price: Int64s = np.empty(capacity, np.int64)
        self.quantity: Int64s = np.empty((capacity, 2), np.int64)
        self.side: Bytes = np.empty(capacity, np.uint8)
        self.rows = 0
        self.time_min_us = _INT64.max
        self.time_max_us = _INT64.min
        self.receive_max_us = 0
        self.arrived_s = 0.0
        self.vendor_data = SparseColumn(no_vendor)
        self.optional = SparseColumn(no_optional)
        self._sealed: ChunkView | None = None

    @property
    def size_bytes(self) -> int:
        """Memory it takes, filled or not."""
        beside = self.vendor_data.size_bytes + self.optional.size_bytes
        return self.capacity * ROW_BYTES + beside

    @property
    def free(self) -> int:
        """Rows it can still take; a sealed chunk takes none."""
        return 0 if self._sealed else self.capacity - self.rows

    def append(self, columns: TradeColumns, rows: Indices, arrived_s: float) -> None:
        """Add the rows of a batch at `rows`, at most `free` of them and at least one."""
        low, high = self.rows, self.rows + len(rows)
        times, receives = columns.event_time[rows], columns.receive_time[rows]
        self.offset[low:high] = columns.offset[rows]
        self.trade_id[low:high] = columns.trade_id[rows]
        self.event_time[low:high] = times
        self.receive_time[low:high] = receives
        self.price[low:high] = columns.price[rows]
        self.quantity[low:high] = columns.quantity[rows]
        self.side[low:high] = columns.side[rows]
        if columns.vendor_data is not None:
            maps = columns.vendor_data.take(pa.array(rows))
            if len(maps.keys):
                self.vendor_data.add(low, maps)
        if columns.optional is not None:
            self.optional.add(low, columns.optional.take(pa.array(rows)))
        self.time_min_us = min(int(times.min()), self.time_min_us)
        self.time_max_us = max(int(times.max()), self.time_max_us)
        self.receive_max_us = max(int(receives.max()), self.receive_max_us)
        self.arrived_s = arrived_s
        self.rows = high  # readers see the new rows from here on

    def seal(self) -> None:
        """Take no more rows; the view that readers hold is made once."""
        self._sealed = self._sealed or self._hold()

    def hold(self) -> ChunkView:
        """Return a view of the rows published so far."""
        return self._sealed or self._hold()

    def _hold(self) -> ChunkView:
        rows = self.rows  # read before the bounds: they may only be wider than the rows need
        return ChunkView(
            self,
            ChunkRange(
                self.chunk_id,
                self.label.instrument,
                self.partition,
                int(self.offset[0]),
                int(self.offset[rows - 1]),
                self.time_min_us,
                self.time_max_us,
                rows,
            ),
        )


@dataclass(frozen=True)
class ChunkView:
    """The rows of a chunk that were published when the view was made.

    Attributes:
        chunk: where they are.
        range: what a plan may know of them; time bounds may be wider than the rows need.
    """

    chunk: Chunk
    range: ChunkRange

    def below(self, end: int) -> ChunkView | None:
        """Return the rows below an offset; None when there are none."""
        of = self.range
        if of.offset_high < end:
            return self
        rows = int(np.searchsorted(self.chunk.offset[: of.rows], end))
        if rows == 0:
            return None
        return ChunkView(
            self.chunk,
            ChunkRange(
                of.chunk_id,
                of.instrument,
                of.partition,
                of.offset_low,
                int(self.chunk.offset[rows - 1]),
                of.time_min_us,
                of.time_max_us,
                rows,
            ),
        )

    def time_max_below(self, offset: int) -> int | None:
        """Return the greatest event_time of the rows below an offset; None when there are none."""
        if self.range.offset_low >= offset:
            return None
        rows = int(np.searchsorted(self.chunk.offset[: self.range.rows], offset))
        return int(self.chunk.event_time[:rows].max())

    def cut(self, low: int, end: int) -> ChunkSlice:
        """Return the rows with low <= offset < end."""
        start, stop = np.searchsorted(self.chunk.offset[: self.range.rows], (low, end))
        return ChunkSlice(self.chunk, int(start), int(stop), self.range)


@dataclass(frozen=True)
class ChunkSlice:
    """Consecutive rows of a chunk; `range` bounds them."""

    chunk: Chunk
    start: int
    stop: int
    range: ChunkRange


class TailRows:
    """The rows of chunk slices whose event_time lies in a range."""

    def __init__(self, pieces: Iterable[ChunkSlice], within: TimeRange) -> None:
        picked = [
            (piece, rows)
            for piece in pieces
            if piece.start < piece.stop
            and within.overlaps(piece.range.time_min_us, piece.range.time_max_us)
            and len(rows := _rows_within(piece, within))
        ]
        self._pieces = [piece for piece, _ in picked]
        self._rows = [rows for _, rows in picked]
        self._lengths = np.array([len(rows) for rows in self._rows], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._lengths.sum())

    def canonical(self, *, descending: bool, limit: int | None) -> Indices:
        """Return the indices of the rows in canonical order, at most `limit` of them."""
        if not self._pieces:
            return np.empty(0, dtype=np.intp)
        instruments = [piece.range.instrument for piece in self._pieces]
        rank = {instrument: place for place, instrument in enumerate(sorted(set(instruments)))}
        times, ids = self.column("event_time"), self.column("trade_id")
        if len(rank) == 1 and _ascend(times, ids):
            order = np.arange(len(times))
        else:
            ranks = np.repeat([rank[instrument] for instrument in instruments], self._lengths)
            order = np.lexsort((ids, ranks, times))
        order = order[::-1] if descending else order
        return order[:limit]

    def column(self, name: str) -> npt.NDArray[np.int64]:
        """Return a stored column of all rows, in the order of the slices."""
        if name not in self._columns:
            self._columns[name] = np.concatenate(
                [
                    getattr(piece.chunk, name)[rows]
                    for piece, rows in zip(self._pieces, self._rows, strict=True)
                ]
            )
        return self._columns[name]

    def batch(self, columns: Sequence[str], order: Indices) -> pa.RecordBatch:
        """Make a batch of the rows at `order`, with these columns of the trade schema."""
        trade = schema.arrow_schema(schema.TRADE)
        wanted = pa.schema([trade.field(name) for name in columns])
        if not len(order):
            return pa.RecordBatch.from_pylist([], schema=wanted)
        arrays = [self._array(field, order) for field in wanted]
        return pa.RecordBatch.from_arrays(arrays, schema=wanted)

    @cached_property
    def _columns(self) -> dict[str, npt.NDArray[np.int64]]:
        return {}

    @cached_property
    def _vendor(self) -> pa.MapArray | None:
        return self._sparse([piece.chunk.vendor_data for piece in self._pieces], no_vendor)

    @cached_property
    def _optional(self) -> pa.StructArray | None:
        return self._sparse([piece.chunk.optional for piece in self._pieces], no_optional)

    def _sparse(
        self, of_piece: Sequence[SparseColumn], nothing: Callable[[int], pa.Array]
    ) -> pa.Array | None:
        """Return a sparse column in the order of the slices; None when all rows lack it."""
        parts = [
            (runs.between(int(rows[0]), int(rows[-1]) + 1), rows)
            for runs, rows in zip(of_piece, self._rows, strict=True)
        ]
        if all(values is None for values, _ in parts):
            return None
        return pa.concat_arrays(
            [
                nothing(len(rows)) if values is None else values.take(pa.array(rows - rows[0]))
                for values, rows in parts
            ]
        )

    def _array(self, field: pa.Field, order: Indices) -> pa.Array:
        name = field.name
        if name in schema.LABEL_COLUMNS:
            place = schema.LABEL_COLUMNS.index(name)
            return self._constant(
                [piece.chunk.label[place] for piece in self._pieces], field, order
            )
        if name == "tape_epoch":
            return self._constant([piece.chunk.epoch for piece in self._pieces], field, order)
        if name == "tape_partition":
            return self._constant([piece.chunk.partition for piece in self._pieces], field, order)
        if name == "vendor_data":
            maps = self._vendor
            return no_vendor(len(order)) if maps is None else maps.take(pa.array(order))
        if field.nullable:
            return self._optional_array(field, order)
        if name == "tape_offset":
            return pa.array(self.column("offset")[order])
        values = self.column(name)[order]
        if name == "price":
            return decimal_array(widen(values), field.type)
        if name == "quantity":
            return decimal_array(values, field.type)
        if name == "side":
            return pa.array(schema.SIDES, pa.string()).take(pa.array(values))
        return pa.array(values).view(field.type)

    def _optional_array(self, field: pa.Field, order: Indices) -> pa.Array:
        structs = self._optional
        if structs is None:
            return pa.nulls(len(order), field.type)
        values = structs.flatten()[structs.type.get_field_index(field.name)]
        return values.take(pa.array(order))

    def _constant(
        self, of_piece: list[str] | list[int], field: pa.Field, order: Indices
    ) -> pa.Array:
        """Make a column with one value per slice."""
        codes: dict[str | int, int] = {}
        of = [codes.setdefault(value, len(codes)) for value in of_piece]
        if len(codes) == 1:
            return pa.repeat(pa.scalar(of_piece[0], field.type), len(order))
        picked = np.repeat(np.array(of, dtype=np.int64), self._lengths)[order]
        return pa.array(list(codes), field.type).take(pa.array(picked))


def _rows_within(piece: ChunkSlice, within: TimeRange) -> Indices:
    rows = np.arange(piece.start, piece.stop)
    low, high = within.start_us, within.end_us
    times = piece.chunk.event_time[piece.start : piece.stop]
    if low is not None and piece.range.time_min_us < low:
        keep = times >= low
        rows, times = rows[keep], times[keep]
    if high is not None and piece.range.time_max_us >= high:
        rows = rows[times < high]
    return rows


def _ascend(times: Int64s, ids: Int64s) -> bool:
    """Tell whether rows of one instrument are in canonical order already."""
    step = np.diff(times)
    return bool(((step > 0) | ((step == 0) & (np.diff(ids) > 0))).all())
