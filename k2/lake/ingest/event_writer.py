"""Writes the ops tables: topics of few events → rows → the same commit as the trades'.

Each table's position is in its own snapshots. A writer reads from there, judges, and commits rows
and position together once per interval. On any failure (the lake or the tape is away, another
writer committed), pending rows are dropped and read again from the lake's position: the path that a
crash takes as well, so it is the only one.

A contradiction with the lake (the topic was recreated, retention overtook the position) halts the
one table, by name and visibly; trades go on. Once an operator has ended the table's epoch
(`epoch_transition.py`), the next start goes on with the topic that exists.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pyarrow as pa
from pyiceberg.table import Table

from k2 import limits
from k2.clock import Clock
from k2.errors import Data, K2Error, NotFound, Overloaded, Reason, Unavailable
from k2.lake.commit.committer import Committer, PartitionBatch, TapeIdentity
from k2.lake.commit.event_files import OpsView
from k2.lake.ingest.event_rows import RowDecoder
from k2.lake.ingest.tape_check import check_tape, identity_of
from k2.lake.maintenance.maintenance_commit import no_exclusion
from k2.market.fold import FoldState
from k2.tape.ports import BatchReader
from k2.tape.topics import TopicDescription

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EventOffsets:
    """What one table's writer reads from and commits to.

    Attributes:
        facts: describes the topic now.
        epoch: begins or returns the table's tape epoch.
        read_from: opens a reader of the topic at an offset.
        committer: makes the committer of the table for a tape.
        view: the table's newest snapshot.
        decoder: makes the rows.
    """

    facts: Callable[[], TopicDescription]
    epoch: Callable[[], int]
    read_from: Callable[[int], BatchReader]
    committer: Callable[[TapeIdentity], Committer]
    view: Callable[[], OpsView | None]
    decoder: RowDecoder


@dataclass(frozen=True)
class OpsStats:
    """Counters of one table's writer since its start; a value, replaced at each change.

    Attributes:
        rows, commits: committed.
        failures: times that pending rows were dropped.
        halted: why nothing is written any more, for the operator; empty while all is well.
    """

    rows: int = 0
    commits: int = 0
    failures: int = 0
    halted: str = ""


@dataclass
class _Slice:
    """Records that were read since the last commit."""

    reader: BatchReader
    start: int
    end: int
    state: FoldState
    rows: list[pa.Table] = field(default_factory=list)
    since_s: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Rows and bytes held."""
        return sum(map(len, self.rows)), sum(rows.nbytes for rows in self.rows)


