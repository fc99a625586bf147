"""The ops tables' writer: topics of few events → rows → the same commit as the trades'.

Each table's position is in its own snapshots. A writer reads from there, judges, and commits rows
and position together when the interval is over. Whatever fails on the way (the lake or the tape is
away, another writer was here), what is pending is let go and read again from where the lake is: the
one path that a crash takes as well, so there is no other to get right.

What contradicts the lake (the topic was made again, retention overtook the position) halts the one
table, by name and for all to see; trades go on. Once a person has ended the table's epoch
(`epoch_transition.py`), the next start goes on with the topic that is there.
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
from k2.lake.iceberg.tables import TableLayout
from k2.lake.ingest.event_rows import RowDecoder
from k2.lake.ingest.tape_check import check_tape, identity_of
from k2.lake.maintenance.maintenance_commit import no_exclusion
from k2.market.fold import FoldState
from k2.tape.ports import BatchReader
from k2.tape.topics import TopicDescription

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EventOffsets:
    """Both ends of one table's way.

    Attributes:
        facts: what the cluster says of the topic now.
        epoch: of the tape that the table is in with it, begun now where the last one has ended.
        read_from: makes a reader of the topic from an offset.
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
    """What was done for a table since the start; a value, replaced at each change.

    Attributes:
        rows, commits: committed.
        failures: times that what was pending was let go.
        halted: why nothing is written any more, for a person; empty while all is well.
    """

    rows: int = 0
    commits: int = 0
    failures: int = 0
    halted: str = ""


@dataclass
class _Slice:
    """What was read since the last commit."""

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
    """Writes one ops table. One thread; `stats` may be read by any."""

    def __init__(self, ends: EventOffsets, interval_s: float, clock: Clock) -> None:
        self._ends = ends
        self._interval_s = interval_s
        self._clock = clock
        self._identity: TapeIdentity | None = None
        self._committer: Committer | None = None
        self._slice: _Slice | None = None
        self._retry_at_s = 0.0
        self._backoff_s = limits.COMMIT_RETRY_MIN_S
        self._stats = OpsStats()

    @property
    def layout(self) -> TableLayout:
        """Of the table."""
        return self._ends.decoder.layout

    @property
    def stats(self) -> OpsStats:
        """What was done so far."""
        return self._stats

    @contextmanager
    def excluded(self) -> Iterator[Callable[[Table], None]]:
        """Keep it from committing meanwhile; see `Committer.excluded`. Any thread may."""
        committer = self._committer  # one that is made meanwhile looks at the head itself
        with committer.excluded() if committer else no_exclusion() as tell:
            yield tell

    def step(self) -> int:
        """Read once, and commit when it is due; how many records were read."""
        if self._stats.halted or self._clock.monotonic_s() < self._retry_at_s:
            return 0
        try:
            one = self._slice = self._slice or self._open()
            count = self._read(one)
            if self._due(one):
                self._commit(one)
        except (Unavailable, Overloaded, NotFound) as error:  # a topic may be made yet
            self._let_go(error)
            return 0
        except Data as error:
            self._halt(error)
            return 0
        return count

    def close(self) -> None:
        """Commit what is there, once: what does not arrive is read again by the next writer."""
        one = self._slice
        try:
            if one is not None and one.end > one.start:
                self._commit(one)
        except K2Error as error:
            _log.warning("%s: not committed: %s", self._name, error.message)
        self._drop()

    # --- steps -----------------------------------------------------------------------------------

    def _open(self) -> _Slice:
        """Where the lake is, and a reader from there."""
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

    def _read(self, one: _Slice) -> int:
        count = 0
        for batch in one.reader.read(limits.OPS_READ_RECORDS, 0.0):
            taken = self._ends.decoder.decode(batch, one.state)
            one.state, one.end = taken.state, batch.next_offset
            if len(taken.rows):
                one.rows.append(taken.rows)
            one.since_s = self._clock.monotonic_s() if one.since_s is None else one.since_s
            count += len(batch)
        return count

    def _due(self, one: _Slice) -> bool:
        if one.since_s is None:
            return False
        rows, size = one.size
        late = self._clock.monotonic_s() - one.since_s >= self._interval_s
        return late or rows >= limits.OPS_ROWS_MAX or size >= limits.OPS_BYTES_MAX

    def _commit(self, one: _Slice) -> None:
        assert self._committer is not None, "a slice was opened with a committer"
        batch = PartitionBatch(0, one.start, one.end, tuple(one.rows), one.state)
        outcome = self._committer.commit([batch])
        self._backoff_s = limits.COMMIT_RETRY_MIN_S
        if outcome.fenced:
            raise _overtaken()
        stats = self._stats
        self._stats = replace(stats, rows=stats.rows + outcome.rows, commits=stats.commits + 1)
        epoch = outcome.snapshot.positions.epoch
        state = self._ends.decoder.start(outcome.states[0], self._ends.view(), epoch)
        self._slice = _Slice(one.reader, one.end, one.end, state)

    # --- failures --------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return self.layout.name

    def _let_go(self, error: K2Error) -> None:
        _log.warning("%s: %s", self._name, error.message, extra={"reason": error.reason.value})
        self._drop()
        self._stats = replace(self._stats, failures=self._stats.failures + 1)
        self._retry_at_s = self._clock.monotonic_s() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, limits.COMMIT_RETRY_MAX_S)

    def _halt(self, error: Data) -> None:
        _log.error("%s is halted: %s", self._name, error.message)
        self._drop()
        self._stats = replace(self._stats, halted=f"{error.reason.value}: {error.message}")

    def _drop(self) -> None:
        if self._slice is not None:
            self._slice.reader.close()
        self._slice = None


def _overtaken() -> Unavailable:
    return Unavailable(Reason.LAKE_UNAVAILABLE, "another writer was here: reading again from it")


def run_ops(writers: Sequence[OpsWriter], stopping: threading.Event) -> None:
    """Write these tables until `stopping` is set, then commit what is there; one thread for all."""
    try:
        while not stopping.is_set():
            if sum([writer.step() for writer in writers]) < limits.OPS_READ_RECORDS:
                stopping.wait(limits.OPS_PACE_S)
    finally:
        for writer in writers:
            writer.close()
