"""One Iceberg commit that appends or replaces files, built from the format's parts.

pyiceberg's own transaction copies the whole metadata some twenty times a commit (210 ms with 120
snapshots; this takes 40), retries by rebasing, and deletes manifests when a commit is refused,
which destroys the table's head if the refused commit landed after all. Here the manifests, the
manifest list and the snapshot are written, then one compare-and-swap on the catalog moves the head.
Nothing is deleted on a failure, and after every failure the history is read before the failure is
reported.

Maintenance commits the same way: a commit can put files in the place of others that hold the same
rows, or change no file and only expire snapshots. An append expires the snapshots that
`snapshots_to_expire` names. Files of expired snapshots stay on disk until `orphan_files.py` removes
them.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, cast

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile, write_manifest_list
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import (
    Operation,
    Snapshot,
    SnapshotSummaryCollector,
    Summary,
    update_snapshot_summaries,
)
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    AssertTableUUID,
    RemoveSnapshotsUpdate,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)
from pyiceberg.typedef import Identifier

from k2 import limits
from k2.lake.iceberg.catalog import Conflict, reaching_lake
from k2.lake.iceberg.manifests import (
    CODEC,
    FORMAT,
    NewManifests,
    append_files,
    new_metadata_output,
    replace_files,
)
from k2.lake.iceberg.snapshot import RETAINED_FROM, CommitSummary, ancestors_of
from k2.lake.iceberg.tables import TableLayout, assert_ours

_log = logging.getLogger(__name__)

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400

# (age of a bucket's end, its width), seconds.
TIERS = (
    (0, _MINUTE),
    (5 * _MINUTE, 5 * _MINUTE),
    (30 * _MINUTE, 15 * _MINUTE),
    (2 * _HOUR, _HOUR),
    (12 * _HOUR, 4 * _HOUR),
    (2 * _DAY, _DAY),
    (10 * _DAY, 5 * _DAY),
    (60 * _DAY, 30 * _DAY),
    (360 * _DAY, 360 * _DAY),
)
assert all(wide % narrow == 0 for (_, narrow), (_, wide) in pairwise(TIERS))


class TableCatalog(Protocol):
    """The part of a catalog that a commit needs; tests inject faults here."""

    def load_table(self, identifier: Identifier) -> Table:
        """Load the table with its newest metadata."""
        ...

    def commit_table(
        self,
        table: Table,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> CommitTableResponse:
        """Apply the updates if the requirements hold, atomically."""
        ...


def load_ours(catalog: TableCatalog, layout: TableLayout) -> Table:
    """Load a table that K2 may commit to.

    Raises:
        Unavailable: LAKE_UNAVAILABLE.
        Data: LAKE_CORRUPT when the table is not as K2 makes it (`assert_ours`).
    """
    with reaching_lake():
        table = catalog.load_table(layout.identifier)
    assert_ours(table, layout)
    return table


@dataclass(frozen=True)
class RewriteFiles:
    """A change by maintenance: other files with the same rows, or none; snapshots to expire.

    Attributes:
        summary: what the commit says of itself; all but its identity is its parent's.
        added: durable data files that take the place of the removed ones; where there are none,
            rows are removed, and the summary names the time from which on all rows are kept.
        removed: locations of the replaced files; all are live in the head that is committed on.
        touched: locations of the head's manifests that name them.
        dropped: snapshots to expire; neither the head nor one that a branch or tag names.
    """

    summary: CommitSummary
    added: Sequence[DataFile] = ()
    removed: frozenset[str] = frozenset()
    touched: frozenset[str] = frozenset()
    dropped: frozenset[int] = frozenset()


def append(
    catalog: TableCatalog,
    table: Table,
    files: Sequence[DataFile],
    summary: CommitSummary,
    now_us: int,
) -> Table:
    """Commit files and a summary on top of `table`, atomically.

    Args:
        catalog: holds the table's head.
        table: what the commit is made on; its head must still be the head.
        files: durable data files; none makes a commit of a summary alone.
        summary: what the commit says of itself, in the snapshot's summary and the table's
            properties.
        now_us: the time; the commit's time is that, or just after its parent's.

    Returns:
        The table after the commit, or after later ones if the reply was lost.

    Raises:
        Conflict: another commit came first.
        Exception: of the catalog or the warehouse; the commit did not land, as far as the history
            shows.
    """
    snapshot_id = table.metadata.new_snapshot_id()
    summary = _inherited(summary, table)
    manifests = append_files(table, files, snapshot_id, summary.commit_id)
    snapshot = _snapshot(table, snapshot_id, manifests, summary, now_us)
    return _compare_and_swap(
        catalog, table, snapshot, summary, expiring_snapshots(table.metadata, snapshot.timestamp_ms)
    )


def replace(catalog: TableCatalog, table: Table, change: RewriteFiles, now_us: int) -> Table:
    """Commit a change that keeps all rows, or removes rows below the retained time; see `append`.

    Where no file changes, only the requested snapshots expire: a fence leaves no orphans.
    """
    snapshot_id = table.metadata.new_snapshot_id()
    summary = _inherited(change.summary, table)
    manifests = replace_files(table, change.added, change.removed, change.touched, snapshot_id)
    operation = Operation.DELETE if change.removed and not change.added else Operation.REPLACE
    snapshot = _snapshot(table, snapshot_id, manifests, summary, now_us, operation)
    changes = change.added or change.removed
    expiring = expiring_snapshots(table.metadata, snapshot.timestamp_ms) if changes else []
    return _compare_and_swap(
        catalog, table, snapshot, summary, sorted({*change.dropped, *expiring})
    )


def _inherited(summary: CommitSummary, table: Table) -> CommitSummary:
    """Add the time that retention has set; only retention itself sets another."""
    floor = table.properties.get(RETAINED_FROM)
    if floor is None or summary.retained_from_us is not None:
        return summary
    return dataclasses.replace(summary, retained_from_us=int(floor))


def find_commit(metadata: TableMetadata, commit_id: str) -> Snapshot | None:
    """Find a commit of K2 in the history of the head."""
    for ancestor in ancestors_of(metadata, metadata.current_snapshot()):
        summary = ancestor.summary.additional_properties if ancestor.summary else {}
        if summary.get("k2.commit-id") == commit_id:
            return ancestor
    return None


def expiring_snapshots(metadata: TableMetadata, now_ms: int) -> list[int]:
    """List the snapshots that a commit of that time expires, oldest first."""
    named = referenced_snapshots(metadata)
    commits = {
        snapshot.snapshot_id: snapshot.timestamp_ms * 1000
        for snapshot in metadata.snapshots
        if snapshot.snapshot_id not in named
    }
    coming = 0  # no snapshot has this id
    return snapshots_to_expire(commits | {coming: now_ms * 1000}, now_ms * 1000)


def snapshots_to_expire(commits: Mapping[int, int], now_us: int) -> list[int]:
    """Choose the snapshots to expire, oldest first: older ones are thinned out.

    A commit rewrites the metadata of all kept snapshots, so their number is bounded; and a reader
    "as of" a time wants answers close to it, the closer the more recent it is. So time is divided
    into buckets that grow wider with age, and the *last* snapshot of each has a place: the last
    commit before midnight answers as of midnight. The remaining room goes to the newest of the
    others, so every commit of the last minutes can be read.

    A bucket's width follows from the age of its end, and each width is a multiple of the one
    before, so the last snapshot of a wide bucket was the last of every narrower one in it. When and
    how often snapshots were expired earlier does not matter: a snapshot that has a place now always
    had one (`tests/property/test_thin.py`).

    Args:
        commits: commit time of each snapshot that may be dropped, microseconds, by its id; those
            that a tag or a branch names are not among them.
        now_us: the time.

    Returns:
        Ids. What is left are at most `limits.SNAPSHOTS_KEPT_MAX`, the newest
        `limits.SNAPSHOTS_NEWEST_KEPT` among them; where there is no other way, the oldest that
        have a place go too.
    """
    ordered = sorted(commits, key=lambda number: (commits[number], number))
    excess = max(0, len(ordered) - limits.SNAPSHOTS_KEPT_MAX)
    older = ordered[: -limits.SNAPSHOTS_NEWEST_KEPT]
    placed = {*{_bucket(commits[number], now_us): number for number in older}.values()}
    others = [number for number in older if number not in placed]
    expired = {*[*others, *(number for number in older if number in placed)][:excess]}
    return [number for number in older if number in expired]


def _bucket(time_us: int, now_us: int) -> tuple[int, int]:
    """Return the width and the number of the bucket that a time lies in."""
    time_s, now_s = time_us // 1_000_000, now_us // 1_000_000
    width = TIERS[0][1]
    for age, wider in TIERS:
        end = (time_s // wider + 1) * wider
        if end + age <= now_s:
            width = wider
    return width, time_s // width


def unreferenced_snapshots(metadata: TableMetadata) -> list[Snapshot]:
    """List the snapshots that are not the head and that no tag or branch names."""
    stay = referenced_snapshots(metadata) | {metadata.current_snapshot_id}
    return [snapshot for snapshot in metadata.snapshots if snapshot.snapshot_id not in stay]


def referenced_snapshots(metadata: TableMetadata) -> set[int]:
    """Return the snapshots that a tag names, or a branch other than main."""
    return {ref.snapshot_id for name, ref in metadata.refs.items() if name != MAIN_BRANCH}


@dataclass(frozen=True)
class _Expirable:
    """Requires that the snapshots to expire still exist and no branch or tag names one of them.

    The catalog checks this against the metadata that it is about to replace, so a tag cannot be
    lost to a commit that was prepared before it. (REST catalogs could not check it; K2's catalogs
    do.)
    """

    snapshot_ids: Sequence[int]

    def validate(self, base_metadata: TableMetadata | None) -> None:
        """Raise when a snapshot to expire is gone or named; pyiceberg calls this."""
        kept = (
            {snapshot.snapshot_id for snapshot in base_metadata.snapshots}
            if base_metadata
            else set()
        )
        named = referenced_snapshots(base_metadata) if base_metadata else set()
        if not kept.issuperset(self.snapshot_ids) or named.intersection(self.snapshot_ids):
            raise CommitFailedException("a snapshot to expire was expired or named meanwhile")


def _snapshot(
    table: Table,
    snapshot_id: int,
    manifests: NewManifests,
    summary: CommitSummary,
    now_us: int,
    operation: Operation = Operation.APPEND,
) -> Snapshot:
    """Write the manifest list; returns the snapshot that names it."""
    metadata = table.metadata
    parent = metadata.current_snapshot()
    sequence = metadata.next_sequence_number()
    output = new_metadata_output(table, f"snap-{snapshot_id}-{summary.commit_id}.avro")
    parent_id = parent.snapshot_id if parent else None
    with write_manifest_list(FORMAT, output, snapshot_id, parent_id, sequence, CODEC) as writer:
        writer.add_manifests(manifests.manifests)
    # As-of a time stays true when the clock goes back.
    after_parent_ms = max(parent.timestamp_ms if parent else 0, metadata.last_updated_ms) + 1
    return Snapshot(
        snapshot_id=snapshot_id,
        parent_snapshot_id=parent_id,
        sequence_number=sequence,
        timestamp_ms=max(now_us // 1000, after_parent_ms),
        manifest_list=output.location,
        summary=_summary(table, manifests, summary, parent, operation),
        schema_id=metadata.current_schema_id,
    )


def _summary(
    table: Table,
    manifests: NewManifests,
    summary: CommitSummary,
    parent: Snapshot | None,
    operation: Operation,
) -> Summary:
    collector = SnapshotSummaryCollector()
    for file in manifests.added:
        collector.add_file(file, table.schema(), table.spec())
    for file in manifests.removed:
        collector.remove_file(file, table.schema(), table.spec())
    # The library adds up totals of an append, and refuses to do the same for a replacement.
    own = Summary(operation=Operation.APPEND, **collector.build(), **summary.snapshot_properties())
    own = update_snapshot_summaries(own, parent.summary if parent else None)
    return Summary(operation=operation, **own.additional_properties)


def _compare_and_swap(
    catalog: TableCatalog,
    table: Table,
    snapshot: Snapshot,
    summary: CommitSummary,
    dropped: Sequence[int],
) -> Table:
    """Move the head from `table` to `snapshot`; after a failure, the history says if it landed."""
    requirements, updates = _requirements_and_updates(table, snapshot, summary, dropped)
    try:
        reply = catalog.commit_table(table, requirements, updates)
    except Exception as error:
        fresh = catalog.load_table(table.name())
        if find_commit(fresh.metadata, summary.commit_id):
            _log.warning("a commit landed though it was answered with %r", error)
            return fresh
        if isinstance(error, CommitFailedException):
            raise Conflict(f"commit {summary.commit_id}") from error
        raise
    after = Table(table.name(), reply.metadata, reply.metadata_location, table.io, table.catalog)
    _remove_old_metadata(table, after)
    return after


def _requirements_and_updates(
    table: Table, snapshot: Snapshot, summary: CommitSummary, dropped: Sequence[int]
) -> tuple[tuple[TableRequirement, ...], tuple[TableUpdate, ...]]:
    """Build what must hold, and what changes then."""
    requirements: list[TableRequirement] = [
        AssertTableUUID(uuid=table.metadata.table_uuid),
        AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=table.metadata.current_snapshot_id),
    ]
    updates: list[TableUpdate] = [
        AddSnapshotUpdate(snapshot=snapshot),
        SetSnapshotRefUpdate(
            ref_name=MAIN_BRANCH,
            type=SnapshotRefType.BRANCH,
            snapshot_id=snapshot.snapshot_id,
            max_ref_age_ms=None,
            max_snapshot_age_ms=None,
            min_snapshots_to_keep=None,
        ),
        SetPropertiesUpdate(updates=summary.properties()),
    ]
    if dropped:
        requirements.append(cast("TableRequirement", _Expirable(dropped)))
        updates.append(RemoveSnapshotsUpdate(snapshot_ids=list(dropped)))
    return tuple(requirements), tuple(updates)


def _remove_old_metadata(before: Table, after: Table) -> None:
    """Remove the metadata files that fell off the table's log; a failure here is harmless."""
    kept = {entry.metadata_file for entry in after.metadata.metadata_log}
    for entry in before.metadata.metadata_log:
        if entry.metadata_file not in kept:
            try:
                before.io.delete(entry.metadata_file)
            except OSError as error:
                _log.info("%s was not removed: %r", entry.metadata_file, error)
