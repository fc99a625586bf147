"""Every file that a version of the table's metadata names, itself included.

Manifest lists and manifests never change, so what they name is read once.
"""

from __future__ import annotations

from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

_STATES = ("k2.state", "k2.epoch-state")  # of a commit, and of the beginning of its epoch


class Reach:
    """Finds what is reachable; remembers manifests. One thread."""

    def __init__(self) -> None:
        self._lists: dict[int, tuple[str, ...]] = {}
        self._files: dict[str, tuple[str, ...]] = {}

    def of(self, table: Table) -> set[str]:
        """Paths (as the warehouse's file system lists them) of all files the table reaches.

        The versions of the metadata that its log names are among them; what only those name is not.

        Raises:
            OSError: something could not be read.
        """
        metadata = table.metadata
        found = {
            table.metadata_location,
            *(entry.metadata_file for entry in metadata.metadata_log),
            *(one.statistics_path for one in metadata.statistics),
            *(one.statistics_path for one in metadata.partition_statistics),
            *(metadata.properties.get(name, "") for name in _STATES),
        }
        lists = {one.snapshot_id: self._manifests(table, one) for one in metadata.snapshots}
        manifests = {path for paths in lists.values() for path in paths}
        for snapshot in metadata.snapshots:
            found.add(snapshot.manifest_list)
            if snapshot.summary:
                carried = snapshot.summary.additional_properties
                found.update(carried.get(name, "") for name in _STATES)
        found |= manifests
        found.update(path for one in manifests for path in self._files[one])
        self._lists = lists
        self._files = {one: self._files[one] for one in manifests}
        return {path_of(location) for location in found if location}

    def _manifests(self, table: Table, snapshot: Snapshot) -> tuple[str, ...]:
        """The manifests of a snapshot, each read."""
        known = self._lists.get(snapshot.snapshot_id)
        if known is not None:
            return known
        manifests = snapshot.manifests(table.io)
        for one in manifests:
            if one.manifest_path not in self._files:
                self._files[one.manifest_path] = tuple(
                    entry.data_file.file_path
                    for entry in one.fetch_manifest_entry(table.io, discard_deleted=True)
                )
        return tuple(one.manifest_path for one in manifests)


def path_of(location: str) -> str:
    """A location as its file system names it."""
    return PyArrowFileIO.parse_location(location)[2]
