"""Snapshots of the lake: what each carries, and how they are read.

Every commit of K2 carries, in its summary and mirrored in the table's properties, its positions on
the tape and the fold's state there. A snapshot made by another engine carries neither: then the
summary of its newest ancestor that has one applies, because no other engine moves positions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.io import FileIO
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from k2 import limits
from k2.errors import Data, NotFound, Reason, Unavailable
from k2.lake.iceberg.catalog import metadata_location, reaching_lake
from k2.lake.iceberg.epochs import EpochHistory, epochs_of
from k2.lake.iceberg.file_stats import read_manifest
from k2.lake.iceberg.tables import TRADES
from k2.market import schema
from k2.market.fold import FoldState, from_table
from k2.market.offsets import FileStat, OffsetVector

Counters = dict[int, tuple[int, int, int]]
RETAINED_FROM = "k2.floor-time"
TRACEPARENTS = "k2.traceparent"
_LOAD_ATTEMPTS = 3


@dataclass(frozen=True)
class CommitSummary:
    """What a commit says of itself.

    Attributes:
        positions: next offset of each partition; the lake holds the records below.
        counters: accepted, duplicate and dead records per partition, since the epoch began.
        state_path: the file with the fold's state at `positions`.
        epochs: the epoch of the commit and those before it.
        topic, topic_id, cluster_id: the tape of the positions.
        writer_id: the process that committed.
        commit_id: unique among commits.
        retained_from_us: event time below which lake retention has removed rows; None where it has
            not, and in a commit to be, which inherits its parent's.
        traceparents: of the spans of the commit, with commas between; empty where it was not
            traced. Only of the snapshot: the table's properties do not have them.
    """

    positions: OffsetVector
    counters: Counters
    state_path: str
    epochs: EpochHistory
    topic: str
    topic_id: str
    cluster_id: str
    writer_id: str
    commit_id: str
    retained_from_us: int | None = None
    traceparents: str = ""

    def properties(self) -> dict[str, str]:
        """Encode as properties of the table."""
        counters = (self.counters.get(p, (0, 0, 0)) for p in range(len(self.positions.offsets)))
        floor = {} if self.retained_from_us is None else {RETAINED_FROM: str(self.retained_from_us)}
        return floor | {
            "k2.epoch": str(self.positions.epoch),
            "k2.positions": self.positions.encode(),
            "k2.counters": ",".join("/".join(map(str, counts)) for counts in counters),
            "k2.state": self.state_path,
            "k2.topic": self.topic,
            "k2.topic-id": self.topic_id,
            "k2.cluster-id": self.cluster_id,
            "k2.writer-id": self.writer_id,
            "k2.commit-id": self.commit_id,
            **self.epochs.properties(),
        }

    def snapshot_properties(self) -> dict[str, str]:
        """Encode as properties of a snapshot's summary."""
        traced = {TRACEPARENTS: self.traceparents} if self.traceparents else {}
        return self.properties() | traced

    def carry_over(self, writer_id: str, commit_id: str) -> CommitSummary:
        """Return the summary of a later commit that moves neither positions nor state."""
        return CommitSummary(
            positions=self.positions,
            counters=self.counters,
            state_path=self.state_path,
            epochs=self.epochs,
            topic=self.topic,
            topic_id=self.topic_id,
            cluster_id=self.cluster_id,
            writer_id=writer_id,
            commit_id=commit_id,
        )


def summary_of(properties: Mapping[str, Any]) -> CommitSummary | None:
    """Decode what `CommitSummary.properties` encoded; None where there is no summary.

    Raises:
        Data: LAKE_CORRUPT when there is one that cannot be read.
    """
    if "k2.positions" not in properties:
        return None
    try:
        counters: Counters = {}
        for partition, counts in enumerate(properties["k2.counters"].split(",")):
            accepted, duplicate, dead = (int(count) for count in counts.split("/"))
            counters[partition] = accepted, duplicate, dead
        positions = OffsetVector.decode(properties["k2.positions"])
        state, epochs = properties["k2.state"], epochs_of(properties)
        topic, topic_id, cluster, writer, commit = (properties[f"k2.{name}"] for name in _NAMES)
        retained_from_us = int(properties[RETAINED_FROM]) if RETAINED_FROM in properties else None
        return CommitSummary(
            positions,
            counters,
            state,
            epochs,
            topic,
            topic_id,
            cluster,
            writer,
            commit,
            retained_from_us,
            properties.get(TRACEPARENTS, ""),
        )
    except (KeyError, ValueError) as error:
        raise Data(
            Reason.LAKE_CORRUPT, f"a snapshot's summary cannot be read: {error!r}"
        ) from error


