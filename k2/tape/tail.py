"""The tail: all of the tape that the lake does not hold yet, and what is recent, ready to be read.

One thread reads every partition, assigned (no group), from a snapshot's positions with the fold's
states of that snapshot. It decodes, checks and folds each batch exactly as the lake's writer does,
puts the accepted rows into the window, and only then publishes the position: whoever has waited
for a position sees every row below it.

A record whose schema or symbol is not known just then may be good to the writer, that looks at
another moment, and the other way round. The commit decides (`lake/timely.py`): until one has passed
the record, what the tail made of it is a guess (`undecided`), and where a commit counts other dead
records than the tail (`disagreeing`), whoever owns the tail starts it again from that commit.

Rows leave when the lake holds them (`evict`). Rows that the lake does not hold are never evicted:
if they outgrow the bound, whole partitions are released, the least critical first, and questions
about them fail loudly until `restore` reads them again from a newer snapshot.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from k2 import limits
from k2.clock import Clock
from k2.errors import Internal, K2Error, Reason, Unavailable
from k2.market.events import Bools, Fault, TradeColumns, check
from k2.market.fold import FoldState, Verdict, fold
from k2.market.instrument import Instrument
from k2.market.offsets import OffsetVector
from k2.tape.consumer import RawBatch
from k2.tape.dead_seen import DeadSeen
from k2.tape.window import TailView, Window

log = logging.getLogger(__name__)


class BatchReader(Protocol):
    """The part of `TapeReader` that the tail needs."""

    def read(self, max_records: int, timeout_s: float) -> list[RawBatch]:
        """The next records, one batch a partition."""
        ...

    def pause(self, partitions: Collection[int]) -> None:
        """Stop reading partitions."""
        ...

    def resume(self, partitions: Collection[int]) -> None:
        """Read them again."""
        ...

    def seek(self, positions: Mapping[int, int]) -> None:
        """Go on from other offsets."""
        ...

    def close(self) -> None:
        """Let go of the tape."""
        ...


class BatchDecoder(Protocol):
    """The part of `Decoder` that the tail needs."""

    def decode(self, batch: RawBatch) -> TradeColumns:
        """A batch in columns, with a fault for each record that is none."""
        ...


class Homes(Protocol):
    """The part of `Placement` that the tail needs."""

    def covering(self, instruments: Collection[Instrument]) -> Mapping[Instrument, int]:
        """The partition map, read again if it lacks one of these."""
        ...


@dataclass(frozen=True)
class TailStats:
    """What the tail holds, for heartbeats.

    Attributes:
        rows, size_bytes: in its chunks.
        records: judged since it was started, good and bad.
        released: partitions let go for want of memory.
        failure: why it reads no more; None while it does.
    """

    rows: int
    size_bytes: int
    records: int
    released: frozenset[int]
    failure: K2Error | None


class Tail:
    """See the module.

    Args:
        reader_factory: opens a reader of all partitions at the given offsets.
        decoder: reads messages.
        placement: says where symbols belong.
        clock: for the age of rows.
        bytes_max: bound on the memory of its rows.
        recent_s: rows the lake holds are kept so long after they came.
    """

    def __init__(
        self,
        *,
        reader_factory: Callable[[Mapping[int, int]], BatchReader],
        decoder: BatchDecoder,
        placement: Homes,
        clock: Clock,
        bytes_max: int = limits.TAIL_BYTES_MAX,
        recent_s: float = limits.TAIL_RECENT_S,
    ) -> None:
        self._open = reader_factory
        self._decoder = decoder
        self._placement = placement
        self._clock = clock
        self._bytes_max = bytes_max
        self._recent_s = recent_s
        self._moved = threading.Condition()
        self._waiting = 0
        self._wanted = threading.Event()  # set while anybody waits
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._reader: BatchReader | None = None
        self._pending: deque[RawBatch] = deque()
        self._failure: K2Error | None = None
        self._records = 0
        self._restoring: dict[int, tuple[int, FoldState]] = {}
        self._begin(OffsetVector(0, ()), {})

    def start(self, positions: OffsetVector, states: Mapping[int, FoldState]) -> None:
        """Forget everything and read from `positions` on, in a thread of its own.

        Args:
            positions: of a snapshot.
            states: what the fold remembers there; a partition it lacks remembers nothing.
        """
        self.close()
        self._begin(positions, states)
        self._reader = self._open(dict(enumerate(positions.offsets)))
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="tail", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading; what is held stays readable."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    @property
    def failure(self) -> K2Error | None:
        """Why it reads no more; None while it does."""
        return self._failure

    def position(self) -> OffsetVector:
        """Per partition the offset below which every record has been judged and is visible."""
        return self._window.position

    def released(self) -> frozenset[int]:
        """Partitions let go for want of memory."""
        return self._window.released

    def states(self) -> Mapping[int, FoldState]:
        """What the fold remembers of each partition just now."""
        return dict(self._states)

    def holes_stayed(
        self,
        end: OffsetVector,
        partitions: Collection[int],
        instruments: Collection[Instrument] | None,
    ) -> bool:
        """Whether every hole that there was at `end` is one of `states`, taken before this call.

        Not where a record at or above `end` may have filled one, nor where `end` lies outside what
        was read in this life.
        """
        at, released = self.position(), self.released()
        read = all(self._first[p] <= end[p] <= at[p] and p not in released for p in partitions)
        late = self._late
        return read and all(
            offset < end[partition]
            for partition in partitions
            for instrument, offset in late[partition].items()
            if instruments is None or instrument in instruments
        )

    def disagreeing(self, positions: OffsetVector, dead: Mapping[int, int]) -> frozenset[int]:
        """Partitions of which a commit has passed other dead records than the tail found.

        Args:
            positions: of the commit; a partition that was not read so far is not compared.
            dead: how many there are below them, per partition.
        """
        at, released = self.position(), self.released()
        found = {p: self._dead[p].below(positions[p]) for p in dead if at[p] >= positions[p]}
        return frozenset(p for p in found.keys() - released if found[p] not in (None, dead[p]))

    def undecided(
        self, start: OffsetVector, end: OffsetVector, partitions: Collection[int]
    ) -> bool:
        """Whether a record between two ends may be good to a writer that knows more."""
        return any(self._dead[p].any_undecided(start[p], end[p]) for p in partitions)

    def instruments(self) -> set[Instrument]:
        """Every instrument that ever had a row."""
        return self._window.instruments()

    def stats(self) -> TailStats:
        """What it holds."""
        window = self._window
        return TailStats(
            window.rows, window.size_bytes, self._records, window.released, self._failure
        )

    def view(
        self, instruments: Collection[Instrument] | None, end: OffsetVector | None = None
    ) -> TailView:
        """Hold the rows of some instruments (None: all), below `end` where given."""
        return self._window.view(instruments, end)

    def wait_until(
        self, end: OffsetVector, timeout_s: float, partitions: Collection[int] | None = None
    ) -> bool:
        """Wait until the rows below `end` are visible; False when time ran out or it failed.

        Args:
            end: what to wait for.
            timeout_s: how long.
            partitions: the ones that matter; None means all.
        """
        wanted = range(len(end.offsets)) if partitions is None else partitions

        def reached() -> bool:
            position = self._window.position
            return all(position[each] >= end[each] for each in wanted)

        if reached():
            return True
        with self._moved:
            self._waiting += 1
            self._wanted.set()
            self._moved.wait_for(lambda: reached() or self._failure is not None, timeout_s)
            self._waiting -= 1
            if not self._waiting:
                self._wanted.clear()
        return reached()

    def evict(self, covered: OffsetVector) -> int:
        """Let go what the lake holds and what is old, or more than the bound; oldest first.

        Args:
            covered: positions of a snapshot that every query planned from now on knows.

        Returns:
            How many chunks went.
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
        self._pending.clear()
        self._restoring = {}
        self._records = 0
        self._failure = None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if 0 < self.step() < limits.TAIL_GATHER_RECORDS:
                    self._wanted.wait(limits.TAIL_GATHER_S)
            except Unavailable as error:
                log.warning("the tail waits: %s", error.message, extra={"reason": error.reason})
                self._stopping.wait(error.retry_after_s or limits.TAIL_RETRY_S)
            except K2Error as error:
                self._fail(error)
                return
            except Exception as error:  # a thread that died unseen would be silence
                log.exception("the tail failed")
                self._fail(Internal(Reason.INTERNAL, f"the tail failed: {error!r}"))
                return

    def step(self, timeout_s: float = limits.TAIL_POLL_S) -> int:
        """Read once and take in all that was read; the thread does this for ever.

        A small batch costs nearly as much as a large one, so the thread pauses briefly between
        steps, unless somebody waits. A batch that cannot be judged now (Unavailable) is kept and
        tried again next time.

        Returns:
            How many records were read.
        """
        assert self._reader is not None, "the tail was not started"
        self._restore(self._reader)
        if not self._pending:
            self._pending.extend(self._reader.read(limits.CONSUME_BATCH_RECORDS, timeout_s))
        took = sum(map(len, self._pending))
        while self._pending:
            self._take(self._pending[0])
            self._pending.popleft()
            with self._moved:
                self._moved.notify_all()
        if self._window.size_bytes > self._bytes_max:
            self._make_room(self._reader)
        return took

    def _take(self, batch: RawBatch) -> None:
        partition = batch.partition
        if partition in self._window.released:
            return
        columns = self._decoder.decode(batch)
        homes = self._placement.covering([label.instrument for label in columns.labels])
        columns = check(columns, homes, partition)
        before = self._states[partition]
        judged = fold(before, columns)
        rows = np.flatnonzero(judged.verdicts == Verdict.ACCEPTED)
        if judged.state.dead > before.dead:
            self._note_dead(partition, columns, homes, judged.verdicts == Verdict.DEAD)
        now_s = self._clock.monotonic_s()
        if judged.late:
            self._late[partition] = {**self._late[partition], **judged.late}
        # In this order: whoever sees rows knows of their holes.
        self._states[partition] = judged.state
        self._window.append(partition, columns, rows, batch.next_offset, now_s)
        self._records += len(columns)

    def _note_dead(
        self, partition: int, columns: TradeColumns, homes: Mapping[Instrument, int], dead: Bools
    ) -> None:
        """Remember dead records, and which of them are so for want of knowledge."""
        unplaced = np.array([label.instrument not in homes for label in columns.labels] + [False])
        undecided = (columns.fault == Fault.UNKNOWN_SCHEMA) | (
            (columns.fault == Fault.WRONG_PARTITION) & unplaced[columns.label]
        )
        self._dead[partition] = self._dead[partition].and_then(
            columns.offset[dead], undecided[dead], self._covered[partition]
        )

    def _restore(self, reader: BatchReader) -> None:
        restoring, self._restoring = self._restoring, {}
        for partition, (offset, state) in restoring.items():
            self._pending = deque(b for b in self._pending if b.partition != partition)
            self._first[partition] = offset
            self._states[partition] = state
            self._dead[partition] = DeadSeen(state.dead, offset)
            self._window.restore(partition, offset, state)
            reader.seek({partition: offset})
            reader.resume([partition])

    def _make_room(self, reader: BatchReader) -> None:
        self.evict(self._covered)
        while self._window.size_bytes > self._bytes_max:
            sizes = self._window.bytes_by_partition()
            # Tiers own partitions in order, so the highest is among the least critical.
            least = max(partition for partition, size in enumerate(sizes) if size)
            log.error("the tail is full: partition %d is released", least)
            reader.pause([least])
            self._window.release(least)

    def _fail(self, error: K2Error) -> None:
        log.error("the tail stopped: %s", error.message, extra={"reason": error.reason})
        with self._moved:
            self._failure = error
            self._moved.notify_all()
