"""Decides what to read for an exact answer, from plain facts alone.

**The cut.** Per partition of the tape, the lake answers the offsets below O(S), the positions of
one snapshot S; the tail answers from there to E, the end of the tape when the query was planned.
Writer and tail accept rows by the same fold, so together they hold each row exactly once, whatever
is committed, evicted or rewritten meanwhile; no clock is involved. Where E lies below O(S) (a newer
snapshot than the one a ticket or a read token was made for), the lake is cut at E by tape position.
So E alone fixes the rows, permanently. A position is (epoch, partition, offset): rows of older
epochs lie below every cut.

**Without the lake.** All rows below the tail's low offset have event times up to a known maximum
(kept per instrument). A range that starts above it needs nothing from the lake: the tail answers
from its own low offset on. A range without a start does so only when there is no lake.

**The newest rows.** A request for the last N rows needs no row older than the N-th newest. Chunks
that lie whole in the answer count their rows exactly, so N of them give a time from which on the
answer is complete; the range then starts there, and the rule above often applies.

**When something is missing** (no lake, rows evicted above O(S), the tail not yet at E, a partition
released or deferred), the plan is still the best one, and `missing` names what it lacks; the caller
decides (`TradesRequest.allow_partial`). A plan never omits rows silently.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from k2.market.files import FileIndex
from k2.market.instrument import Instrument
from k2.market.offsets import ChunkRange, OffsetVector, PartitionCut, TimeRange
from k2.query.request import Order, TradesRequest


class MissingReason(StrEnum):
    """Why a side is missing from a plan."""

    LAKE = "LAKE"  # the lake cannot be read
    EVICTED = "EVICTED"  # rows above O(S) that the tail no longer holds: a newer snapshot has them
    BEHIND = "BEHIND"  # rows below E that the tail has not read yet
    DEFERRED = "DEFERRED"  # rows below E that the tail reads later: a level sheds their tier
    RELEASED = "RELEASED"  # rows that the tail released because memory was full


@dataclass(frozen=True)
class LakeFacts:
    """What a plan knows of a snapshot: O(S) and its files."""

    positions: OffsetVector
    files: FileIndex


@dataclass(frozen=True)
class TailFacts:
    """What a plan knows of the tail, for the instruments of the request.

    Attributes:
        position: per partition the end of what is visible.
        low: per partition the offset from which on all rows are held.
        released: partitions of which nothing is held.
        time_max_below: per instrument the greatest event_time of its rows below `low`; an
            instrument it lacks has no row there.
        chunks: what is held.
        deferred: partitions that are paused because their tier is shed, or catch up after that.
    """

    position: OffsetVector
    low: OffsetVector
    released: frozenset[int] = frozenset()
    time_max_below: Mapping[Instrument, int] = field(default_factory=dict)
    chunks: tuple[ChunkRange, ...] = ()
    deferred: frozenset[int] = frozenset()


@dataclass(frozen=True)
class MissingSide:
    """A side that a plan lacks.

    Attributes:
        reason: why it is missing.
        partitions: whose rows are missing; empty when it is the lake's whole part.
    """

    reason: MissingReason
    partitions: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What to read.

    Attributes:
        times: event times of the answer; narrower than requested where that is provably enough.
        cuts: of the partitions of the request: the lake answers below `low`, the tail up to `end`.
        files: what to read of the lake.
        lake_ends: partitions of which the lake's rows count only below an offset, in `epoch`.
        chunks: what to read of the tail, each cut by its partition's cut.
        skips_lake: no row of the lake can be in the answer.
        missing: what an exact answer would need besides.
        epoch: of the tape, that `cuts` and `lake_ends` are in; rows of older ones all count.
        newer_epochs: whether the files may hold rows of newer ones, which do not count.
    """

    times: TimeRange
    cuts: Mapping[int, PartitionCut]
    files: FileIndex
    lake_ends: Mapping[int, int]
    chunks: tuple[ChunkRange, ...]
    skips_lake: bool
    missing: tuple[MissingSide, ...]
    epoch: int = 0
    newer_epochs: bool = False

    @property
    def bounds_us(self) -> tuple[int, int]:
        """The least and the greatest event time that may be read; equal where there is none."""
        files, chunks = self.files, self.chunks
        low = min([*files.time_min.tolist(), *(chunk.time_min_us for chunk in chunks)], default=0)
        high = max([*files.time_max.tolist(), *(chunk.time_max_us for chunk in chunks)], default=0)
        start, end = self.times.start_us, self.times.end_us
        low = low if start is None else max(low, start)
        high = high if end is None else min(high, end - 1)
        return low, max(low, high)

    @property
    def exchanges(self) -> frozenset[str]:
        """The exchanges whose rows may be read; a file has rows of one."""
        of_files = {stat.exchange for stat in self.files.stats}
        return frozenset(of_files | {chunk.instrument.exchange for chunk in self.chunks})

    @property
    def rows_estimated(self) -> int:
        """Estimated number of rows to read."""
        return round(RowsOverTime(self).total)

    @property
    def reads(self) -> bool:
        """Whether it may read a row."""
        start, end = self.times.start_us, self.times.end_us
        empty = start is not None and end is not None and start >= end
        return not empty and bool(len(self.files) or self.chunks)

    def of(self, instruments: Collection[Instrument]) -> Plan:
        """Return the plan for some of its instruments."""
        symbols = tuple({instrument.symbol for instrument in instruments})
        exchanges = tuple({instrument.exchange for instrument in instruments})
        return replace(
            self,
            files=self.files.of(symbols, exchanges) if instruments else _NO_FILES,
            chunks=tuple(chunk for chunk in self.chunks if chunk.instrument in instruments),
        )

    def during(self, times: TimeRange) -> Plan:
        """Return the plan for a part of its times."""
        return replace(
            self,
            times=times,
            files=self.files.within(times),
            chunks=tuple(
                chunk
                for chunk in self.chunks
                if times.overlaps(chunk.time_min_us, chunk.time_max_us)
            ),
        )


