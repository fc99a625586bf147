"""The lake writer's loop: tape → columns → fold → one commit.

1. On assignment, read positions and fold state from the lake's newest snapshot, and refuse, by
   name, a tape that does not fit them.
2. Pause and resume partitions as the level and priorities say (`reading_order.py`), and read a
   batch per partition; decode and check it as columns, with a fault per bad record
   (`trade_reader.py`, as step 3). The position of a paused partition stands still.
3. Fold it: accepted, duplicate or dead. Dead letters are acknowledged before their records are
   committed. A partition whose next record cannot be judged now waits alone; all others go on.
4. When time or bytes say so, write the accepted rows to files: of each partition as many offsets as
   keep the rows within `limits.COMMIT_DAYS_MAX` days, since each day is a file. The rest follows at
   once.
5. Commit the files with the new positions, counters and fold state (`committer.py`).
6. Then report the positions to the consumer group; nothing in K2 reads them.

Memory holds nothing that a restart needs: a writer that dies loses nothing, because the next one
starts from the lake. Records that another writer committed meanwhile are dropped, and reading goes
on from its positions. Transient failures (the lake or the tape is away, the disk is full) are
retried without end, with reading paused once the memory bound is reached.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from k2 import limits, tracing
from k2.clock import Clock
from k2.degrade.policy import commit_scale
from k2.errors import Data, K2Error, NotFound, Overloaded, Unavailable
from k2.lake.commit.committer import Base, Committer, Outcome, PartitionBatch
from k2.lake.ingest.quality import SKIPPED, note_quality
from k2.lake.ingest.reading_order import Backlog, Orders, ReadingOrder
from k2.lake.ingest.tape_check import WriterTape, check_tape
from k2.lake.ingest.throttle import Throttle
from k2.lake.ingest.trade_reader import PartitionSlice, TradeReader
from k2.market.events import TradeColumns
from k2.market.fold import FoldState
from k2.market.offsets import OffsetVector
from k2.metrics import histogram
from k2.settings import LakeSettings
from k2.tape.topics import TopicDescription
from k2.tape.truncation_check import mark_of

T = TypeVar("T")
_NOWHERE = OffsetVector(0, ())

_log = logging.getLogger(__name__)
_COMMIT_SECONDS = histogram("k2_lake_commit_seconds", "Time of a commit of trades.")


@dataclass(frozen=True)
class WriterStats:
    """Counters and state of a writer since its start; a value, replaced at each change.

    Attributes:
        commits, rows: committed by this writer.
        duplicates, dead: of all partitions at the newest snapshot, since the epoch began.
        fenced: pieces that another writer had committed first.
        failures: commits that did not reach the lake.
        commit_latency_s: of the last commit.
        positions: of the newest snapshot this writer saw.
        snapshot_id, committed_at_us: of the same snapshot.
        pending_rows: accepted and not yet committed.
        oldest_pending_s: monotonic second when the oldest record not yet committed was judged; None
            when there is none.
        behind_since_s: monotonic second when the oldest record was seen on the tape that is neither
            committed nor deferred; None when there is none.
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
        """Return the age of the oldest record that this writer knows is not committed."""
        since = [s for s in (self.oldest_pending_s, self.behind_since_s) if s is not None]
        return now_s - min(since) if since else 0.0


