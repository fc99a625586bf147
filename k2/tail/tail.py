"""The tail: all of the tape that the lake does not hold yet, and what is recent, ready to be read.

One thread reads every partition, assigned (no group), from a snapshot's positions with the fold's
states of that snapshot. It judges each batch by the path of the lake's writer (`acceptance.py`),
puts the accepted rows into the window, and only then publishes the position: once a position is
reached, every row below it is visible.

A record whose schema or symbol is unknown when the tail judges it may be valid for the writer,
which judges at another moment, and vice versa. The commit decides
(`lake/dead_letters/superseded.py`): until a commit has passed the record, the tail's verdict is
provisional (`undecided`), and where a commit counts other dead records than the tail
(`disagreeing`), the owner of the tail restarts it from that commit.

A partition whose next record cannot be judged now (the registry is away) waits alone: the others
continue, and queries that touch it fail with what it waits for.

Rows leave when the lake holds them (`evict`). Rows that the lake does not hold are never evicted:
if they outgrow the bound, whole partitions are released, the least critical first, and queries of
them fail with TAIL_FULL until `restore` reads them again from a newer snapshot.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from k2 import limits, tracing
from k2.clock import Clock
from k2.errors import Internal, K2Error, Reason, Unavailable
from k2.market.events import Int64s, TradeColumns
from k2.market.fold import FoldState, Verdict
from k2.market.instrument import Instrument
from k2.market.offsets import OffsetVector
from k2.metrics import histogram
from k2.tail.chunk import ROW_BYTES
from k2.tail.dead_records import DeadSeen
from k2.tail.pauses import Deferral, Pauses, Why
from k2.tail.window import TailView, Window
from k2.tape.acceptance import Acceptance
from k2.tape.avro.trade_codec import Decoder
from k2.tape.consumer import RawBatch
from k2.tape.ports import BatchReader, Placement
from k2.tape.trace_headers import Traces

log = logging.getLogger(__name__)
_FRESHNESS_SECONDS = histogram(
    "k2_freshness_seconds",
    "Time from receiving a trade's frame to its row being queryable; one observation a row.",
    buckets=(
        *(0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.25),
        *(0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0),
    ),
)


@dataclass(frozen=True)
class TailStats:
    """What the tail holds, for heartbeats.

    Attributes:
        rows, size_bytes: in its chunks.
        records: judged since it was started, good and bad.
        released: partitions released because memory was full.
        failure: why it stopped reading; None while it reads.
    """

    rows: int
    size_bytes: int
    records: int
    released: frozenset[int]
    failure: K2Error | None


class Tail:
    """Reads and judges the tape in a thread, and holds the rows for queries.

    Args:
        reader_factory: opens a reader of all partitions at the given offsets.
        decoder: reads messages.
        placement: maps symbols to partitions.
        clock: for the age of rows.
        bytes_max: bound on the memory of its rows.
        recent_s: how long rows that the lake holds are kept after they arrived.

    Attributes:
        failure: why it stopped reading; None while it reads.
    """

    def __init__(
        self,
        *,
        reader_factory: Callable[[Mapping[int, int]], BatchReader],
        decoder: Decoder,
        placement: Placement,
        clock: Clock,
        bytes_max: int = limits.TAIL_BYTES_MAX,
        recent_s: float = limits.TAIL_RECENT_S,
    ) -> None:
        self._open = reader_factory
        self._acceptance = Acceptance(decoder, placement, clock)
        self._clock = clock
        self._bytes_max = bytes_max
        self._recent_s = recent_s
        self._moved = threading.Condition()
        self._waiting = 0
        self._wanted = threading.Event()  # set while a caller waits
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._reader: BatchReader | None = None
        self._unjudged: dict[int, deque[RawBatch]] = {}
        self._decoded: dict[int, TradeColumns] = {}  # the first of them, in the present step
        self._waiting_for: dict[int, tuple[float, Unavailable]] = {}  # and when to try again
        self._to_defer: frozenset[int] = frozenset()
        self._noted_end: OffsetVector | None = None
        self.failure: K2Error | None = None
        self._records = 0
        self._started_us = 0
        self._restoring: dict[int, tuple[int, FoldState]] = {}
        self._begin(OffsetVector(0, ()), {})

    def start(self, positions: OffsetVector, states: Mapping[int, FoldState]) -> None:
        """Forget everything and read from `positions` on, in a thread of its own.

        Args:
            positions: of a snapshot.
            states: what the fold remembers there; a partition it lacks remembers nothing.

        Raises:
            Exception: the error of opening the tape; it is the tail's failure as well.
        """
        self.close()
        self._started_us = self._clock.now_us()
        self._begin(positions, states)
        try:
            self._reader = self._open(dict(enumerate(positions.offsets)))
        except Exception as error:
            self._fail(_failure_of(error))
            raise
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="tail", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading; the rows held stay readable."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def waiting_for(self, partitions: Collection[int]) -> Unavailable | None:
        """Return what the first blocked one of these partitions waits for; None when none waits."""
        waiting = self._waiting_for
        return next((waiting[p][1] for p in partitions if p in waiting), None)

    def position(self) -> OffsetVector:
        """Return per partition the offset below which every record is judged and visible."""
        return self._window.position

    def released(self) -> frozenset[int]:
        """Return the partitions released because memory was full."""
        return self._window.released

    def defer(self, partitions: Collection[int]) -> None:
        """Pause exactly these partitions from the next step on; those paused before catch up."""
        self._to_defer = frozenset(partitions)

    def deferred(self) -> frozenset[int]:
        """Return the partitions that are paused by `defer`, or catch up after that."""
        return self._deferral.all

    def catches_up(self) -> bool:
        """Tell whether a partition catches up, so that `note_end` is needed."""
        return bool(self._deferral.catching_up)

    def note_end(self, end: OffsetVector) -> None:
        """Note where the tape ends: a partition that reaches it has caught up."""
        self._noted_end = end

    def states(self) -> Mapping[int, FoldState]:
        """Return what the fold remembers of each partition at present."""
        return dict(self._states)

    def holes_stayed(
        self,
        end: OffsetVector,
        partitions: Collection[int],
        instruments: Collection[Instrument] | None,
    ) -> bool:
        """Tell whether every hole at `end` is one of `states`, taken before this call.

        False where a record at or above `end` may have filled one, and where `end` lies outside of
        what was read since `start`.
        """
        position, released = self.position(), self.released()
        read = all(
            self._first[p] <= end[p] <= position[p] and p not in released for p in partitions
        )
        late = self._late
        return read and all(
            offset < end[partition]
            for partition in partitions
            for instrument, offset in late[partition].items()
            if instruments is None or instrument in instruments
        )

    def disagreeing(self, positions: OffsetVector, dead: Mapping[int, int]) -> frozenset[int]:
        """Return the partitions of which a commit counts other dead records than the tail.

        Args:
            positions: of the commit; a partition not read so far is not compared.
            dead: how many there are below them, per partition.
        """
        position, released = self.position(), self.released()
        counts = {p: self._dead[p].below(positions[p]) for p in dead if position[p] >= positions[p]}
        return frozenset(p for p in counts.keys() - released if counts[p] not in (None, dead[p]))

    def undecided(
        self, start: OffsetVector, end: OffsetVector, partitions: Collection[int]
    ) -> bool:
        """Tell whether the writer may accept a record between two ends that the tail did not."""
        return any(self._dead[p].any_undecided(start[p], end[p]) for p in partitions)

    def instruments(self) -> set[Instrument]:
        """Return every instrument that ever had a row."""
        return self._window.instruments()

    def stats(self) -> TailStats:
        """Return what the tail holds."""
        window = self._window
        return TailStats(
            window.rows, window.size_bytes, self._records, window.released, self.failure
        )

    def view(
        self, instruments: Collection[Instrument] | None, end: OffsetVector | None = None
    ) -> TailView:
        """Hold the rows of some instruments (None: all), below `end` where given."""
        return self._window.view(instruments, end)

    def wait_until(
        self, end: OffsetVector, timeout_s: float, partitions: Collection[int] | None = None
    ) -> bool:
        """Wait until the rows below `end` of these partitions (None: all) are visible.

        Returns False on timeout, on failure, or when a partition waits for an unavailable part or
        is deferred.
        """
        wanted = range(len(end.offsets)) if partitions is None else partitions

        def reached() -> bool:
            position = self._window.position
            return all(position[p] >= end[p] for p in wanted)

        def as_far_as_possible() -> bool:
            position, waiting = self._window.position, self._waiting_for
            deferred = self._deferral.all
            return self.failure is not None or all(
                position[p] >= end[p] or p in waiting or p in deferred for p in wanted
            )

        if reached():
            return True
        with self._moved:
            self._waiting += 1
            self._wanted.set()
            self._moved.wait_for(as_far_as_possible, timeout_s)
            self._waiting -= 1
            if not self._waiting:
                self._wanted.clear()
        return reached()

    def evict(self, covered: OffsetVector) -> int:
        """Drop rows that the lake holds and that are old or exceed the bound; oldest first.

        Args:
            covered: positions of a snapshot that every query planned from now on knows.

        Returns:
            How many chunks were dropped.
        """
        self._covered = covered
        before_s = self._clock.monotonic_s() - self._recent_s
        return self._window.evict(covered, before_s, self._bytes_max)

    def restore(self, positions: OffsetVector, states: Mapping[int, FoldState]) -> None:
        """Read released partitions again, from a newer snapshot, if there is room by now."""
        if self._window.size_bytes > self._bytes_max // 2:
            return
        self._restoring = {
            partition: (positions[partition], states.get(partition, FoldState()))
            for partition in self._window.released
        }

    # --- its thread -----------------------------------------------------------------------------

    def _begin(self, positions: OffsetVector, states: Mapping[int, FoldState]) -> None:
        self._window = Window(positions, states)
        self._states = {p: states.get(p, FoldState()) for p in range(len(positions.offsets))}
        self._first = list(positions.offsets)
        self._dead = [DeadSeen(self._states[p].dead, at) for p, at in enumerate(self._first)]
        self._late: list[dict[Instrument, int]] = [{} for _ in positions.offsets]
        self._covered = positions
        self._unjudged = {partition: deque() for partition in range(len(positions.offsets))}
        self._decoded = {}
        self._waiting_for = {}
        self._pauses = Pauses()
        ahead_max = self._bytes_max // (2 * ROW_BYTES)  # half of it, the rest is for the others
        self._deferral = Deferral(min(limits.TAIL_CATCH_UP_AHEAD, ahead_max))
        self._noted_end = None
        self._restoring = {}
        self._records = 0
        self.failure = None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if 0 < self.step() < limits.TAIL_GATHER_RECORDS:
                    self._wanted.wait(limits.TAIL_GATHER_S)
            except Unavailable as error:
                log.warning("the tail waits: %s", error.message, extra={"reason": error.reason})
                self._stopping.wait(error.retry_after_s or limits.TAIL_RETRY_S)
            except Exception as error:  # noqa: BLE001 a thread that died unseen would be silence
                self._fail(_failure_of(error))
                return

    def step(self, timeout_s: float = limits.TAIL_POLL_S) -> int:
        """Read once and judge all that was read; the thread repeats this until `close`.

        A small batch costs nearly as much as a large one, so the thread pauses briefly between
        steps, unless a caller waits. Records that cannot be judged now are kept, and their
        partition is not read until they are judged, in one of the next steps; others continue.

        Returns:
            How many records were read.
        """
        assert self._reader is not None, "the tail was not started"
        self._restore(self._reader)
        self._obey(self._reader)
        took = 0
        if any(unjudged and self._may_judge(p) for p, unjudged in self._unjudged.items()):
            timeout_s = 0.0
        batches = self._reader.read(limits.CONSUME_BATCH_RECORDS, timeout_s)
        for batch in batches:
            self._unjudged[batch.partition].append(batch)
            took += len(batch)
        read = ((batch.partition, len(batch)) for batch in batches)
        self._deferral.count(read, self._clock.monotonic_s())
        self._decode_together()
        for partition, unjudged in self._unjudged.items():
            if unjudged and self._may_judge(partition):
                self._take_all(self._reader, partition, unjudged)
        if self._window.size_bytes > self._bytes_max:
            self._make_room(self._reader)
        return took

    def _obey(self, reader: BatchReader) -> None:
        """Pause and resume as `defer` said, and hold back what catches up."""
        deferral, position = self._deferral, self._window.position
        wanted = frozenset(p for p in self._to_defer if p < len(position.offsets))
        if wanted != deferral.paused:
            log.info("partitions paused by the level: %s", sorted(wanted))
            deferral.obey(wanted, self._pauses, reader, self._clock.monotonic_s())
            self._noted_end = None
            with self._moved:
                self._moved.notify_all()
        if not deferral.catching_up:
            return
        end, self._noted_end = self._noted_end, None
        if end is not None:
            for partition in deferral.note_end(end, position, self._covered):
                self._pauses.remove(reader, partition, Why.PACE)
        deferral.pace(position, self._covered, self._pauses, reader)

    def _may_judge(self, partition: int) -> bool:
        waiting = self._waiting_for.get(partition)
        return waiting is None or self._clock.monotonic_s() >= waiting[0]

    def _decode_together(self) -> None:
        """Decode what was read of several partitions at once, where it is little."""
        little = [
            unjudged[0]
            for partition, unjudged in self._unjudged.items()
            if len(unjudged) == 1 and self._may_judge(partition)
        ]
        few = sum(map(len, little)) <= limits.TAIL_GATHER_RECORDS
        together = few and len(little) > 1
        self._decoded = self._acceptance.decode_together(little) if together else {}

    def _take_all(self, reader: BatchReader, partition: int, unjudged: deque[RawBatch]) -> None:
        """Judge what was read of a partition, up to a record that has to wait for a step or more.

        The partition is not read meanwhile, so that what is held of it stays bounded.
        """
        rest = None
        try:
            while unjudged and rest is None:
                rest = self._take(unjudged[0])
                if rest is None:
                    unjudged.popleft()
                else:
                    unjudged[0] = rest
                with self._moved:
                    self._moved.notify_all()
        except Unavailable as error:
            if partition not in self._waiting_for:
                log.warning("partition %d waits: %s", partition, error.message)
            at_s = self._clock.monotonic_s() + limits.TAIL_RETRY_S
            self._waiting_for = {**self._waiting_for, partition: (at_s, error)}
            with self._moved:
                self._moved.notify_all()
        else:
            self._goes_on(partition)
        if unjudged:
            self._pauses.add(reader, partition, Why.UNJUDGED)
        else:
            self._pauses.remove(reader, partition, Why.UNJUDGED)

    def _goes_on(self, partition: int) -> None:
        if partition in self._waiting_for:
            self._waiting_for = {p: why for p, why in self._waiting_for.items() if p != partition}

    def _take(self, batch: RawBatch) -> RawBatch | None:
        """Judge records and publish those that are rows; return the rest of the batch."""
        partition = batch.partition
        if partition in self._window.released:
            return None
        before = self._states[partition]
        decoded = self._decoded.pop(partition, None)
        judged = self._acceptance.judge(batch, before, decoded=decoded)
        rows = np.flatnonzero(judged.verdicts == Verdict.ACCEPTED)
        dead = judged.verdicts == Verdict.DEAD
        if dead.any():
            self._dead[partition] = self._dead[partition].and_then(
                judged.columns.offset[dead], judged.undecided[dead], self._covered[partition]
            )
        now_s = self._clock.monotonic_s()
        if judged.late:
            self._late[partition] = {**self._late[partition], **judged.late}
        # In this order, so that a reader that sees rows also sees their holes.
        self._states[partition] = judged.state
        self._window.append(partition, judged.columns, rows, judged.batch.next_offset, now_s)
        self._observe_freshness(judged.columns, rows, judged.batch.traces)
        self._records += len(judged.columns)
        return judged.rest

    def _observe_freshness(self, columns: TradeColumns, rows: Int64s, traces: Traces) -> None:
        """Observe rows that became queryable; what was received before the start was so before.

        The row of the first trace has it as its exemplar.
        """
        rows = rows[columns.receive_time[rows] >= self._started_us]
        age_s = (self._clock.now_us() - columns.receive_time[rows]) / 1e6
        for offset, traceparent in traces:
            at = np.flatnonzero(columns.offset[rows] == offset)
            if len(at):
                _FRESHNESS_SECONDS.observe(float(age_s[at[0]]), tracing.exemplar_of(traceparent))
                age_s = np.delete(age_s, at[0])
                break
        _FRESHNESS_SECONDS.observe_all(age_s)

    def _restore(self, reader: BatchReader) -> None:
        restoring, self._restoring = self._restoring, {}
        for partition, (offset, state) in restoring.items():
            self._unjudged[partition].clear()
            self._goes_on(partition)
            self._first[partition] = offset
            self._states[partition] = state
            self._dead[partition] = DeadSeen(state.dead, offset)
            self._window.restore(partition, offset, state)
            reader.seek({partition: offset})
            self._pauses.remove(reader, partition, Why.UNJUDGED)
            self._pauses.remove(reader, partition, Why.MEMORY)

    def _make_room(self, reader: BatchReader) -> None:
        self.evict(self._covered)
        while self._window.size_bytes > self._bytes_max:
            sizes = self._window.bytes_by_partition()
            # Tiers own partitions in order, so the highest is among the least critical.
            least = max(partition for partition, size in enumerate(sizes) if size)
            log.error("the tail is full: partition %d is released", least)
            self._pauses.add(reader, least, Why.MEMORY)
            self._pauses.remove(reader, least, Why.UNJUDGED)
            self._unjudged[least].clear()
            self._goes_on(least)
            self._window.release(least)

    def _fail(self, error: K2Error) -> None:
        log.error("the tail stopped: %s", error.message, extra={"reason": error.reason})
        with self._moved:
            self.failure = error
            self._moved.notify_all()


def _failure_of(error: Exception) -> K2Error:
    if isinstance(error, K2Error):
        return error
    log.error("the tail failed", exc_info=error)
    return Internal(Reason.INTERNAL, f"the tail failed: {error!r}")
