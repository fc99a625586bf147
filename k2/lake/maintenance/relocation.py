"""Moves a copied lake to another folder: Iceberg's files name each other by absolute locations.

Manifests, manifest lists and metadata are written again with the new locations; nothing else in
them changes: snapshot ids, sequence numbers, statistics and summaries stay. Data files and fold
states name no files and are left as they are. The metadata's log of its earlier versions is
emptied, because a backup does not hold them.

The lake is moved as a staged copy: the files lie under `stage`, name `old` locations, and are to
name `new` ones.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyiceberg.manifest import (
    ManifestFile,
    read_manifest_list,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.serializers import FromInputFile
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from k2.errors import Data, Reason
from k2.lake.iceberg.catalog import CATALOG_NAME, DurableFileIO, local_path, write_file
from k2.lake.iceberg.manifests import CODEC, FORMAT
from k2.lake.maintenance.backup_source import tables_of

_PATH, _LENGTH = 0, 1  # positions in a record of a manifest list
_FILE_PATH = 1  # position in a data file's record
_SWING = (
    "UPDATE iceberg_tables SET metadata_location = ?, previous_metadata_location = NULL"
    " WHERE catalog_name = ? AND table_namespace || '.' || table_name = ?"
)


@dataclass(frozen=True)
class Move:
    """The old and the new location of a warehouse.

    Attributes:
        old: the warehouse's address that the files name.
        new: the address they are to name.
        stage: the folder in which the warehouse's files lie now.
    """

    old: str
    new: str
    stage: Path

    def renamed(self, location: str) -> str:
        """Return an old location as a new one.

        Raises:
            Data: BACKUP_INVALID when it is not in the old warehouse.
        """
        return self.new + self._inside(location)

    def staged(self, location: str) -> str:
        """Return where the file of an old location lies now."""
        return f"file://{self.stage}{self._inside(location)}"

    def text(self, value: str) -> str:
        """Return an old location as a new one, and any other text as it is."""
        return self.renamed(value) if value.startswith(f"{self.old}/") else value

    def _inside(self, location: str) -> str:
        inside = location.removeprefix(self.old)
        if inside == location or not inside.startswith("/") or ".." in inside.split("/"):
            raise Data(Reason.BACKUP_INVALID, f"{location} is not in the warehouse {self.old}")
        return inside


@dataclass
class _Moving:
    """A move in progress, and the length of each manifest written again."""

    move: Move
    io: DurableFileIO = field(default_factory=DurableFileIO)
    lengths: dict[str, int] = field(default_factory=dict)


def relocate(catalog: Path, move: Move) -> None:
    """Make a staged lake name its new location.

    Args:
        catalog: a copy of the catalog, which is changed.
        move: from where to where.

    Raises:
        Data: BACKUP_INVALID when a location is not in the old warehouse.
        OSError: a file cannot be read or written.
    """
    with closing(sqlite3.connect(catalog)) as connection, connection:
        for name, location in tables_of(catalog):
            _move_table(_Moving(move), location)
            connection.execute(_SWING, (move.renamed(location), CATALOG_NAME, name))
        _move_namespaces(connection, move)


def _move_table(moving: _Moving, location: str) -> None:
    staged = moving.move.staged(location)
    metadata = FromInputFile.table_metadata(moving.io.new_input(staged))
    for snapshot in metadata.snapshots:
        _move_snapshot(moving, metadata, snapshot)
    path = Path(local_path(staged))
    content = _texts(json.loads(path.read_text()), moving.move)
    content["metadata-log"] = []
    path.unlink()
    write_file(moving.io.new_output(staged), json.dumps(content).encode())


def _move_snapshot(moving: _Moving, metadata: TableMetadata, snapshot: Snapshot) -> None:
    """Write a manifest list again, and those of its manifests that no other snapshot had."""
    staged = moving.move.staged(snapshot.manifest_list)
    manifests = list(read_manifest_list(moving.io.new_input(staged)))
    for manifest in manifests:
        location = manifest.manifest_path
        if location not in moving.lengths:
            moving.lengths[location] = _move_manifest(moving, metadata, manifest)
        manifest[_PATH] = moving.move.renamed(location)
        manifest[_LENGTH] = moving.lengths[location]
    with write_manifest_list(
        FORMAT,
        moving.io.new_output(staged),
        snapshot.snapshot_id,
        snapshot.parent_snapshot_id,
        snapshot.sequence_number,
        CODEC,
    ) as writer:
        writer.add_manifests(manifests)


def _move_manifest(moving: _Moving, metadata: TableMetadata, manifest: ManifestFile) -> int:
    """Write a manifest again; returns its length in bytes."""
    staged = moving.move.staged(manifest.manifest_path)
    manifest[_PATH] = staged
    entries = manifest.fetch_manifest_entry(moving.io, discard_deleted=False)
    spec = next(
        known for known in metadata.partition_specs if known.spec_id == manifest.partition_spec_id
    )
    output = moving.io.new_output(staged)
    added_by = manifest.added_snapshot_id or 0
    with write_manifest(FORMAT, spec, metadata.schema(), output, added_by, CODEC) as writer:
        for entry in entries:
            entry.data_file[_FILE_PATH] = moving.move.renamed(entry.data_file.file_path)
            writer.add_entry(entry)
    return Path(local_path(staged)).stat().st_size


def _move_namespaces(connection: sqlite3.Connection, move: Move) -> None:
    """Move the locations that some catalogs keep with a namespace."""
    columns = "namespace, property_key, property_value"
    query = f"SELECT {columns} FROM iceberg_namespace_properties WHERE catalog_name = ?"
    for namespace, key, value in connection.execute(query, (CATALOG_NAME,)).fetchall():
        connection.execute(
            "UPDATE iceberg_namespace_properties SET property_value = ?"
            " WHERE catalog_name = ? AND namespace = ? AND property_key = ?",
            (move.text(value or ""), CATALOG_NAME, namespace, key),
        )


def _texts(value: Any, move: Move) -> Any:  # noqa: ANN401 JSON
    """Return the same JSON with every text that is an old location as a new one."""
    if isinstance(value, Mapping):
        return {key: _texts(inner, move) for key, inner in value.items()}
    if isinstance(value, list):
        return [_texts(inner, move) for inner in value]
    return move.text(value) if isinstance(value, str) else value
