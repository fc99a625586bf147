"""The lake writer's loop: tape → columns → fold → one commit, over and over.

1. On assignment read positions and fold state from the lake's newest snapshot, and refuse, by name,
   a tape that does not fit them.
2. Consume a batch per partition; decode and check it as columns, with a fault per bad record.
3. Fold it: accepted, duplicate or dead. Dead letters are acknowledged before anything goes on.
4. and 5. When time or bytes say so, write the accepted rows and commit them with the new positions,
   counters and fold state (`commit.py`).
6. Only then tell the consumer group, which nobody relies on.

What is in memory is never needed: a writer that dies loses nothing, because the next one starts
from the lake. What another writer committed meanwhile is dropped, and read again from where it is.
Whatever passes (the lake or the tape is away, the disk is full) is tried again for ever, with
reading paused once the memory bound is reached.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from k2 import limits
from k2.clock import Clock
from k2.errors import Data, NotFound, Overloaded, Unavailable
from k2.lake.commit import Base, Committer, Outcome, PartitionBatch
from k2.lake.intake import Reader, TapeEnd, check_tape, from_offset, judge, letters_of
from k2.market.events import TradeColumns
from k2.market.fold import FoldState, Verdict
from k2.market.offsets import OffsetVector
from k2.settings import LakeSettings
from k2.tape.consumer import RawBatch
from k2.tape.dead_letters import DeadLetter
from k2.tape.marks import mark_of
from k2.tape.topics import TapeFacts

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

    def lag_s(self, now_s: float) -> float:
        """Age of the oldest record that is not committed, as far as this writer can tell."""
        since = [at for at in (self.oldest_pending_s, self.behind_since_s) if at is not None]
        return now_s - min(since) if since else 0.0


@dataclass
class _Slice:
    """What was read of one partition since its last commit."""

    start: int
    state: FoldState
    end: int = 0
    last: bytes | None = None
    accepted: list[TradeColumns] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0

    def __post_init__(self) -> None:
        self.end = self.start

    def add(self, end: int, state: FoldState, accepted: TradeColumns) -> None:
        self.end, self.state = end, state
        if len(accepted):
            self.accepted.append(accepted)
            self.rows += len(accepted)
            self.bytes += _size(accepted)


class Pump:
    """Runs the loop. One thread; `stats` may be read by any."""

    def __init__(
        self,
        *,
        tape: TapeEnd,
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
        self._slices: dict[int, _Slice] = {}
        self._paused = False
        self._retry_at_s = 0.0
        self._backoff_s = limits.COMMIT_RETRY_MIN_S
        self._reader: Reader = tape.join(self._assigned, self._revoked)
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
                if self.step() < limits.WRITER_SMALL_READ:
                    self._stopping.wait(limits.WRITER_PACE_S)
        finally:
            self._drain()
            self._reader.close()

    def step(self) -> int:
        """Read once, and commit when it is due; how many records were read."""
        self._hold_or_go_on()
        batches = self._read()
        count = 0
        for batch in batches:
            count += len(batch.values)
            self._take(batch)
        self._note_reading(count)
        if self._due():
            self.commit()
        return count

    def commit(self) -> bool:
        """Commit what is pending; whether nothing is pending any more."""
        batch = [
            PartitionBatch(
                partition, one.start, one.end, tuple(one.accepted), one.state, mark_of(one.last)
            )
            for partition, one in self._slices.items()
            if one.end > one.start
        ]
        if not batch:
            return True
        self._assert_same_topic()
        began_s = self._clock.monotonic_s()
        try:
            outcome = self._committer.commit(batch)
        except (Unavailable, Overloaded) as error:
            _log.warning("not committed: %s", error.message, extra={"reason": error.reason.value})
            self._stats = replace(self._stats, failures=self._stats.failures + 1)
            self._retry_at_s = self._clock.monotonic_s() + self._backoff_s
            self._backoff_s = min(2 * self._backoff_s, limits.COMMIT_RETRY_MAX_S)
            return False
        self._backoff_s = limits.COMMIT_RETRY_MIN_S
        self._retry_at_s = 0.0
        self._settle(outcome, self._clock.monotonic_s() - began_s)
        return True

    # --- assignment ------------------------------------------------------------------------------

    def _assigned(self, partitions: list[int]) -> Mapping[int, int]:
        """Step 1: where to read each partition from."""
        known = self._at_last(self._lake_and_tape)
        if known is None:
            return {}
        (positions, states, snapshot), facts = known
        check_tape(facts, self._tape.identity, positions, partitions)
        self._paused = False
        for partition in partitions:
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

    def _lake_and_tape(self) -> tuple[Base, TapeFacts]:
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

    # --- reading ---------------------------------------------------------------------------------

    def _read(self) -> list[RawBatch]:
        """The next records; a position that was lost with its topic is refused by that name."""
        try:
            return self._reader.read(limits.CONSUME_BATCH_RECORDS, limits.WRITER_READ_TIMEOUT_S)
        except Data:
            self._assert_same_topic()
            raise

    def _take(self, batch: RawBatch) -> None:
        """Steps 2 and 3: decode, check, fold; dead letters out."""
        one = self._slices.get(batch.partition)
        if one is None or batch.next_offset <= one.end:
            return  # no longer ours, or read before a seek
        batch = from_offset(batch, one.end)
        tape, state = self._tape, one.state
        judged = self._at_last(lambda: judge(batch, state, tape.decoder, tape.placement))
        if judged is None:
            return  # stopping: the next writer reads it again
        letters = letters_of(batch, judged, tape.identity, self._clock.now_us())
        if letters and self._at_last(lambda: self._published(letters)) is None:
            return
        accepted = judged.verdicts == Verdict.ACCEPTED
        columns = judged.columns if accepted.all() else judged.columns.take(accepted)
        one.add(batch.next_offset, judged.state, columns)
        one.last = batch.values[-1]
        if self._stats.oldest_pending_s is None:
            self._stats = replace(self._stats, oldest_pending_s=self._clock.monotonic_s())

    def _published(self, letters: list[DeadLetter]) -> bool:
        self._tape.letters.publish(letters, limits.DEAD_LETTER_WAIT_S)
        return True

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
        full = rows >= 2 * limits.COMMIT_ROWS_MAX or size >= 2 * self._settings.commit_bytes_max
        if full and not self._paused:
            self._reader.pause(self._slices)
        elif self._paused and not full:
            self._reader.resume(self._slices)
        self._paused = full

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
        if (behind, rows) != (stats.behind_since_s, stats.pending_rows):
            self._stats = replace(stats, behind_since_s=behind, pending_rows=rows)

    # --- committing ------------------------------------------------------------------------------

    def _due(self) -> bool:
        now_s = self._clock.monotonic_s()
        oldest_s = self._stats.oldest_pending_s
        if oldest_s is None or now_s < self._retry_at_s:
            return False
        rows, size = self._pending()
        return (
            now_s - oldest_s >= self._settings.commit_interval_s
            or rows >= limits.COMMIT_ROWS_MAX
            or size >= self._settings.commit_bytes_max
        )

    def _settle(self, outcome: Outcome, latency_s: float) -> None:
        """Step 6, and a fresh start of every partition from what the lake says now."""
        positions = outcome.snapshot.positions
        before = self._stats
        for partition in outcome.landed | outcome.fenced:
            state = outcome.states.get(partition, FoldState())
            self._slices[partition] = _Slice(positions[partition], state)
        fenced = {partition: positions[partition] for partition in outcome.fenced}
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
            pending_rows=0,
            oldest_pending_s=None,
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
        while not self.commit() and self._clock.monotonic_s() < until_s:
            self._clock.sleep(limits.COMMIT_RETRY_MIN_S)


def _size(columns: TradeColumns) -> int:
    """Bytes that the rows take in memory, about."""
    beside = (columns.vendor_data, columns.optional)
    size = sum(int(one.nbytes) for one in beside if one is not None)
    return len(columns) * limits.ROW_BYTES + size