class LakeWriter:
    """Runs the loop. One thread; `stats`, replaced at each change, may be read by any."""

    def __init__(
        self,
        *,
        tape: WriterTape,
        committer: Committer,
        settings: LakeSettings,
        clock: Clock,
        stopping: threading.Event,
        orders: Orders | None = None,
    ) -> None:
        self._tape = tape
        self._committer = committer
        self._settings = settings
        self._clock = clock
        self._stopping = stopping
        self._left = False  # the last commit did not take all that was judged
        self._retry_at_s = 0.0
        self._backoff_s = limits.COMMIT_RETRY_MIN_S
        self._orders = orders or Orders()
        throttle = Throttle(settings.rows_per_s_max, clock)
        self._order = ReadingOrder(tape, self._orders, clock, throttle)
        self._reading = TradeReader(
            tape,
            clock,
            stopping,
            settings.commit_bytes_max,
            order=self._order,
            reader=tape.join(self._assigned, self._revoked),
        )
        self.stats = WriterStats()

    @property
    def backlog(self) -> Backlog:
        """What the lake does not hold yet; any thread may read it."""
        return self._order.backlog

    def run(self) -> None:
        """Write until `stopping` is set, then commit what is pending and leave the group.

        Raises:
            Data: the tape and the lake contradict each other, or the topic is another than at the
                start; see the reasons of `check_tape`.
        """
        try:
            while not self._stopping.is_set():
                small = self.step() < limits.WRITER_SMALL_READ
                if small and not self._reading.may_judge():
                    self._stopping.wait(limits.WRITER_PACE_S)
        finally:
            self._drain()
            self._reading.reader.close()

    def step(self) -> int:
        """Read and judge once, and commit when it is due; returns how many records were read."""
        try:
            count = self._reading.poll()
        except Data:  # a position that was lost with its topic is refused by that name
            self._assert_same_topic()
            raise
        self._reading.judge()
        self._note_reading()
        if self._due():
            self.commit()
        return count

    def commit(self) -> bool:
        """Commit what is pending, or as much as one commit takes; returns whether it landed."""
        batch = self._due_batches()
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
        took_s = self._clock.monotonic_s() - began_s
        _COMMIT_SECONDS.observe(took_s, tracing.exemplar_of(outcome.snapshot.traceparents))
        self._settle(batch, outcome, took_s)
        self._enrich(batch, outcome)
        return True

    def _enrich(self, batch: list[PartitionBatch], outcome: Outcome) -> None:
        """Make the statistics of what was committed, where the level allows it."""
        if not self._orders.levels().policy.enriches:
            SKIPPED.inc()
            return
        landed = [one.accepted for one in batch if one.partition in outcome.landed]
        note_quality(rows for held in landed for rows in held if isinstance(rows, TradeColumns))

    def _due_batches(self) -> list[PartitionBatch]:
        """Take, of each partition, the longest prefix that keeps the commit within its days.

        Partitions that were passed over come first: rows of ever new days on one of them do not
        keep the others from their commit.
        """
        days: set[int] = set()
        batches = []
        judged = [(p, held) for p, held in self._reading.slices.items() if held.pieces]
        for partition, held in sorted(judged, key=lambda pair: -pair[1].passed_over):
            chosen = []
            for piece in held.pieces:
                if len(days | piece.days) > limits.COMMIT_DAYS_MAX:
                    break
                days |= piece.days
                chosen.append(piece)
            held.passed_over = 0 if chosen else held.passed_over + 1
            if chosen:
                rows = tuple(piece.accepted for piece in chosen if len(piece.accepted))
                last = chosen[-1]
                mark = mark_of(last.last)
                traces = tuple(trace for piece in chosen for trace in piece.traces)
                batches.append(
                    PartitionBatch(partition, held.start, last.end, rows, last.state, mark, traces)
                )
        return batches

    def _not_committed(self, error: K2Error) -> None:
        _log.warning("not committed: %s", error.message, extra={"reason": error.reason.value})
        self.stats = replace(self.stats, failures=self.stats.failures + 1)
        self._retry_at_s = self._clock.monotonic_s() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, limits.COMMIT_RETRY_MAX_S)

    def _set_aside(self, batch: list[PartitionBatch], error: Exception) -> bool:
        """Read again, as INTERNAL faults, the records that cannot become files.

        Returns:
            Whether there are any; an error that occurs without them is no record's fault.
        """
        unwritable = self._committer.unwritable(batch)
        base = self._retry_until_stopped(self._committer.base) if unwritable else None
        if base is None:
            return self._stopping.is_set()
        positions, states, _ = base
        for partition, offsets in unwritable.items():
            self._reading.acceptance.set_aside(partition, offsets, error)
            state = states.get(partition, FoldState())
            self._reading.rewind(partition, positions[partition], state)
        self._note_dropped()
        return True

    # --- assignment ------------------------------------------------------------------------------

    def _assigned(self, partitions: list[int]) -> Mapping[int, int]:
        """Step 1: return the offsets to read from."""
        known = self._retry_until_stopped(self._lake_and_tape)
        if known is None:
            return {}
        (positions, states, snapshot), facts = known
        check_tape(facts, self._tape.identity, positions, partitions)
        for partition in partitions:
            state = states.get(partition, FoldState())
            self._reading.start(partition, positions[partition], state)
        self.stats = replace(
            self.stats,
            positions=positions,
            snapshot_id=snapshot.snapshot_id if snapshot else None,
            committed_at_us=snapshot.committed_at_us if snapshot else None,
        )
        _log.info("assigned", extra={"partitions": partitions, "positions": positions.encode()})
        return {partition: positions[partition] for partition in partitions}

    def _lake_and_tape(self) -> tuple[Base, TopicDescription]:
        """Read the lake's positions and the topic's description as of one moment.

        Between the two reads another writer may commit, and retention follow it; then the two do
        not belong together, and both are read again.
        """
        base = self._committer.base()
        while True:
            facts = self._tape.facts()
            again = self._committer.base()
            if again[0] == base[0]:
                return again, facts
            base = again

    def _revoked(self, partitions: list[int]) -> None:
        """Drop what is pending of partitions; their next writer starts from the lake."""
        self._reading.drop(partitions)
        self._note_dropped()

    def _note_dropped(self) -> None:
        """Owe no commit when all judged records were dropped."""
        if not self._reading.has_judged():
            self._left = False
            self._reading.pending_since_s = None
            self.stats = replace(self.stats, pending_rows=0, oldest_pending_s=None)

    def _retry_until_stopped(self, attempt: Callable[[], T]) -> T | None:
        """Retry `attempt` until what is away is back; None when the writer stops."""
        while not self._stopping.is_set():
            try:
                return attempt()
            except Unavailable as error:
                _log.warning("waiting: %s", error.message, extra={"reason": error.reason.value})
                self._stopping.wait(limits.COMMIT_RETRY_MIN_S)
        return None

    def _behind_since_s(self) -> float | None:
        self._order.count(self._reading.slices)
        return min(self.backlog.since_s.values(), default=None)

    def _note_reading(self) -> None:
        stats, reading = self.stats, self._reading
        now = replace(
            stats,
            behind_since_s=self._behind_since_s(),
            pending_rows=reading.pending()[0],
            oldest_pending_s=reading.pending_since_s,
            waiting={p: held.waits_for for p, held in reading.slices.items() if held.waits_for},
        )
        if now != stats:
            self.stats = now

    # --- committing ------------------------------------------------------------------------------

    def _due(self) -> bool:
        now_s = self._clock.monotonic_s()
        oldest_s = self._reading.pending_since_s
        if oldest_s is None or now_s < self._retry_at_s:
            return False
        rows, size = self._reading.pending()
        levels = self._orders.levels()
        scale = commit_scale(levels.effective, 0.0 if levels.shadow else levels.pressure)
        return (
            self._left
            or now_s - oldest_s >= scale * self._settings.commit_interval_s
            or rows >= scale * limits.COMMIT_ROWS_MAX
            or size >= scale * self._settings.commit_bytes_max
        )

    def _settle(self, batch: Iterable[PartitionBatch], outcome: Outcome, latency_s: float) -> None:
        """Step 6: continue from the lake's newest snapshot."""
        positions = outcome.snapshot.positions
        reading, before = self._reading, self.stats
        fenced = 0
        for piece in batch:
            partition, held = piece.partition, reading.slices[piece.partition]
            state = outcome.states.get(partition, FoldState())
            if state is piece.state:
                held.committed(piece.end)
            elif held.end == positions[partition]:
                fresh = PartitionSlice(held.end, state, unjudged=held.unjudged)
                reading.slices[partition] = fresh
            else:
                reading.rewind(partition, positions[partition], state)
                fenced += 1
        self._left = reading.has_judged()
        if not self._left:
            reading.pending_since_s = None
        if fenced:
            _log.warning("another writer was here", extra={"positions": positions.encode()})
        reading.reader.report({partition: positions[partition] for partition in reading.slices})
        self.stats = replace(
            before,
            commits=before.commits + bool(outcome.landed),
            rows=before.rows + outcome.rows,
            duplicates=sum(state.duplicate for state in outcome.states.values()),
            dead=sum(state.dead for state in outcome.states.values()),
            fenced=before.fenced + fenced,
            commit_latency_s=latency_s,
            positions=positions,
            snapshot_id=outcome.snapshot.snapshot_id,
            committed_at_us=outcome.snapshot.committed_at_us,
            pending_rows=reading.pending()[0],
            oldest_pending_s=reading.pending_since_s,
            behind_since_s=self._behind_since_s(),
        )

    def _assert_same_topic(self) -> None:
        """Refuse to commit records of a recreated topic, where a reader goes on at the old offsets.

        The topic's id is read after the records, so the id of a recreated topic is seen by now.

        Raises:
            Data: as `check_tape` raises.
        """
        try:
            facts = self._tape.facts()
        except (Unavailable, NotFound):
            return  # while the topic cannot be described, nothing is read
        check_tape(facts, self._tape.identity, self.stats.positions or _NOWHERE, ())

    def _drain(self) -> None:
        """Commit what is pending; gives up after `limits.DRAIN_S`, which loses nothing."""
        until_s = self._clock.monotonic_s() + limits.DRAIN_S
        while self._clock.monotonic_s() < until_s:
            if not self.commit():
                self._clock.sleep(limits.COMMIT_RETRY_MIN_S)
            elif not self._left:
                return
