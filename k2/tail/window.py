"""The window: accepted rows of all partitions that are recent or not in the lake yet.

What is held of one partition, from which offset and up to which, is a value. Writers (the tail's
thread, which appends, and the thread that evicts) replace it under a lock; a reader takes the
reference once and sees rows, bounds and end that belong together.

Eviction raises the `low` of a partition, and with it, per instrument, the greatest event_time of
its rows below `low`: a request for later times needs no row from below.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np

from k2 import limits
from k2.market.events import Label, TradeColumns
from k2.market.fold import FoldState
from k2.market.instrument import Instrument
from k2.market.offsets import OffsetVector
from k2.tail.chunk import Chunk, ChunkView, Indices

CHUNK_ROWS_MIN = 64  # the first chunk of a label; each next one is twice as large


@dataclass(frozen=True)
class PartitionWindow:
    """What the window holds of one partition.

    Attributes:
        low: all accepted rows from this offset on are held.
        end: records below this offset have been judged.
        chunks: of each instrument, oldest first.
        time_max_below: greatest event_time of the instrument's rows below `low`.
        released: nothing is held or read until it is restored.
    """

    low: int
    end: int
    chunks: Mapping[Instrument, tuple[Chunk, ...]] = field(default_factory=dict)
    time_max_below: Mapping[Instrument, int] = field(default_factory=dict)
    released: bool = False


@dataclass(frozen=True)
class TailView:
    """What a reader holds of the window: it does not change while the window does.

    Attributes:
        position: per partition the end of what has been judged.
        low: per partition the offset from which on all rows are held.
        released: partitions of which nothing is held.
        time_max_below: per instrument the greatest event_time of its rows below `low`; an
            instrument it lacks has no row there.
        held: the rows, by chunk id.
        receive_max_us: newest receive_time among them; None when there are none.
    """

    position: OffsetVector
    low: OffsetVector
    released: frozenset[int]
    time_max_below: Mapping[Instrument, int]
    held: Mapping[int, ChunkView]
    receive_max_us: int | None


class Window:
    """Chunks of all partitions of one tape epoch.

    Args:
        positions: where each partition starts.
        states: what the fold remembers of the rows below `positions`.

    Attributes:
        size_bytes: memory of all chunks.
    """

    def __init__(self, positions: OffsetVector, states: Mapping[int, FoldState]) -> None:
        self._epoch = positions.epoch
        self._lock = threading.Lock()
        self._open: dict[tuple[int, Label], Chunk] = {}
        self._chunks_made = 0
        self.size_bytes = 0
        self._partitions = [
            _fresh(offset, states.get(partition))
            for partition, offset in enumerate(positions.offsets)
        ]

    @property
    def rows(self) -> int:
        """Rows held."""
        return sum(chunk.rows for chunk in self._chunks())

    @property
    def position(self) -> OffsetVector:
        """Per partition the end of what has been judged."""
        return OffsetVector(self._epoch, tuple(window.end for window in self._partitions))

    @property
    def released(self) -> frozenset[int]:
        """Partitions of which nothing is held."""
        return frozenset(p for p, window in enumerate(self._partitions) if window.released)

    def append(
        self, partition: int, columns: TradeColumns, rows: Indices, end: int, arrived_s: float
    ) -> None:
        """Add accepted rows of a batch, then publish that the partition is judged up to `end`.

        Args:
            partition: where the batch was read.
            columns: the batch.
            rows: which of its records are rows, ascending.
            end: next offset after the batch.
            arrived_s: when it was read, on a monotonic clock.
        """
        with self._lock:
            window = self._partitions[partition]
            made: list[Chunk] = []
            for label, of_label in _by_label(columns, rows):
                made += self._fill((partition, label), columns, of_label, arrived_s)
            chunks = _with_chunks(window.chunks, made) if made else window.chunks
            self._partitions[partition] = replace(window, chunks=chunks, end=end)

    def view(
        self, instruments: Collection[Instrument] | None, end: OffsetVector | None = None
    ) -> TailView:
        """Hold the rows of some instruments (None: all), below `end` where given."""
        windows = list(self._partitions)
        held: dict[int, ChunkView] = {}
        below: dict[Instrument, int] = {}
        newest: int | None = None
        for partition, window in enumerate(windows):
            for instrument in window.chunks if instruments is None else instruments:
                for chunk in window.chunks.get(instrument, ()):
                    newest = max(newest or 0, chunk.receive_max_us)
                    rows = chunk.hold() if end is None else chunk.hold().below(end[partition])
                    if rows:
                        held[chunk.chunk_id] = rows
            for instrument in window.time_max_below if instruments is None else instruments:
                if instrument in window.time_max_below:
                    below[instrument] = window.time_max_below[instrument]
        return TailView(
            OffsetVector(self._epoch, tuple(window.end for window in windows)),
            OffsetVector(self._epoch, tuple(window.low for window in windows)),
            frozenset(p for p, window in enumerate(windows) if window.released),
            below,
            held,
            newest,
        )

    def instruments(self) -> set[Instrument]:
        """Return every instrument that has a row, held or below."""
        windows = list(self._partitions)
        return set(
            chain.from_iterable((*window.chunks, *window.time_max_below) for window in windows)
        )

    def evict(self, covered: OffsetVector, arrived_before_s: float, bytes_max: int) -> int:
        """Drop rows that the lake holds and that are old, or exceed the bound; oldest first.

        Args:
            covered: the lake holds all accepted rows below these offsets, and every query planned
                from now on knows it.
            arrived_before_s: rows that arrived before this may be dropped.
            bytes_max: beyond it newer rows are dropped too.

        Returns:
            How many chunks were dropped.
        """
        with self._lock:
            going = sorted(
                (
                    chunk
                    for chunk in self._chunks()
                    if int(chunk.offset[chunk.rows - 1]) < covered[chunk.partition]
                ),
                key=lambda chunk: chunk.arrived_s,
            )
            lows: dict[int, int] = {}
            excess = self.size_bytes - bytes_max
            for chunk in going:
                backfilled = chunk.label.source == "backfill"
                if not backfilled and chunk.arrived_s >= arrived_before_s and excess <= 0:
                    continue
                excess -= chunk.size_bytes
                last = int(chunk.offset[chunk.rows - 1])
                lows[chunk.partition] = max(lows.get(chunk.partition, 0), last + 1)
            return sum(self._raise_low(partition, low) for partition, low in lows.items())

    def release(self, partition: int) -> None:
        """Drop all rows of a partition; it holds nothing until it is restored."""
        with self._lock:
            window = self._partitions[partition]
            self._forget(chain.from_iterable(window.chunks.values()))
            self._partitions[partition] = PartitionWindow(window.end, window.end, released=True)

    def restore(self, partition: int, position: int, state: FoldState) -> None:
        """Hold a released partition again, from `position` on."""
        with self._lock:
            self._partitions[partition] = _fresh(position, state)

    def bytes_by_partition(self) -> list[int]:
        """Return the memory of each partition's chunks."""
        sizes = [0] * len(self._partitions)
        for chunk in self._chunks():
            sizes[chunk.partition] += chunk.size_bytes
        return sizes

    def _chunks(self) -> list[Chunk]:
        windows = list(self._partitions)
        return [chunk for window in windows for of in window.chunks.values() for chunk in of]

    def _fill(
        self, key: tuple[int, Label], columns: TradeColumns, rows: Indices, arrived_s: float
    ) -> list[Chunk]:
        """Put rows of one label into its open chunk and into new ones; return the new ones."""
        made: list[Chunk] = []
        chunk = self._open.get(key)
        while len(rows):
            if chunk is None or not chunk.free:
                chunk = self._next_chunk(key, chunk, len(rows))
                made.append(chunk)
            before = chunk.size_bytes
            taken, rows = rows[: chunk.free], rows[chunk.free :]
            chunk.append(columns, taken, arrived_s)
            self.size_bytes += chunk.size_bytes - before
        return made

    def _next_chunk(self, key: tuple[int, Label], full: Chunk | None, rows: int) -> Chunk:
        if full is not None:
            full.seal()
        capacity = max(rows, CHUNK_ROWS_MIN, 2 * full.capacity if full else 0)
        partition, label = key
        self._chunks_made += 1
        chunk = Chunk(
            self._chunks_made, label, self._epoch, partition, min(capacity, limits.TAIL_CHUNK_ROWS)
        )
        self.size_bytes += chunk.size_bytes
        self._open[key] = chunk
        return chunk

    def _raise_low(self, partition: int, low: int) -> int:
        """Drop all chunks that lie below `low`; return how many."""
        window = self._partitions[partition]
        kept: dict[Instrument, tuple[Chunk, ...]] = {}
        gone: list[Chunk] = []
        below = dict(window.time_max_below)
        for instrument, chunks in window.chunks.items():
            stay: list[Chunk] = []
            for chunk in chunks:
                time_us = chunk.hold().time_max_below(low)
                if time_us is not None:
                    below[instrument] = max(time_us, below.get(instrument, time_us))
                whole = chunk.offset[chunk.rows - 1] < low
                (gone if whole else stay).append(chunk)
            if stay:
                kept[instrument] = tuple(stay)
        self._forget(gone)
        self._partitions[partition] = replace(window, low=low, chunks=kept, time_max_below=below)
        return len(gone)

    def _forget(self, chunks: Collection[Chunk] | chain[Chunk]) -> None:
        for chunk in chunks:
            chunk.seal()
            self.size_bytes -= chunk.size_bytes
            key = (chunk.partition, chunk.label)
            if self._open.get(key) is chunk:
                del self._open[key]


def _fresh(offset: int, state: FoldState | None) -> PartitionWindow:
    seen = state.seen if state else {}
    return PartitionWindow(
        offset, offset, time_max_below={name: of.time_max_us for name, of in seen.items()}
    )


def _by_label(columns: TradeColumns, rows: Indices) -> list[tuple[Label, Indices]]:
    if not len(rows):
        return []
    if len(columns.labels) == 1:
        return [(columns.labels[0], rows)]
    codes = columns.label[rows]
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(columns.labels) + 1))
    return [
        (label, rows[order[bounds[code] : bounds[code + 1]]])
        for code, label in enumerate(columns.labels)
        if bounds[code] < bounds[code + 1]
    ]


def _with_chunks(
    chunks: Mapping[Instrument, tuple[Chunk, ...]], made: Collection[Chunk]
) -> dict[Instrument, tuple[Chunk, ...]]:
    grown = dict(chunks)
    for chunk in made:
        instrument = chunk.label.instrument
        grown[instrument] = (*grown.get(instrument, ()), chunk)
    return grown
