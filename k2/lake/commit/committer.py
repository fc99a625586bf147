"""The commit: rows, positions, counters and the fold's state change together or not at all.

A batch holds, per partition, records from one offset to another and what the fold made of them. The
lake's newest snapshot holds the offset up to which it has each partition. Exactly-once delivery is
one comparison, made against the very snapshot that the commit replaces:

* they meet → the batch is the next piece: commit it
* the lake is ahead → another writer committed these records: drop them (FENCED); the batch's owner
  goes on from the lake's positions and fold state

A commit is a compare-and-swap on the table's head, so no commit comes between the comparison and
the swap: when another commit comes first, ours is refused, and the comparison is made again with
the new head.

When it is unknown whether a commit landed (a lost reply, a timeout), the head is read again and our
commit id is looked up in its history before anything else. Files of a failed attempt are not
deleted here: they are orphans, which maintenance removes when no snapshot can name them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from k2 import tracing
from k2.clock import Clock
from k2.errors import Data, K2Error, Reason
from k2.lake.commit.snapshot_commit import TableCatalog, append, find_commit, load_ours
from k2.lake.commit.trade_files import (
    Part,
    assert_writable,
    parquet_schema,
    write_files,
    write_sorted,
)
from k2.lake.iceberg.catalog import reaching_lake, retry_conflicts, write_file
from k2.lake.iceberg.epochs import EpochHistory
from k2.lake.iceberg.snapshot import (
    CommitSummary,
    LakeSnapshot,
    current_of,
    read_states,
    snapshot_of,
)
from k2.lake.iceberg.tables import TRADES_LAYOUT, TableLayout
from k2.market.events import TradeColumns
from k2.market.fold import RULES, FoldState, to_table
from k2.market.offsets import OffsetVector
from k2.tape.topics import RECOVERY_HINT

Base: TypeAlias = tuple[OffsetVector, Mapping[int, FoldState], LakeSnapshot | None]
Rows: TypeAlias = TradeColumns | pa.Table

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TapeIdentity:
    """The tape that positions refer to."""

    topic: str
    topic_id: str
    cluster_id: str
    epoch: int
    partitions: int


@dataclass(frozen=True)
class PartitionBatch:
    """The next records of one partition, judged.

    Attributes:
        partition: of the tape.
        start, end: offsets from (inclusive) and to (exclusive).
        accepted: the rows, in offset order.
        state: the fold's state at `end`.
        mark: of the last record (`tape/truncation_check.py`); empty where it is not known.
        traces: traceparents of the spans that judged them.
    """

    partition: int
    start: int
    end: int
    accepted: tuple[Rows, ...]
    state: FoldState
    mark: str = ""
    traces: tuple[str, ...] = ()


class Store(Protocol):
    """One table, and how rows become its files."""

    @property
    def layout(self) -> TableLayout:
        """The table's layout."""
        ...

    def write(
        self, pieces: Sequence[PartitionBatch], epoch: int, table: Table, name: str
    ) -> list[DataFile]:
        """Write the accepted rows of the pieces, durable; `name` is unique among commits."""
        ...

    def columns(self, icebergs: Schema) -> pa.Schema:
        """Return the columns of its files that this K2 knows, with the table's field ids."""
        ...

    def write_sorted(self, table: Table, rows: pa.Table, name: str, partition: Record) -> DataFile:
        """Sort rows of one partition, in one chunk, and write them as one file, durable."""
        ...


class TradeStore:
    """`market.trades`."""

    def __init__(self, layout: TableLayout = TRADES_LAYOUT) -> None:
        self.layout = layout

    def write(
        self, pieces: Sequence[PartitionBatch], epoch: int, table: Table, name: str
    ) -> list[DataFile]:
        """Write one file for each day and exchange."""
        parts = [Part(piece.partition, rows) for piece in pieces for rows in piece.accepted]
        return write_files(parts, epoch, table, name)

    def columns(self, icebergs: Schema) -> pa.Schema:
        """Return the trade's columns, strings as dictionaries."""
        return parquet_schema(icebergs)

    def write_sorted(self, table: Table, rows: pa.Table, name: str, partition: Record) -> DataFile:
        """Write rows in the order of (symbol, event_time, trade_id)."""
        return write_sorted(table, rows, name, partition)


