"""One Iceberg commit that appends files, built from the format's parts.

pyiceberg's own transaction copies the whole metadata some twenty times a commit (210 ms with 120
snapshots; this takes 40), retries by rebasing, and deletes manifests when a commit is refused,
which destroys the table's head if the refused commit had landed after all. Here the manifest, the
manifest list and the snapshot are written, then one compare-and-set on the catalog swings the head.
Nothing is deleted on a failure, and every failure asks the history before it is believed.

Manifests are merged by size: as soon as `MANIFESTS_TO_MERGE` of one size class stand side by side
they become one of the next class, so a commit rewrites few entries and a plan reads few manifests.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io import OutputFile
from pyiceberg.manifest import (
    DataFile,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import (
    Operation,
    Snapshot,
    SnapshotSummaryCollector,
    Summary,
    ancestors_of,
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
from k2.lake.snapshot import Carried

_log = logging.getLogger(__name__)
_FORMAT: Literal[2] = 2
_CODEC: Literal["deflate"] = "deflate"


class TableCatalog(Protocol):
    """What a commit needs of a catalog; faults are injected here in tests."""

    def load_table(self, identifier: Identifier) -> Table:
        """The table with its newest metadata."""
        ...

    def commit_table(
        self,
        table: Table,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> CommitTableResponse:
        """Apply the updates if the requirements hold, atomically."""
        ...


class Conflict(Exception):
    """Another commit came first; this one surely did not land."""


def append(
    catalog: TableCatalog, table: Table, files: Sequence[DataFile], facts: Carried, now_us: int
) -> Table:
    """Commit files and facts on top of `table`, atomically.

    Args:
        catalog: where the head is swung.
        table: what the commit is made on; its head must still be the head.
        files: durable data files; none makes a commit of facts alone.
        facts: what the commit says of itself, in the summary and the table's properties.
        now_us: the time; the commit's is that, or just after its parent's.

    Returns:
        The table as it is after the commit, or after later ones if the reply was lost.

    Raises:
        Conflict: another commit came first.
        Exception: whatever the catalog or the warehouse raised; the commit did not land, as far as
            the history says now.
    """
    properties = facts.properties()
    snapshot = _snapshot(table, files, properties, now_us)
    metadata = table.metadata
    head = metadata.current_snapshot_id
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
        SetPropertiesUpdate(updates=properties),
    ]
    if superfluous := _superfluous(metadata):
        updates.append(RemoveSnapshotsUpdate(snapshot_ids=superfluous))
    requirements = (
        AssertTableUUID(uuid=metadata.table_uuid),
        AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=head),
    )
    after = _swing(catalog, table, requirements, tuple(updates), facts.commit_id)
    _remove_old_metadata(table, after)
    return after


def find_commit(metadata: TableMetadata, commit_id: str) -> Snapshot | None:
    """A commit of K2 in the history of the head."""
    for ancestor in ancestors_of(metadata.current_snapshot(), metadata):
        summary = ancestor.summary.additional_properties if ancestor.summary else {}
        if summary.get("k2.commit-id") == commit_id:
            return ancestor
    return None


def _swing(
    catalog: TableCatalog,
    table: Table,
    requirements: tuple[TableRequirement, ...],
    updates: tuple[TableUpdate, ...],
    commit_id: str,
) -> Table:
    """The compare-and-set; when it fails, the history says whether it landed."""
    try:
        reply = catalog.commit_table(table, requirements, updates)
    except Exception as error:
        fresh = catalog.load_table(table.name())
        if find_commit(fresh.metadata, commit_id):
            _log.warning("a commit landed though it was answered with %r", error)
            return fresh
        if isinstance(error, CommitFailedException):
            raise Conflict from error
        raise
    return Table(table.name(), reply.metadata, reply.metadata_location, table.io, table.catalog)


def _snapshot(
    table: Table, files: Sequence[DataFile], properties: Mapping[str, str], now_us: int
) -> Snapshot:
    """Write manifests and manifest list; the snapshot that names them."""
    metadata = table.metadata
    parent = metadata.current_snapshot()
    snapshot_id = metadata.new_snapshot_id()
    manifests = _manifests(table, files, snapshot_id, properties["k2.commit-id"])
    sequence = metadata.next_sequence_number()
    name = f"snap-{snapshot_id}-{properties['k2.commit-id']}.avro"
    output = _new_output(table, name)
    parent_id = parent.snapshot_id if parent else None
    with write_manifest_list(_FORMAT, output, snapshot_id, parent_id, sequence, _CODEC) as writer:
        writer.add_manifests(manifests)
    # As-of a time stays true when the clock goes back.
    after_parent_ms = max(parent.timestamp_ms if parent else 0, metadata.last_updated_ms) + 1
    return Snapshot(
        snapshot_id=snapshot_id,
        parent_snapshot_id=parent_id,
        sequence_number=sequence,
        timestamp_ms=max(now_us // 1000, after_parent_ms),
        manifest_list=output.location,
        summary=_summary(table, files, properties, parent),
        schema_id=metadata.current_schema_id,
    )


def _manifests(
    table: Table, files: Sequence[DataFile], snapshot_id: int, commit_id: str
) -> list[ManifestFile]:
    """The head's manifests and one with the new files; those of a crowded size class merged."""
    parent = table.metadata.current_snapshot()
    kept = parent.manifests(table.io) if parent else []
    if not files:
        return kept
    merged = _crowded(kept, table.metadata.default_spec_id)
    output = _new_output(table, f"{commit_id}-{snapshot_id}.avro")
    with write_manifest(
        _FORMAT, table.spec(), table.schema(), output, snapshot_id, _CODEC
    ) as writer:
        for file in files:
            writer.add(
                ManifestEntry.from_args(
                    status=ManifestEntryStatus.ADDED,
                    snapshot_id=snapshot_id,
                    sequence_number=None,
                    file_sequence_number=None,
                    data_file=file,
                )
            )
        for manifest in merged:
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                writer.existing(entry)
    gone = {manifest.manifest_path for manifest in merged}
    return [
        writer.to_manifest_file(),
        *(manifest for manifest in kept if manifest.manifest_path not in gone),
    ]