_NO_FILES = FileIndex(())
_NEVER_US = -(2**63)


class RowsOverTime:
    """Estimates where the rows of a plan lie in time, as if each file and chunk spread them evenly.

    Cuts the plan into consecutive parts of an estimated number of rows. The parts share no moment,
    so their answers in sequence are the plan's answer in canonical order, sorted part by part in
    bounded memory; and a limit may end it early.
    """

    def __init__(self, plan: Plan) -> None:
        self._rest: Plan | None = plan
        low, high = plan.times.start_us or _NEVER_US, plan.times.end_us or -_NEVER_US
        files, chunks = plan.files, plan.chunks
        lows = np.append(files.time_min, [chunk.time_min_us for chunk in chunks]).astype(float)
        highs = np.append(files.time_max, [chunk.time_max_us for chunk in chunks]).astype(float) + 1
        rows = np.append(files.rows, [chunk.rows for chunk in chunks]).astype(float)
        slopes = rows / (highs - lows)
        lows, highs = np.clip(lows, low, high), np.clip(highs, low, high)
        edges, indices = np.unique(np.concatenate((lows, highs)), return_inverse=True)
        steps = np.bincount(indices, np.concatenate((slopes, -slopes)), len(edges))
        self._times = edges
        self._rows = np.append(0.0, np.cumsum(np.cumsum(steps)[:-1] * np.diff(edges)))

    @property
    def total(self) -> float:
        """Estimated number of rows of the whole plan."""
        return float(self._rows[-1])

    def take(self, rows: float, *, descending: bool) -> Plan | None:
        """Return the next part, of about `rows` rows, from either end; None when all is taken."""
        if self._rest is None:
            return None
        start, end = self._rest.times.start_us, self._rest.times.end_us
        edge = self._edge(start, end, rows, descending)
        if edge is None:
            part, self._rest = self._rest, None
        elif descending:
            part = self._rest.during(TimeRange(edge, end))
            self._rest = self._rest.during(TimeRange(start, edge))
        else:
            part = self._rest.during(TimeRange(start, edge))
            self._rest = self._rest.during(TimeRange(edge, end))
        return part

    def _edge(
        self, start: int | None, end: int | None, rows: float, descending: bool
    ) -> int | None:
        """Return where the next part ends; None when the rest is not much more than a part."""
        if len(self._times) < 2:
            return None
        low, high = self._times[0], self._times[-1]
        low, high = max(low, start or low), min(high, end or high)
        below, above = np.interp((low, high), self._times, self._rows)
        if above - below <= rows * 1.25:
            return None
        wanted = above - rows if descending else below + rows
        edge = int(np.interp(wanted, self._rows, self._times))
        return edge if low < edge < high else None


def plan_lake(request: TradesRequest, lake: LakeFacts, end: OffsetVector) -> Plan:
    """Plan what COMMITTED and AS_OF read.

    Args:
        request: with `last` resolved.
        lake: the snapshot requested, or any newer one; of an older one the plan says what it lacks.
        end: positions of the snapshot requested.
    """
    times = request.read_range
    files = lake.files.within(times).of(request.read_symbols, request.exchanges)
    newer = lake.positions.epoch > end.epoch
    ends = {p: to for p, to in enumerate(end.offsets) if newer or lake.positions[p] > to}
    behind = tuple(p for p, to in enumerate(end.offsets) if not newer and lake.positions[p] < to)
    missing = (MissingSide(MissingReason.LAKE, behind),) if behind else ()
    return Plan(times, {}, files, ends, (), False, missing, epoch=end.epoch, newer_epochs=newer)