@dataclass(frozen=True)
class Outcome:
    """The result of a commit.

    Attributes:
        snapshot: the newest snapshot, ours or another writer's.
        states: the fold's state of every partition at it.
        landed: partitions of the batch that the lake holds exactly up to the batch's end.
        fenced: partitions that another writer moved; go on from `snapshot` and `states`.
        rows: rows this commit added.
    """

    snapshot: LakeSnapshot
    states: Mapping[int, FoldState]
    landed: frozenset[int]
    fenced: frozenset[int]
    rows: int


@dataclass(frozen=True)
class CommittedTable:
    """The table as its committer last saw it: its snapshots, and what the newest one holds."""

    snapshots: int = 0
    files: int = 0
    bytes: int = 0
    rows: int = 0
    committed_at_us: int = 0


@dataclass(frozen=True)
class _Base:
    """The table's head that a commit is made on, read once."""

    table: Table
    snapshot: LakeSnapshot | None
    positions: OffsetVector
    states: Mapping[int, FoldState]


class Committer:
    """Commits batches of one writer. One thread; another may commit in its place (`excluded`).

    Attributes:
        size: of the table as last read or committed.
        written_files, written_bytes: of the files that its commits added.
    """

    size = CommittedTable()
    written_files = written_bytes = 0

    def __init__(
        self,
        *,
        catalog: TableCatalog,
        clock: Clock,
        tape: TapeIdentity,
        writer_id: str,
        store: Store | None = None,
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._tape = tape
        self._writer_id = writer_id
        self._store: Store = store or TradeStore()
        self._commits = 0
        self._base: _Base | None = None
        self._lock = threading.Lock()
        self._traceparents = ""  # of the commit that is made

    @contextmanager
    def excluded(self) -> Iterator[Callable[[Table], None]]:
        """Keep this writer from committing meanwhile, so that no work is lost to a conflict.

        Yields:
            A function to call with the table after a commit that changed no row; the writer then
                continues from that head.
        """
        with self._lock:
            yield self._adopt

    def _adopt(self, table: Table) -> None:
        base, current = self._base, current_of(table.metadata)
        self._base = None
        self._measure(table, current)
        if base and base.snapshot and current and base.snapshot.state_path == current.state_path:
            self._base = replace(base, table=table, snapshot=current)

    def base(self) -> Base:
        """Read the lake's positions, fold states and newest snapshot.

        Raises:
            Data: the lake is of another tape (`assert_same_tape`); LAKE_CORRUPT.
            Unavailable: LAKE_UNAVAILABLE.
        """
        with self._lock:
            base = self._base = self._read_base()
        return base.positions, base.states, base.snapshot

    def commit(self, batch: Sequence[PartitionBatch]) -> Outcome:
        """Commit the pieces that the lake does not hold yet.

        Args:
            batch: at most one piece per partition; pieces without rows move positions only.

        Raises:
            Overloaded: DISK_FULL. The batch may be committed again, as it is or grown.
            Unavailable: LAKE_UNAVAILABLE; as above.
            Data: as `base` raises.
        """
        judged = [trace for piece in batch for trace in piece.traces]
        with self._lock, tracing.joined(tracing.COMMIT, judged) as span:
            self._traceparents = ",".join(span.traceparents)
            outcome = self._commit(batch)
            span.set(_attributes_of(outcome))
            return outcome

    def unwritable(self, batch: Sequence[PartitionBatch]) -> dict[int, list[int]]:
        """Find the offsets of rows, per partition, that cannot be written to a file even alone.

        Args:
            batch: of trades, whose commit raised an error that is neither K2's nor the system's.
        """
        with self._lock:
            table = self._read_base().table
        found: dict[int, list[int]] = {}
        for piece in batch:
            for rows in piece.accepted:
                if isinstance(rows, TradeColumns) and (
                    bad := _unwritable(Part(piece.partition, rows), self._tape.epoch, table)
                ):
                    found.setdefault(piece.partition, []).extend(bad)
        return found

    def _commit(self, batch: Sequence[PartitionBatch]) -> Outcome:
        self._commits += 1
        commit_id = f"{self._writer_id}-{self._commits}"

        def attempt(number: int) -> Outcome:
            base = self._base or self._read_base()
            if number > 1 and (landed := find_commit(base.table.metadata, commit_id)):
                rows = snapshot_of(base.table.metadata, landed).rows_added
                return _outcome(batch, base, rows)
            due = [piece for piece in batch if base.positions[piece.partition] == piece.start]
            if not due:
                return _outcome(batch, base, 0)
            self._base = None  # until this attempt is known to have landed
            self._base = self._attempt(base, due, commit_id, number)
            return _outcome(batch, self._base, sum(len(c) for piece in due for c in piece.accepted))

        return retry_conflicts(attempt)

    def _read_base(self) -> _Base:
        return self._base_of(load_ours(self._catalog, self._store.layout), None)

    def _base_of(self, table: Table, own: tuple[str, Mapping[int, FoldState]] | None) -> _Base:
        """Decode the head of a table just read; the states of our own commit are not read again."""
        snapshot = current_of(table.metadata)
        if snapshot is None:
            zero = OffsetVector.zero(self._tape.epoch, self._tape.partitions)
            return _Base(table, None, zero, {})
        self._measure(table, snapshot)
        assert_same_tape(snapshot, self._tape, self._store.layout.rules)
        if own and own[0] == snapshot.commit_id:
            return _Base(table, snapshot, snapshot.positions, own[1])
        return _Base(table, snapshot, snapshot.positions, read_states(table.io, snapshot))

    def _measure(self, table: Table, snapshot: LakeSnapshot | None) -> None:
        if snapshot is not None:
            self.size = CommittedTable(
                snapshots=len(table.metadata.snapshots),
                files=snapshot.files_total,
                bytes=snapshot.bytes_total,
                rows=snapshot.rows_total,
                committed_at_us=snapshot.committed_at_us,
            )

    def _attempt(
        self, base: _Base, due: Sequence[PartitionBatch], commit_id: str, attempt: int
    ) -> _Base:
        """Write everything, durable, then swap the head; returns the new base."""
        name = f"{commit_id}-{attempt}"
        states = dict(base.states) | {piece.partition: piece.state for piece in due}
        first = EpochHistory(rules=self._store.layout.rules)
        positions, epochs = base.positions, base.snapshot.epochs if base.snapshot else first
        for piece in due:
            positions = positions.advanced(piece.partition, piece.end)
            epochs = epochs.marked(piece.partition, piece.mark, self._tape.partitions)
        with reaching_lake():
            files = self._store.write(due, self._tape.epoch, base.table, name)
            facts = CommitSummary(
                positions=positions,
                counters={p: (s.accepted, s.duplicate, s.dead) for p, s in states.items()},
                state_path=write_state(base.table, states, name),
                epochs=epochs,
                topic=self._tape.topic,
                topic_id=self._tape.topic_id,
                cluster_id=self._tape.cluster_id,
                writer_id=self._writer_id,
                commit_id=commit_id,
                traceparents=self._traceparents,
            )
            table = append(self._catalog, base.table, files, facts, self._clock.now_us())
        self.written_files += len(files)
        self.written_bytes += sum(file.file_size_in_bytes for file in files)
        return self._base_of(table, (facts.commit_id, states))


def _unwritable(part: Part, epoch: int, table: Table) -> list[int]:
    """Find the offsets of the rows that fail by themselves, by halving."""
    rows = part.columns
    try:
        assert_writable([part], epoch, table)
    except (K2Error, OSError, MemoryError):
        raise
    except Exception:  # noqa: BLE001 its kind does not matter, only its rows
        if len(rows) == 1:
            return [int(rows.offset[0])]
        halves = np.array_split(np.arange(len(rows)), 2)
        return [
            offset
            for half in halves
            for offset in _unwritable(Part(part.partition, rows.take(half)), epoch, table)
        ]
    return []


def assert_same_tape(snapshot: LakeSnapshot, tape: TapeIdentity, rules: int = RULES) -> None:
    """Refuse to commit records of one tape, or judged by some rules, after positions of another.

    Args:
        snapshot: the lake's newest.
        tape: the tape that is read.
        rules: the version of the fold's rules that this process judges by.

    Raises:
        Data: EPOCH_ENDED, CLUSTER_CHANGED, PARTITIONS_CHANGED, TOPIC_RECREATED or RULES_CHANGED.
    """
    epoch = snapshot.positions.epoch
    if snapshot.epochs.ended:
        raise Data(
            Reason.EPOCH_ENDED,
            f"epoch {epoch} of the tape has ended; the next begins when the lake's writer starts",
        )
    if epoch != tape.epoch:
        raise Data(
            Reason.EPOCH_ENDED,
            f"the lake is in epoch {epoch} of the tape, this process in {tape.epoch}: start it"
            " again",
        )
    assert_same_topic(written_from(snapshot), tape)
    assert_same_rules(snapshot, rules)


def assert_same_rules(snapshot: LakeSnapshot, rules: int = RULES) -> None:
    """Refuse to go on in an epoch whose records were judged by other rules.

    Raises:
        Data: RULES_CHANGED.
    """
    if snapshot.epochs.rules != rules:
        raise Data(
            Reason.RULES_CHANGED,
            f"epoch {snapshot.positions.epoch} of the tape began by the rules"
            f" {snapshot.epochs.rules} of which records are rows, this K2 judges by the rules"
            f" {rules}: end the epoch, and the next goes on where the lake stands:"
            " k2 tape new-epoch",
            metadata={"rules": str(snapshot.epochs.rules), "expected": str(rules)},
        )


def assert_same_topic(was: TapeIdentity, tape: TapeIdentity) -> None:
    """Refuse to go on in one topic at positions of another, whatever the epoch.

    Args:
        was: the tape that the lake is written from.
        tape: the tape that is read.

    Raises:
        Data: CLUSTER_CHANGED, PARTITIONS_CHANGED or TOPIC_RECREATED.
    """
    if was.cluster_id != tape.cluster_id:
        raise Data(
            Reason.CLUSTER_CHANGED,
            f"the lake is written from cluster {was.cluster_id}, this is {tape.cluster_id};"
            f" {RECOVERY_HINT}",
        )
    if was.partitions != tape.partitions:
        raise Data(
            Reason.PARTITIONS_CHANGED,
            f"the lake is written from {was.partitions} partitions, topic {tape.topic} has"
            f" {tape.partitions}; {RECOVERY_HINT}",
        )
    if (was.topic, was.topic_id) != (tape.topic, tape.topic_id):
        raise Data(
            Reason.TOPIC_RECREATED,
            f"the lake is written from topic {was.topic} with id {was.topic_id}, this is"
            f" {tape.topic} with id {tape.topic_id}, where offsets do not name the same records;"
            f" {RECOVERY_HINT}",
        )


def written_from(snapshot: LakeSnapshot) -> TapeIdentity:
    """Return the tape that a snapshot was written from."""
    positions = snapshot.positions
    return TapeIdentity(
        snapshot.topic,
        snapshot.topic_id,
        snapshot.cluster_id,
        positions.epoch,
        len(positions.offsets),
    )


def _outcome(batch: Sequence[PartitionBatch], base: _Base, rows: int) -> Outcome:
    """Sort the pieces: held by the newest snapshot exactly up to their end, or fenced."""
    assert base.snapshot is not None, "a fenced or landed batch implies a snapshot"
    ours = frozenset(
        piece.partition for piece in batch if base.positions[piece.partition] == piece.end
    )
    fenced = frozenset(piece.partition for piece in batch) - ours
    return Outcome(base.snapshot, base.states, ours, fenced, rows)


def _attributes_of(outcome: Outcome) -> tracing.Attributes:
    return {
        tracing.ROWS: outcome.rows,
        tracing.POSITIONS: outcome.snapshot.positions.encode(),
        tracing.SNAPSHOT_ID: str(outcome.snapshot.snapshot_id),
    }


def write_state(table: Table, states: Mapping[int, FoldState], name: str) -> str:
    """Write the fold's state beside the metadata; returns its location."""
    location = table.location_provider().new_metadata_location(f"k2-state-{name}.arrow")
    content = pa.BufferOutputStream()
    rows = to_table(states)
    with pa.ipc.new_file(content, rows.schema) as writer:
        writer.write_table(rows)
    write_file(table.io.new_output(location), memoryview(content.getvalue()))
    return location