_NAMES = ("topic", "topic-id", "cluster-id", "writer-id", "commit-id")


@dataclass(frozen=True, kw_only=True)
class LakeSnapshot(CommitSummary):
    """One snapshot of a table, with the summary of its commit.

    Attributes:
        snapshot_id: Iceberg's, a random 64-bit number.
        parent_id: of the snapshot before it; None where that is not kept.
        committed_at_us: commit time, microseconds; greater than its parent's.
        operation: append, overwrite, replace or delete.
        rows_total, rows_added, files_total, bytes_total: of the table at this snapshot; a snapshot
            that only rewrote rows added none.
    """

    snapshot_id: int
    parent_id: int | None
    committed_at_us: int
    operation: str
    rows_total: int
    rows_added: int
    files_total: int
    bytes_total: int

    @property
    def first_positions(self) -> OffsetVector:
        """Where its epoch began."""
        zero = OffsetVector.zero(self.positions.epoch, len(self.positions.offsets))
        return self.epochs.start or zero


def snapshot_of(metadata: TableMetadata, snapshot: Snapshot) -> LakeSnapshot:
    """Decode a snapshot with its summary, or with that of its newest ancestor that has one.

    Raises:
        Data: LAKE_CORRUPT when no ancestor carries positions.
    """
    summary = snapshot.summary
    numbers = dict(summary.additional_properties) if summary else {}
    return LakeSnapshot(
        **vars(_nearest_summary(metadata, snapshot)),
        snapshot_id=snapshot.snapshot_id,
        parent_id=snapshot.parent_snapshot_id,
        committed_at_us=snapshot.timestamp_ms * 1000,
        operation=summary.operation.value if summary else "",
        rows_total=int(numbers.get("total-records", 0)),
        rows_added=max(0, _count(numbers, "added") - _count(numbers, "deleted")),
        files_total=int(numbers.get("total-data-files", 0)),
        bytes_total=int(numbers.get("total-files-size", 0)),
    )


def _count(numbers: Mapping[str, str], what: str) -> int:
    return int(numbers.get(f"{what}-records", 0))


def _nearest_summary(metadata: TableMetadata, snapshot: Snapshot) -> CommitSummary:
    for ancestor in ancestors_of(metadata, snapshot):
        if ancestor.summary and (found := summary_of(ancestor.summary.additional_properties)):
            return found
    if found := summary_of(metadata.properties):  # the ancestor that had one was expired
        return found
    raise Data(
        Reason.LAKE_CORRUPT,
        f"snapshot {snapshot.snapshot_id} and all before it carry no tape positions:"
        " the table was not written by K2",
    )


def current_of(metadata: TableMetadata) -> LakeSnapshot | None:
    """Decode the snapshot that the main branch points to; None for an empty table."""
    head = metadata.current_snapshot()
    return snapshot_of(metadata, head) if head else None


def ancestors_of(metadata: TableMetadata, snapshot: Snapshot | None) -> Iterator[Snapshot]:
    """Walk a snapshot of the main branch and those kept before it, newest first.

    Snapshots are expired from the middle of the history too (`snapshots_to_expire`), so parents do
    not always lead from the newest to the oldest. The table's snapshot log names every kept
    snapshot that was ever the head of the main branch. Where a parent is missing, the history goes
    on with the newest earlier head by sequence number, which never decreases (times do not decrease
    only as far as clocks are right).
    """
    if snapshot is None:
        return
    yield snapshot
    by_id = {kept.snapshot_id: kept for kept in metadata.snapshots}
    heads = sorted(
        (by_id[head] for head in {entry.snapshot_id for entry in metadata.snapshot_log} & {*by_id}),
        key=_sequence,
        reverse=True,
    )
    while snapshot is not None:
        before = _sequence(snapshot)
        parent = by_id.get(snapshot.parent_snapshot_id or 0)
        snapshot = parent or next((head for head in heads if _sequence(head) < before), None)
        if snapshot is not None:
            yield snapshot


