"""The lake writer's loop: tape → columns → fold → one commit, over and over.

1. On assignment read positions and fold state from the lake's newest snapshot, and refuse, by name,
   a tape that does not fit them.
2. Consume a batch per partition; decode and check it as columns, with a fault per bad record.
3. Fold it: accepted, duplicate or dead. Dead letters are acknowledged before anything goes on. A
   partition whose next record cannot be judged now waits alone; all others go on.
4. and 5. When time or bytes say so, write the accepted rows and commit them with the new positions,
   counters and fold state (`committer.py`): of each partition as many offsets as keep the rows
   within `limits.COMMIT_DAYS_MAX` days, since each day is a file; the rest follows at once.
6. Only then tell the consumer group, which nobody relies on.

What is in memory is never needed: a writer that dies loses nothing, because the next one starts
from the lake. What another writer committed meanwhile is dropped, and read again from where it is.
Whatever passes (the lake or the tape is away, the disk is full) is tried again for ever, with
reading paused once the memory bound is reached.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeVar

import numpy as np

from k2 import limits
from k2.clock import Clock
from k2.errors import Data, K2Error, NotFound, Overloaded, Unavailable
from k2.lake.commit.committer import Base, Committer, Outcome, PartitionBatch
from k2.lake.commit.trade_files import rows_within_days
from k2.lake.ingest.tape_check import WriterTape, check_tape, letters_of
from k2.market.events import DAY_US, TradeColumns
from k2.market.fold import FoldState
from k2.market.offsets import OffsetVector
from k2.settings import LakeSettings
from k2.tape.acceptance import Acceptance
from k2.tape.consumer import RawBatch
from k2.tape.ports import BatchReader
from k2.tape.topics import TopicDescription
from k2.tape.truncation_check import mark_of

T = TypeVar("T")
_NOWHERE = OffsetVector(0, ())

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PumpStats:
    """What a writer has done since it started; a value, replaced at each change.

    Attributes:
        commits, rows: committed by this writer.
        duplicates, dead: of all partitions at the newest snapshot, since the epoch began.
        fenced: pieces that another writer had committed first.
        failures: commits that did not reach the lake.
        commit_latency_s: of the last commit.
        positions: of the newest snapshot this writer saw.
        snapshot_id, committed_at_us: the same.
        pending_rows: accepted and not yet committed.
        oldest_pending_s: monotonic second when the oldest record not yet committed was read;
            None when there is none.
        behind_since_s: monotonic second since when reads have come back full; None when caught up.
        waiting: partitions whose next record cannot be judged now, and why not.
    """

    commits: int = 0
    rows: int = 0
    duplicates: int = 0
    dead: int = 0
    fenced: int = 0
    failures: int = 0
    commit_latency_s: float = 0.0
    positions: OffsetVector | None = None
    snapshot_id: int | None = None
    committed_at_us: int | None = None
    pending_rows: int = 0
    oldest_pending_s: float | None = None
    behind_since_s: float | None = None
    waiting: Mapping[int, str] = field(default_factory=dict)

    def lag_s(self, now_s: float) -> float:
        """Age of the oldest record that is not committed, as far as this writer can tell."""
        since = [at for at in (self.oldest_pending_s, self.behind_since_s) if at is not None]
        return now_s - min(since) if since else 0.0


class PauseReason(Enum):
    """Why a partition is not read; it is read again when no reason is left."""

    MEMORY = "memory"  # commits fail, and the bound on what is held is reached
    WAITING = "waiting"  # records are left to be judged in a later step, or when a part is back


@dataclass(frozen=True)
class _Taken:
    """Consecutive judged records of one partition.

    Attributes:
        end: the offset after them.
        state: what the fold remembers there.
        accepted: those that are rows.
        last: the value of the last one.
        days: event days of the rows.
    """

    end: int
    state: FoldState
    accepted: TradeColumns
    last: bytes | None
    days: frozenset[int]


@dataclass
class _Slice:
    """What was read of one partition since its last commit."""

    start: int
    state: FoldState  # at `end`
    end: int = 0
    taken: list[_Taken] = field(default_factory=list)
    unjudged: deque[RawBatch] = field(default_factory=deque)
    retry_at_s: float = 0.0
    passed_over: int = 0  # commits in a row that had no room for it
    waits_for: str = ""
    rows: int = 0
    bytes: int = 0

    def __post_init__(self) -> None:
        self.end = self.start

    @property
    def read_to(self) -> int:
        """The offset after all that was read."""
        return self.unjudged[-1].next_offset if self.unjudged else self.end

    def add(self, taken: _Taken) -> None:
        self.taken.append(taken)
        self.end, self.state = taken.end, taken.state
        self.rows += len(taken.accepted)
        self.bytes += _size(taken.accepted)

    def committed(self, position: int) -> None:
        """Drop what the lake holds now, below the end of what was taken once."""
        self.start = position
        self.taken = [taken for taken in self.taken if taken.end > position]
        self.rows = sum(len(taken.accepted) for taken in self.taken)
        self.bytes = sum(_size(taken.accepted) for taken in self.taken)


class LakeWriter:
    """Runs the loop. One thread; `stats` may be read by any."""

    def __init__(
        self,
        *,
        tape: WriterTape,
        committer: Committer,
        settings: LakeSettings,
        clock: Clock,
        stopping: threading.Event,
    ) -> None:
        self._tape = tape
        self._committer = committer
        self._settings = settings
        self._clock = clock
        self._stopping = stopping
        self._acceptance = Acceptance(tape.decoder, tape.placement, clock)
        self._slices: dict[int, _Slice] = {}
        self._paused: dict[int, set[PauseReason]] = {}
        self._left = False  # the last commit did not take all that was judged
        self._retry_at_s = 0.0
        self._backoff_s = limits.COMMIT_RETRY_MIN_S
        self._reader: BatchReader = tape.join(self._assigned, self._revoked)
        self._stats = PumpStats()

    @property
    def stats(self) -> PumpStats:
        """What was done so far."""
        return self._stats

    def run(self) -> None:
        """Pump until `stopping` is set, then commit what is there and let the partitions go.

        Raises:
            Data: the tape and the lake contradict each other, or the topic is another than at the
                start; see the reasons of `check_tape`.
        """
        try:
            while not self._stopping.is_set():
                if self.step() < limits.WRITER_SMALL_READ and not self._may_judge():
                    self._stopping.wait(limits.WRITER_PACE_S)
        finally:
            self._drain()
            self._reader.close()

    def step(self) -> int:
        """Read once, and commit when it is due; how many records were read."""
        self._hold_or_go_on()
        count = 0
        for batch in self._read():
            count += len(batch.values)
            self._enqueue(batch)
        for partition in list(self._slices):
            self._take_all(partition)
        self._note_reading(count)
        if self._due():
            self.commit()
        return count

    def commit(self) -> bool:
        """Commit what is pending; whether that, or as much as a commit takes, is in the lake."""
        batch = self._due_pieces()
        if not batch:
            return True
        self._assert_same_topic()
        began_s = self._clock.monotonic_s()
        try:
            outcome = self._committer.commit(batch)
        except (Unavailable, Overloaded) as error:
            self._not_committed(error)
            return False
        except (K2Error, OSError, MemoryError):
            raise
        except Exception as error:  # a defect: the records that show it are set aside
            if not self._set_aside(batch, error):
                raise
            return False
        self._backoff_s = limits.COMMIT_RETRY_MIN_S
        self._retry_at_s = 0.0
        self._settle(batch, outcome, self._clock.monotonic_s() - began_s)
        return True

    def _due_pieces(self) -> list[PartitionBatch]:
        """Per partition the longest prefix with which the commit keeps within its days.

        Partitions that were passed over come first: rows of ever new days on one of them do not
        keep the others from their commit.
        """
        days: set[int] = set()
        pieces = []
        waiting = [(each, held) for each, held in self._slices.items() if held.taken]
        for partition, held in sorted(waiting, key=lambda each: -each[1].passed_over):
            chosen = []
            for taken in held.taken:
                if len(days | taken.days) > limits.COMMIT_DAYS_MAX:
                    break
                days |= taken.days
                chosen.append(taken)
            held.passed_over = 0 if chosen else held.passed_over + 1
            if chosen:
                rows = tuple(taken.accepted for taken in chosen if len(taken.accepted))
                last = chosen[-1]
                mark = mark_of(last.last)
                pieces.append(
                    PartitionBatch(partition, held.start, last.end, rows, last.state, mark)
                )
        return pieces

    def _not_committed(self, error: K2Error) -> None:
        _log.warning("not committed: %s", error.message, extra={"reason": error.reason.value})
        self._stats = replace(self._stats, failures=self._stats.failures + 1)
        self._retry_at_s = self._clock.monotonic_s() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, limits.COMMIT_RETRY_MAX_S)

    def _set_aside(self, batch: list[PartitionBatch], error: Exception) -> bool:
        """Read again, as faults of K2's own, the records that cannot become files.

        Returns:
            Whether there are any; what fails without them is no record's fault.
        """
        found = self._committer.unwritable(batch)
        base = self._at_last(self._committer.base) if found else None
        if base is None:
            return self._stopping.is_set()
        positions, states, _ = base
        for partition, offsets in found.items():
            self._acceptance.set_aside(partition, offsets, error)
            state = states.get(partition, FoldState())
            self._slices[partition] = _Slice(positions[partition], state)
            self._reader.seek({partition: positions[partition]})
        self._note_dropped()
        return True

    # --- assignment ------------------------------------------------------------------------------

    def _assigned(self, partitions: list[int]) -> Mapping[int, int]:
        """Step 1: where to read each partition from."""
        known = self._at_last(self._lake_and_tape)
        if known is None:
            return {}
        (positions, states, snapshot), facts = known
        check_tape(facts, self._tape.identity, positions, partitions)
        for partition in partitions:
            self._paused.pop(partition, None)
            state = states.get(partition, FoldState())
            self._slices[partition] = _Slice(positions[partition], state)
        self._stats = replace(
            self._stats,
            positions=positions,
            snapshot_id=snapshot.snapshot_id if snapshot else None,
            committed_at_us=snapshot.committed_at_us if snapshot else None,
        )
        _log.info("assigned", extra={"partitions": partitions, "positions": positions.encode()})
        return {partition: positions[partition] for partition in partitions}

    def _lake_and_tape(self) -> tuple[Base, TopicDescription]:
        """Where the lake stands, and what the tape is at that same moment.

        Another writer may commit, and retention follow it, between the two looks; then what they
        say does not belong together, and both are looked at again.
        """
        base = self._committer.base()
        while True:
            facts = self._tape.facts()
            again = self._committer.base()
            if again[0] == base[0]:
                return again, facts
            base = again

    def _revoked(self, partitions: list[int]) -> None:
        """Who gets them next starts from the lake; what is pending here is theirs to read."""
        for partition in partitions:
            self._slices.pop(partition, None)
            self._paused.pop(partition, None)
        self._note_dropped()

    def _note_dropped(self) -> None:
        """Owe no commit when all that was judged was dropped."""
        if not any(held.taken for held in self._slices.values()):
            self._left = False
            self._stats = replace(self._stats, pending_rows=0, oldest_pending_s=None)

    # --- reading ---------------------------------------------------------------------------------

    def _read(self) -> list[RawBatch]:
        """The next records; a position that was lost with its topic is refused by that name."""
        timeout_s = 0.0 if self._may_judge() else limits.WRITER_READ_TIMEOUT_S
        try:
            return self._reader.read(limits.CONSUME_BATCH_RECORDS, timeout_s)
        except Data:
            self._assert_same_topic()
            raise

    def _enqueue(self, batch: RawBatch) -> None:
        held = self._slices.get(batch.partition)
        if held is None or batch.next_offset <= held.read_to:
            return  # no longer ours, or read before a seek
        held.unjudged.append(batch.from_offset(held.read_to))

    def _may_judge(self) -> bool:
        """Whether records that were read can be judged without waiting for anything."""
        now_s = self._clock.monotonic_s()
        return any(held.unjudged and now_s >= held.retry_at_s for held in self._slices.values())

    def _take_all(self, partition: int) -> None:
        """Judge what was read of a partition, up to a record that has to wait for a step or more.

        The partition is not read meanwhile, so that what is held of it stays bounded.
        """
        held = self._slices[partition]
        if held.unjudged and self._clock.monotonic_s() < held.retry_at_s:
            return
        try:
            while held.unjudged and not self._stopping.is_set():
                if not self._take(held, held.unjudged[0]):
                    break
            held.waits_for = ""
        except Unavailable as error:
            if not held.waits_for:
                where = {"reason": error.reason.value, "partition": partition}
                _log.warning("waiting: %s", error.message, extra=where)
            held.waits_for = error.message
            held.retry_at_s = self._clock.monotonic_s() + limits.COMMIT_RETRY_MIN_S
        if held.unjudged:
            self._pause(PauseReason.WAITING, [partition])
        else:
            self._resume(PauseReason.WAITING, [partition])

    def _take(self, held: _Slice, batch: RawBatch) -> bool:
        """Steps 2 and 3: decode, check, fold; dead letters out. Takes as much as one commit may.

        Returns:
            Whether what follows may be judged at once; else other partitions take their turn first.
        """
        judged = self._acceptance.judge(batch, held.state)
        at_once = judged.rest is None
        accepted = judged.accepted()
        within = rows_within_days(accepted, limits.COMMIT_DAYS_MAX)
        if within < len(accepted):  # judged again, as far as one commit may take
            fit = int(np.searchsorted(judged.batch.offset, accepted.offset[within]))
            judged = self._acceptance.judge(judged.batch.between(0, fit), held.state)
            accepted = judged.accepted()
        letters = letters_of(judged, self._tape.identity, self._clock.now_us())
        if letters:
            self._tape.letters.publish(letters, limits.DEAD_LETTER_WAIT_S)
        days = frozenset(np.unique(accepted.event_time // DAY_US).tolist())
        part = judged.batch
        held.add(_Taken(part.next_offset, judged.state, accepted, part.values[-1], days))
        if self._stats.oldest_pending_s is None:
            self._stats = replace(self._stats, oldest_pending_s=self._clock.monotonic_s())
        if part.next_offset < batch.next_offset:
            held.unjudged[0] = batch.from_offset(part.next_offset)
        else:
            held.unjudged.popleft()
        return at_once

    def _at_last(self, attempt: Callable[[], T]) -> T | None:
        """What `attempt` returns, tried until what is away is back; None when the pump stops."""
        while not self._stopping.is_set():
            try:
                return attempt()
            except Unavailable as error:
                _log.warning("waiting: %s", error.message, extra={"reason": error.reason.value})
                self._stopping.wait(limits.COMMIT_RETRY_MIN_S)
        return None

    def _hold_or_go_on(self) -> None:
        """Stop reading at the memory bound, which is reached only while commits fail."""
        rows, size = self._pending()
        if rows >= 2 * limits.COMMIT_ROWS_MAX or size >= 2 * self._settings.commit_bytes_max:
            self._pause(PauseReason.MEMORY, self._slices)
        else:
            self._resume(PauseReason.MEMORY, self._slices)

    def _pause(self, reason: PauseReason, partitions: Iterable[int]) -> None:
        """Stop reading partitions for a reason."""
        reasons = [self._paused.setdefault(partition, set()) for partition in partitions]
        stopping = [p for p, of in zip(partitions, reasons, strict=True) if not of]
        for of in reasons:
            of.add(reason)
        if stopping:
            self._reader.pause(stopping)

    def _resume(self, reason: PauseReason, partitions: Iterable[int]) -> None:
        """Drop a reason; read those partitions again that are left without one."""
        going_on = []
        for partition in partitions:
            reasons = self._paused.get(partition, set())
            if reason in reasons:
                reasons.discard(reason)
                if not reasons:
                    going_on.append(partition)
        if going_on:
            self._reader.resume(going_on)

    def _pending(self) -> tuple[int, int]:
        """Rows and bytes held."""
        held = self._slices.values()
        return sum(one.rows for one in held), sum(one.bytes for one in held)

    def _note_reading(self, count: int) -> None:
        stats = self._stats
        behind = None
        if count >= limits.WRITER_SMALL_READ:
            behind = stats.behind_since_s or self._clock.monotonic_s()
        rows, _ = self._pending()
        waiting = {p: held.waits_for for p, held in self._slices.items() if held.waits_for}
        now = replace(stats, behind_since_s=behind, pending_rows=rows, waiting=waiting)
        if now != stats:
            self._stats = now

    # --- committing ------------------------------------------------------------------------------

    def _due(self) -> bool:
        now_s = self._clock.monotonic_s()
        oldest_s = self._stats.oldest_pending_s
        if oldest_s is None or now_s < self._retry_at_s:
            return False
        rows, size = self._pending()
        return (
            self._left
            or now_s - oldest_s >= self._settings.commit_interval_s
            or rows >= limits.COMMIT_ROWS_MAX
            or size >= self._settings.commit_bytes_max
        )

    def _settle(self, batch: Iterable[PartitionBatch], outcome: Outcome, latency_s: float) -> None:
        """Step 6: go on from what the lake says now."""
        positions = outcome.snapshot.positions
        before = self._stats
        fenced = {}
        for piece in batch:
            partition, held = piece.partition, self._slices[piece.partition]
            state = outcome.states.get(partition, FoldState())
            if state is piece.state:
                held.committed(piece.end)
                continue
            self._slices[partition] = _Slice(positions[partition], state)
            if held.end == positions[partition]:
                self._slices[partition].unjudged = held.unjudged
            else:
                fenced[partition] = positions[partition]
        self._left = any(held.taken for held in self._slices.values())
        if fenced:
            _log.warning("another writer was here", extra={"positions": positions.encode()})
            self._reader.seek(fenced)
        self._reader.report({p: positions[p] for p in self._slices})
        self._stats = replace(
            before,
            commits=before.commits + bool(outcome.landed),
            rows=before.rows + outcome.rows,
            duplicates=sum(state.duplicate for state in outcome.states.values()),
            dead=sum(state.dead for state in outcome.states.values()),
            fenced=before.fenced + len(fenced),
            commit_latency_s=latency_s,
            positions=positions,
            snapshot_id=outcome.snapshot.snapshot_id,
            committed_at_us=outcome.snapshot.committed_at_us,
            pending_rows=self._pending()[0],
            oldest_pending_s=before.oldest_pending_s if self._left else None,
        )

    def _assert_same_topic(self) -> None:
        """Commit nothing of a topic that was made again: a reader goes on there at its offsets.

        The id is asked for after the records were read, so any of another topic shows by now.

        Raises:
            Data: see `check_tape`.
        """
        try:
            facts = self._tape.facts()
        except (Unavailable, NotFound):
            return  # while it cannot be asked, nothing is read
        check_tape(facts, self._tape.identity, self._stats.positions or _NOWHERE, ())

    def _drain(self) -> None:
        """Commit what is there; give up after `limits.DRAIN_S`, nothing is lost by it."""
        until_s = self._clock.monotonic_s() + limits.DRAIN_S
        while self._clock.monotonic_s() < until_s:
            if not self.commit():
                self._clock.sleep(limits.COMMIT_RETRY_MIN_S)
            elif not self._left:
                return


def _size(columns: TradeColumns) -> int:
    """Bytes that the rows take in memory, about."""
    beside = (columns.vendor_data, columns.optional)
    size = sum(int(one.nbytes) for one in beside if one is not None)
    return len(columns) * limits.ROW_BYTES + size