def _crowded(manifests: Sequence[ManifestFile], spec_id: int) -> list[ManifestFile]:
    """The manifests of the lowest size classes that overflow with one more; none if none does."""
    classes: dict[int, list[ManifestFile]] = {}
    for manifest in manifests:
        if manifest.content is ManifestContent.DATA and manifest.partition_spec_id == spec_id:
            entries = (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)
            classes.setdefault(_size_class(entries), []).append(manifest)
    chosen: list[ManifestFile] = []
    for size in range(limits.MANIFEST_CLASSES):
        if len(classes.get(size, [])) + 1 < limits.MANIFESTS_TO_MERGE:
            break
        chosen += classes[size]
    return chosen


def _size_class(entries: int) -> int:
    """0 for fewer entries than are merged at once, 1 for fewer than its square, and so on."""
    size = 0
    while entries >= limits.MANIFESTS_TO_MERGE:
        entries //= limits.MANIFESTS_TO_MERGE
        size += 1
    return size


def _new_output(table: Table, name: str) -> OutputFile:
    return table.io.new_output(table.location_provider().new_metadata_location(name))


def _summary(
    table: Table,
    files: Sequence[DataFile],
    properties: Mapping[str, str],
    parent: Snapshot | None,
) -> Summary:
    collector = SnapshotSummaryCollector()
    for file in files:
        collector.add_file(file, table.schema(), table.spec())
    own = Summary(operation=Operation.APPEND, **collector.build(), **properties)
    return update_snapshot_summaries(own, parent.summary if parent else None)


def _superfluous(metadata: TableMetadata) -> list[int]:
    """Snapshots to drop from the metadata so that, with one more, the bound holds.

    The oldest go; what a branch or a tag names stays. Their files stay on disk.
    """
    head = metadata.current_snapshot_id  # a branch names it now, and will not after this commit
    named = {ref.snapshot_id for ref in metadata.refs.values()} - {head}
    untagged = [one for one in metadata.snapshots if one.snapshot_id not in named]
    untagged.sort(key=lambda one: one.timestamp_ms)
    excess = len(untagged) + 1 - limits.SNAPSHOTS_KEPT_MAX
    return [one.snapshot_id for one in untagged[: max(0, excess)]]


def _remove_old_metadata(before: Table, after: Table) -> None:
    """Remove the metadata files that fell off the log of the table; who fails here harms no one."""
    kept = {entry.metadata_file for entry in after.metadata.metadata_log}
    for entry in before.metadata.metadata_log:
        if entry.metadata_file not in kept:
            try:
                before.io.delete(entry.metadata_file)
            except OSError as error:
                _log.info("%s was not removed: %r", entry.metadata_file, error)