def _sequence(snapshot: Snapshot) -> int:
    return snapshot.sequence_number or 0


def read_states(io: FileIO, snapshot: LakeSnapshot) -> dict[int, FoldState]:
    """Read the fold's state of every partition at `snapshot.positions`.

    Raises:
        Data: LAKE_CORRUPT when the state file is not what K2 writes.
        Unavailable: LAKE_UNAVAILABLE when it cannot be read.
    """
    try:
        with reaching_lake(), io.new_input(snapshot.state_path).open() as stream:
            table = pa.ipc.open_file(pa.py_buffer(stream.read())).read_all()
        return from_table(table, snapshot.counters)
    except (pa.ArrowInvalid, KeyError) as error:
        raise Data(
            Reason.LAKE_CORRUPT, f"{snapshot.state_path} is not a fold state: {error!r}"
        ) from error


def read_first_states(io: FileIO, snapshot: LakeSnapshot) -> dict[int, FoldState]:
    """Read the state of every partition at the start of the snapshot's epoch; see `read_states`."""
    nothing = dict.fromkeys(range(len(snapshot.positions.offsets)), (0, 0, 0))
    path = snapshot.epochs.start_state
    if not path:
        return {partition: FoldState() for partition in nothing}
    return read_states(io, replace(snapshot, state_path=path, counters=nothing))


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """One version of the table's metadata, decoded."""

    location: str
    table: Table
    lineage: tuple[LakeSnapshot, ...]  # newest first

    def find(self, snapshot_id: int) -> LakeSnapshot | None:
        return next((known for known in self.lineage if known.snapshot_id == snapshot_id), None)


