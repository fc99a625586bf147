"""Manifests: the lists of a snapshot's files, which commits share.

An append writes one manifest with its files. Manifests are merged by size: when
`MANIFESTS_TO_MERGE` of one size class stand side by side they become one of the next class, so a
commit rewrites few entries and a plan reads few manifests. A replacement rewrites the manifests
that name a removed file, all into one, which reduces their number too. It lists the removed files
as deleted, as the format requires, until that manifest is rewritten in turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pyiceberg.io import OutputFile
from pyiceberg.manifest import (
    DataFile,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriter,
    write_manifest,
)
from pyiceberg.table import Table

from k2 import limits

FORMAT: Literal[2] = 2
CODEC: Literal["deflate"] = "deflate"


@dataclass(frozen=True)
class NewManifests:
    """The manifests of the snapshot that a commit is about to make.

    Attributes:
        manifests: all of them, the new one first.
        added, removed: files by which they differ from the head's.
    """

    manifests: list[ManifestFile]
    added: Sequence[DataFile] = ()
    removed: Sequence[DataFile] = ()


def append_files(
    table: Table, files: Sequence[DataFile], snapshot_id: int, name: str
) -> NewManifests:
    """Add a manifest with the new files to the head's, merged with those of a full size class.

    Args:
        table: whose head it is.
        files: the new ones.
        snapshot_id: of the snapshot to be.
        name: leads the name of the new manifest.
    """
    kept = _living(table)
    if not files:
        return NewManifests(kept)
    merged = _crowded(kept, table.metadata.default_spec_id)
    with _writer(table, snapshot_id, name) as writer:
        _add(writer, files, snapshot_id)
        for entry in _entries(table, merged):
            writer.existing(entry)
    return NewManifests([writer.to_manifest_file(), *_without(kept, merged)], added=files)


def replace_files(
    table: Table,
    added: Sequence[DataFile],
    removed: frozenset[str],
    touched: frozenset[str],
    snapshot_id: int,
) -> NewManifests:
    """Rewrite the head's manifests with some files in the place of others.

    Args:
        table: whose head it is.
        added: files that come.
        removed: locations of files that go.
        touched: locations of the manifests that name those.
        snapshot_id: of the snapshot to be.
    """
    kept = _living(table)
    if not removed:
        assert not added, "files without rows of others would double rows"
        return NewManifests(kept)
    rewritten = [manifest for manifest in kept if manifest.manifest_path in touched]
    entries = [*_entries(table, rewritten)]  # a writer hides errors raised before its first entry
    gone = []
    with _writer(table, snapshot_id, "replace_files") as writer:
        _add(writer, added, snapshot_id)
        for entry in entries:
            if entry.data_file.file_path in removed:
                writer.delete(entry)
                gone.append(entry.data_file)
            else:
                writer.existing(entry)
    assert len(gone) == len(removed), "a file to remove is not in the head's manifests"
    return NewManifests([writer.to_manifest_file(), *_without(kept, rewritten)], added, gone)


def new_metadata_output(table: Table, name: str) -> OutputFile:
    """Open a new file in the table's metadata folder."""
    return table.io.new_output(table.location_provider().new_metadata_location(name))


def _living(table: Table) -> list[ManifestFile]:
    """Read the head's manifests that name any live file."""
    head = table.metadata.current_snapshot()
    manifests = head.manifests(table.io) if head else []
    return [manifest for manifest in manifests if _size(manifest) != 0]


def _size(manifest: ManifestFile) -> int:
    """Count the live files it names; -1 where another engine did not say."""
    if manifest.added_files_count is None or manifest.existing_files_count is None:
        return -1
    return manifest.added_files_count + manifest.existing_files_count


def _writer(table: Table, snapshot_id: int, name: str) -> ManifestWriter:
    output = new_metadata_output(table, f"{name}-{snapshot_id}.avro")
    return write_manifest(FORMAT, table.spec(), table.schema(), output, snapshot_id, CODEC)


def _add(writer: ManifestWriter, files: Iterable[DataFile], snapshot_id: int) -> None:
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


def _entries(table: Table, manifests: Iterable[ManifestFile]) -> Iterable[ManifestEntry]:
    for manifest in manifests:
        yield from manifest.fetch_manifest_entry(table.io, discard_deleted=True)


def _without(
    manifests: Sequence[ManifestFile], rewritten: Sequence[ManifestFile]
) -> list[ManifestFile]:
    gone = {manifest.manifest_path for manifest in rewritten}
    return [manifest for manifest in manifests if manifest.manifest_path not in gone]


def _crowded(manifests: Sequence[ManifestFile], spec_id: int) -> list[ManifestFile]:
    """Find the manifests of the lowest size classes that overflow with one more; else none."""
    classes: dict[int, list[ManifestFile]] = {}
    for manifest in manifests:
        if manifest.content is ManifestContent.DATA and manifest.partition_spec_id == spec_id:
            size = size_class(_size(manifest), limits.MANIFESTS_TO_MERGE)
            classes.setdefault(size, []).append(manifest)
    chosen: list[ManifestFile] = []
    for size in range(limits.MANIFEST_CLASSES):
        if len(classes.get(size, [])) + 1 < limits.MANIFESTS_TO_MERGE:
            break
        chosen += classes[size]
    return chosen


def size_class(count: int, merged_at_once: int) -> int:
    """Return 0 for a count below `merged_at_once`, 1 below its square, and so on."""
    size = 0
    while count >= merged_at_once:
        count //= merged_at_once
        size += 1
    return size