class OpsWriter:
    """Writes one ops table. One thread; `stats`, replaced at each change, may be read by any."""

    def __init__(self, ends: EventOffsets, interval_s: float, clock: Clock) -> None:
        self.layout = ends.decoder.layout
        self._ends = ends
        self._interval_s = interval_s
        self._clock = clock
        self._identity: TapeIdentity | None = None
        self._committer: Committer | None = None
        self._slice: _Slice | None = None
        self._retry_at_s = 0.0
        self._backoff_s = limits.COMMIT_RETRY_MIN_S
        self.stats = OpsStats()

    @contextmanager
    def excluded(self) -> Iterator[Callable[[Table], None]]:
        """Keep it from committing meanwhile; see `Committer.excluded`. Any thread may call it."""
        committer = self._committer  # a committer that is made meanwhile reads the head itself
        with committer.excluded() if committer else no_exclusion() as on_commit:
            yield on_commit

    def step(self) -> int:
        """Read once, and commit when it is due; returns how many records were read."""
        if self.stats.halted or self._clock.monotonic_s() < self._retry_at_s:
            return 0
        try:
            pending = self._slice = self._slice or self._open()
            count = self._read(pending)
            if self._due(pending):
                self._commit(pending)
        except (Unavailable, Overloaded, NotFound) as error:  # the topic may be made later
            self._drop_and_retry(error)
            return 0
        except Data as error:
            self._halt(error)
            return 0
        return count

    def close(self) -> None:
        """Commit what is pending, once: the next writer reads again what does not arrive."""
        pending = self._slice
        try:
            if pending is not None and pending.end > pending.start:
                self._commit(pending)
        except K2Error as error:
            _log.warning("%s: not committed: %s", self.layout.name, error.message)
        self._drop()

    # --- steps -----------------------------------------------------------------------------------

    def _open(self) -> _Slice:
        """Open a reader at the lake's position."""
        if self._identity is None or self._committer is None:
            self._identity = identity_of(self._ends.facts(), self._ends.epoch())
            self._committer = self._ends.committer(self._identity)
        positions, states, _ = self._committer.base()
        start = positions[0]
        view = self._ends.view()
        if view is not None and view.position != start:
            raise _overtaken()
        check_tape(self._ends.facts(), self._identity, positions, [0])
        reader = self._ends.read_from(start)
        state = states.get(0, FoldState())
        state = self._ends.decoder.start(state, view, self._identity.epoch)
        return _Slice(reader, start, start, state)

    def _read(self, pending: _Slice) -> int:
        count = 0
        for batch in pending.reader.read(limits.OPS_READ_RECORDS, 0.0):
            rows, pending.state = self._ends.decoder.decode(batch, pending.state)
            pending.end = batch.next_offset
            if len(rows):
                pending.rows.append(rows)
            if pending.since_s is None:
                pending.since_s = self._clock.monotonic_s()
            count += len(batch)
        return count

    def _due(self, pending: _Slice) -> bool:
        if pending.since_s is None:
            return False
        rows, size = pending.size
        late = self._clock.monotonic_s() - pending.since_s >= self._interval_s
        return late or rows >= limits.OPS_ROWS_MAX or size >= limits.OPS_BYTES_MAX

    def _commit(self, pending: _Slice) -> None:
        assert self._committer is not None, "a slice was opened with a committer"
        batch = PartitionBatch(0, pending.start, pending.end, tuple(pending.rows), pending.state)
        outcome = self._committer.commit([batch])
        self._backoff_s = limits.COMMIT_RETRY_MIN_S
        if outcome.fenced:
            raise _overtaken()
        stats = self.stats
        self.stats = replace(stats, rows=stats.rows + outcome.rows, commits=stats.commits + 1)
        epoch = outcome.snapshot.positions.epoch
        state = self._ends.decoder.start(outcome.states[0], self._ends.view(), epoch)
        self._slice = _Slice(pending.reader, pending.end, pending.end, state)

    # --- failures --------------------------------------------------------------------------------

    def _drop_and_retry(self, error: K2Error) -> None:
        _log.warning(
            "%s: %s", self.layout.name, error.message, extra={"reason": error.reason.value}
        )
        self._drop()
        self.stats = replace(self.stats, failures=self.stats.failures + 1)
        self._retry_at_s = self._clock.monotonic_s() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, limits.COMMIT_RETRY_MAX_S)

    def _halt(self, error: Data) -> None:
        _log.error("%s is halted: %s", self.layout.name, error.message)
        self._drop()
        self.stats = replace(self.stats, halted=f"{error.reason.value}: {error.message}")

    def _drop(self) -> None:
        if self._slice is not None:
            self._slice.reader.close()
        self._slice = None


def _overtaken() -> Unavailable:
    return Unavailable(Reason.LAKE_UNAVAILABLE, "another writer was here: reading again from it")


def run_ops(writers: Sequence[OpsWriter], stopping: threading.Event) -> None:
    """Write these tables in one thread until `stopping` is set, then commit what is pending."""
    try:
        while not stopping.is_set():
            if sum([writer.step() for writer in writers]) < limits.OPS_READ_RECORDS:
                stopping.wait(limits.OPS_PACE_S)
    finally:
        for writer in writers:
            writer.close()