class SnapshotReader:
    """Reads snapshots, their files and their fold states. Thread-safe.

    Results are kept: a call costs one look-up in the catalog, and only what a new commit added is
    read.
    """

    def __init__(self, catalog: SqlCatalog) -> None:
        self._catalog = catalog
        self._optional = tuple(field.name for field in schema.TRADE.fields if field.nullable)
        self._lock = threading.Lock()
        self._view: _View | None = None
        self._files: dict[int, tuple[FileStat, ...]] = {}
        self._manifests: dict[str, tuple[FileStat, ...]] = {}

    def current(self) -> LakeSnapshot | None:
        """Return the newest snapshot; None while the lake is empty.

        Raises:
            Unavailable: LAKE_UNAVAILABLE.
            Data: LAKE_CORRUPT.
        """
        lineage = self.list()
        return lineage[0] if lineage else None

    def list(self) -> tuple[LakeSnapshot, ...]:
        """Return the snapshots that are kept, newest first."""
        with self._lock:
            view = self._refreshed()
        return view.lineage if view else ()

    def get(self, snapshot_id: int) -> LakeSnapshot:
        """Return a snapshot by its id.

        Raises:
            NotFound: UNKNOWN_SNAPSHOT when it does not exist or was expired.
        """
        for snapshot in self.list():
            if snapshot.snapshot_id == snapshot_id:
                return snapshot
        raise NotFound(
            Reason.UNKNOWN_SNAPSHOT,
            f"there is no snapshot {snapshot_id}, or no longer",
            metadata={"snapshot_id": str(snapshot_id)},
        )

    def as_of(self, time_us: int) -> LakeSnapshot:
        """Return the newest snapshot committed at or before a time.

        Raises:
            NotFound: UNKNOWN_SNAPSHOT when no snapshot that old is kept; OUT_OF_RANGE when
                retention has removed rows, and one that old may have been removed with them.
        """
        kept = self.list()
        for snapshot in kept:
            if snapshot.committed_at_us <= time_us:
                return snapshot
        removed = bool(kept) and kept[0].retained_from_us is not None
        raise NotFound(
            Reason.OUT_OF_RANGE if removed else Reason.UNKNOWN_SNAPSHOT,
            f"no snapshot from {time_us} (microseconds) or before is kept",
            metadata={"as_of_us": str(time_us)},
        )

    def covering(self, positions: OffsetVector) -> LakeSnapshot | None:
        """Return the oldest kept snapshot that holds all records below `positions`; None if none.

        Args:
            positions: of the tape that the lake was written from.
        """
        found = None
        for snapshot in self.list():
            if not snapshot.positions.covers(positions):
                break
            found = snapshot
        return found

    def files(self, snapshot_id: int) -> tuple[FileStat, ...]:
        """Read the data files of a snapshot, with their statistics.

        Raises:
            NotFound: UNKNOWN_SNAPSHOT.
            Data: LAKE_CORRUPT when another engine wrote delete files, which K2 does not read.
        """
        with self._lock:
            if (known := self._files.get(snapshot_id)) is not None:
                return known
        self.get(snapshot_id)
        with self._lock:
            view = self._view
            if view is None or (raw := view.table.snapshot_by_id(snapshot_id)) is None:
                raise NotFound(Reason.UNKNOWN_SNAPSHOT, f"there is no snapshot {snapshot_id}")
            return self._read_files(view.table, raw)

    def traces(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Return the traceparents of the commits that wrote files, as far as known; reads nothing.

        A file is named by its commit, and merged files by the merge, which is of no trace.
        """
        view = self._view
        traced = {known.commit_id: known.traceparents for known in view.lineage} if view else {}
        commits = {path.rpartition("/")[2].rpartition("-")[0] for path in paths}
        return tuple(
            each
            for commit, traceparents in traced.items()
            if traceparents and commit in commits
            for each in traceparents.split(",")
        )

    def states(self, snapshot: LakeSnapshot) -> dict[int, FoldState]:
        """Read the fold's state of every partition at `snapshot.positions`; see `read_states`."""
        with self._lock:
            view = self._refreshed()
        if view is None:
            raise NotFound(Reason.UNKNOWN_SNAPSHOT, "the lake is empty")
        return read_states(view.table.io, snapshot)

    def _refreshed(self) -> _View | None:
        """Return the newest view; metadata is read only when the catalog names another version."""
        for attempt in range(1, _LOAD_ATTEMPTS + 1):
            location = metadata_location(self._catalog, TRADES)
            if location is None:
                return None
            if self._view is not None and self._view.location == location:
                return self._view
            try:
                with reaching_lake():
                    self._view = self._load()
            except NoSuchTableError:
                return None
            except Unavailable:  # the file was superseded and removed meanwhile
                if attempt == _LOAD_ATTEMPTS:
                    raise
        return self._view

    def _load(self) -> _View:
        table = self._catalog.load_table(TRADES)
        known = self._view
        lineage = []
        for raw in ancestors_of(table.metadata, table.metadata.current_snapshot()):
            old = known.find(raw.snapshot_id) if known else None
            same = old is not None and old.parent_id == raw.parent_snapshot_id
            lineage.append(old if old and same else snapshot_of(table.metadata, raw))
        return _View(table.metadata_location, table, tuple(lineage))

    def _read_files(self, table: Table, snapshot: Snapshot) -> tuple[FileStat, ...]:
        with reaching_lake():
            manifests = snapshot.manifests(table.io)
            found: dict[str, tuple[FileStat, ...]] = {}
            for manifest in manifests:
                path = manifest.manifest_path
                found[path] = self._manifests.get(path) or read_manifest(
                    table, manifest, self._optional
                )
        files = tuple(stat for stats in found.values() for stat in stats)
        self._manifests |= found
        if len(self._manifests) > limits.MANIFESTS_KEPT + len(found):
            self._manifests = found
        self._files[snapshot.snapshot_id] = files
        while len(self._files) > limits.FILE_LISTS_KEPT:
            del self._files[next(iter(self._files))]
        return files