def plan_union(
    request: TradesRequest,
    partitions: Iterable[int],
    lake: LakeFacts | None,
    tail: TailFacts,
    end: OffsetVector,
) -> Plan:
    """Plan what UNION reads, by the rules of this module.

    Args:
        request: with `last` resolved.
        partitions: where the instruments of the request have their rows.
        lake: a snapshot; None when the lake cannot be read.
        tail: what it holds of the instruments of the request.
        end: E.
    """
    partitions = sorted(partitions)
    alone = {p: _cut(p, tail.low[p], tail, end) for p in partitions}
    readable = all(p not in tail.released and tail.position[p] >= end[p] for p in partitions)
    floor_us = max(tail.time_max_below.values(), default=_NEVER_US)
    later = tuple(chunk for chunk in tail.chunks if chunk.time_min_us > floor_us)
    times = _newest(request, request.read_range, later, alone)
    above = floor_us == _NEVER_US if times.start_us is None else times.start_us > floor_us
    if readable and above and (times.start_us is not None or lake is None):
        chunks = _chosen(tail.chunks, alone, times)
        return Plan(times, alone, _NO_FILES, {}, chunks, True, (), epoch=end.epoch)
    return _hybrid(request, partitions, lake, tail, end)


def _hybrid(
    request: TradesRequest,
    partitions: Sequence[int],
    lake: LakeFacts | None,
    tail: TailFacts,
    end: OffsetVector,
) -> Plan:
    """Plan the lake below O(S), the tail from there on, and what of it is missing."""
    missing = [] if lake else [MissingSide(MissingReason.LAKE)]
    lacking: dict[MissingReason, list[int]] = {}
    lows = {p: lake.positions[p] if lake else tail.low[p] for p in partitions}
    cuts = {p: _cut(p, lows[p], tail, end) for p in partitions}
    for partition in partitions:
        lack = _lack(lows[partition], end[partition], partition, tail)
        if lack:
            lacking.setdefault(lack, []).append(partition)
    missing += [MissingSide(lack, tuple(of)) for lack, of in lacking.items()]
    times = request.read_range
    if not missing:
        times = _newest(request, times, tail.chunks, cuts)
    names = request.read_symbols, request.exchanges
    files = lake.files.within(times).of(*names) if lake else _NO_FILES
    return Plan(
        times,
        cuts,
        files,
        {p: end[p] for p in partitions if lake and lake.positions[p] > end[p]},
        _chosen(tail.chunks, cuts, times),
        skips_lake=False,
        missing=tuple(missing),
        epoch=end.epoch,
    )


def _lack(low: int, end: int, partition: int, tail: TailFacts) -> MissingReason | None:
    """Return why the tail cannot answer low <= offset < end; None when it can."""
    if low >= end:
        return None
    if partition in tail.released:
        return MissingReason.RELEASED
    if tail.low[partition] > low:
        return MissingReason.EVICTED
    if tail.position[partition] >= end:
        return None
    return MissingReason.DEFERRED if partition in tail.deferred else MissingReason.BEHIND


def _cut(partition: int, low: int, tail: TailFacts, end: OffsetVector) -> PartitionCut:
    """Cut from `low` to E or to where the tail is; empty when `low` lies above."""
    stop = min(end[partition], tail.position[partition])
    if partition in tail.released:
        stop = low
    return PartitionCut(partition, min(low, end[partition]), max(stop, min(low, end[partition])))


def _chosen(
    chunks: Iterable[ChunkRange], cuts: Mapping[int, PartitionCut], times: TimeRange
) -> tuple[ChunkRange, ...]:
    """Choose the chunks with rows between the cuts and, by their bounds, in the times."""
    return tuple(
        chunk
        for chunk in chunks
        if (cut := cuts.get(chunk.partition)) is not None
        and cut.low < cut.end
        and chunk.offset_high >= cut.low
        and chunk.offset_low < cut.end
        and times.overlaps(chunk.time_min_us, chunk.time_max_us)
    )


def _newest(
    request: TradesRequest,
    times: TimeRange,
    chunks: Iterable[ChunkRange],
    cuts: Mapping[int, PartitionCut],
) -> TimeRange:
    """Return the end of `times` that surely holds the last `limit` rows; else `times`."""
    wanted = request.rows_read_max
    if wanted is None or request.order is not Order.DESC:
        return times
    whole = (
        chunk
        for chunk in _chosen(chunks, cuts, times)
        if cuts[chunk.partition].low <= chunk.offset_low
        and chunk.offset_high < cuts[chunk.partition].end
        and (times.start_us is None or chunk.time_min_us >= times.start_us)
        and (times.end_us is None or chunk.time_max_us < times.end_us)
    )
    rows = 0
    for chunk in sorted(whole, key=lambda chunk: chunk.time_min_us, reverse=True):
        rows += chunk.rows
        if rows >= wanted:
            return TimeRange(chunk.time_min_us, times.end_us)
    return times
