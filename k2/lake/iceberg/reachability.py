"""Finds every file that a version of a table's metadata reaches, the metadata file included.

The metadata names snapshots, statistics and the files that K2's commits carry (the fold's state); a
snapshot names its manifest list, the list its manifests, a manifest its data files. None of these
files ever changes, so manifest lists and manifests are read once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestContent, ManifestFile, read_manifest_list
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from k2.lake.iceberg.catalog import DurableFileIO

_STATES = ("k2.state", "k2.epoch-state")  # of a commit, and of the beginning of its epoch


class FileKind(Enum):
    """What a file is for."""

    ROWS = "rows"
    DELETES = "deletes"  # of another engine, and the manifests that name such files
    METADATA = "metadata"


@dataclass(frozen=True)
class ReachableFile:
    """One file that a table reaches.

    Attributes:
        location: its URI.
        size: in bytes, where the file that names it says so.
        kind: what it is for.
    """

    location: str
    size: int | None
    kind: FileKind

    @property
    def data(self) -> bool:
        """Whether it holds rows, under a name that is never given again."""
        return self.kind is FileKind.ROWS


class Reach:
    """Finds reachable files; keeps the manifests that it read. One thread."""

    def __init__(self) -> None:
        self._lists: dict[int, tuple[ManifestFile, ...]] = {}
        self._entries: dict[str, tuple[ReachableFile, ...]] = {}

    def of(self, table: Table) -> set[str]:
        """List the paths of all files that the table reaches, as the warehouse's file system does.

        The metadata versions of the table's log are included; files that only those versions name
        are not.

        Raises:
            OSError: something could not be read.
        """
        found = {
            file.location for file in self.files(table.metadata_location, table.metadata, table.io)
        }
        found |= {entry.metadata_file for entry in table.metadata.metadata_log}
        return {path_of(location) for location in found}

    def files(self, location: str, metadata: TableMetadata, io: FileIO) -> list[ReachableFile]:
        """List the files that a reader of this metadata may read, each once, its own file first.

        Raises:
            OSError: something could not be read.
        """
        lists = {kept.snapshot_id: self._manifests(kept, io) for kept in metadata.snapshots}
        manifests = {listed.manifest_path: listed for of in lists.values() for listed in of}
        entries = {path: self._named_by(listed, io) for path, listed in manifests.items()}
        self._lists, self._entries = lists, entries
        named = [location, *sorted(_named(metadata))]
        named += [kept.manifest_list for kept in metadata.snapshots]
        files = [ReachableFile(path, None, FileKind.METADATA) for path in named]
        for path, listed in manifests.items():
            kind = FileKind.METADATA if _of_rows(listed) else FileKind.DELETES
            files += [ReachableFile(path, listed.manifest_length, kind), *entries[path]]
        return [*{file.location: file for file in files}.values()]

    def _manifests(self, snapshot: Snapshot, io: FileIO) -> tuple[ManifestFile, ...]:
        known = self._lists.get(snapshot.snapshot_id)
        if known is not None:
            return known
        return tuple(read_manifest_list(io.new_input(snapshot.manifest_list)))

    def _named_by(self, manifest: ManifestFile, io: FileIO) -> tuple[ReachableFile, ...]:
        known = self._entries.get(manifest.manifest_path)
        if known is not None:
            return known
        kind = FileKind.ROWS if _of_rows(manifest) else FileKind.DELETES
        return tuple(
            ReachableFile(entry.data_file.file_path, entry.data_file.file_size_in_bytes, kind)
            for entry in manifest.fetch_manifest_entry(io, discard_deleted=True)
        )


def _of_rows(manifest: ManifestFile) -> bool:
    return bool(manifest.content is ManifestContent.DATA)


def _named(metadata: TableMetadata) -> set[str]:
    """Collect statistics, and the files that K2's commits carry."""
    statistics = [*metadata.statistics, *metadata.partition_statistics]
    carried = [metadata.properties]
    carried += [kept.summary.additional_properties for kept in metadata.snapshots if kept.summary]
    inside = f"{metadata.location}/"
    return {file.statistics_path for file in statistics} | {
        value
        for properties in carried
        for name, value in properties.items()
        if name.startswith("k2.") and (value.startswith(inside) or (value and name in _STATES))
    }


def path_of(location: str) -> str:
    """Return a location as its file system names it."""
    return DurableFileIO.parse_location(location)[2]
