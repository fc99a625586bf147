"""Lists what a copy of the lake must hold: every file that a pinned catalog reaches.

A catalog names one metadata file a table, and everything that it reaches (`reachability.py`) is
immutable. So a copy of the catalog, taken in one step, pins a consistent lake of all tables while
the writer goes on.

A file that maintenance removes meanwhile is missing when it is read (FileNotFoundError): then a
newer catalog no longer names it, and the caller pins again.
"""

from __future__ import annotations

import sqlite3
import urllib.parse
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pyiceberg.serializers import FromInputFile
from pyiceberg.table.metadata import TableMetadata

from k2 import limits
from k2.errors import Data, Invalid, Reason
from k2.lake.iceberg.catalog import CATALOG_NAME, DurableFileIO, local_path
from k2.lake.iceberg.reachability import FileKind, Reach, ReachableFile
from k2.lake.iceberg.snapshot import LakeSnapshot, current_of
from k2.settings import Settings

_SQLITE, _LOCAL = "sqlite:///", "file://"
_TABLES = (
    "SELECT table_namespace || '.' || table_name, metadata_location FROM iceberg_tables"
    " WHERE catalog_name = ? ORDER BY 1"
)


@dataclass(frozen=True)
class LocalLake:
    """The location of a lake on this machine.

    Attributes:
        catalog: the SQLite file.
        warehouse: the folder of all tables.
    """

    catalog: Path
    warehouse: Path

    def inside(self, location: str) -> str:
        """Return a location as a path inside the warehouse.

        Raises:
            Data: LAKE_CORRUPT when it is not inside.
        """
        path, folder = local_path(location), f"{self.warehouse}/"
        inside = path.removeprefix(folder)
        if inside == path or ".." in Path(inside).parts:
            raise Data(Reason.LAKE_CORRUPT, f"{location} is not in the warehouse {self.warehouse}")
        return inside


@dataclass(frozen=True)
class Head:
    """A table as a pinned catalog names it.

    Attributes:
        name: with its namespace, `market.trades`.
        location: of its metadata file.
        metadata: of that file.
    """

    name: str
    location: str
    metadata: TableMetadata

    def snapshot(self) -> LakeSnapshot | None:
        """Return its newest snapshot; None while it is empty, or where no commit has positions."""
        return current_of(self.metadata) if "k2.positions" in self.metadata.properties else None


def local_lake(settings: Settings) -> LocalLake:
    """Return the lake's location on this machine.

    Raises:
        Invalid: BAD_SETTING when it is not on this machine alone.
    """
    if not settings.catalog_uri.startswith(_SQLITE):
        raise Invalid(
            Reason.BAD_SETTING,
            "the catalog is not a file of this machine: back it up and restore it with the tools "
            "of its database (pg_dump, pg_restore), after the warehouse's files",
        )
    if not settings.warehouse.startswith(_LOCAL):
        raise Invalid(
            Reason.BAD_SETTING,
            "the warehouse is not a folder of this machine: keep its files by the versioning and "
            "replication of the object store",
        )
    catalog = Path(settings.catalog_uri.removeprefix(_SQLITE))
    return LocalLake(catalog, Path(local_path(settings.warehouse)))


def pin_catalog(lake: LocalLake, copy: Path) -> None:
    """Copy the catalog as it is at one moment; the copy is one file without a log beside it.

    Raises:
        OSError, sqlite3.Error: it cannot be read, or the copy cannot be written.
    """
    quoted = urllib.parse.quote(str(lake.catalog))
    source = sqlite3.connect(f"file:{quoted}?mode=ro", uri=True, timeout=limits.CATALOG_BUSY_S)
    with closing(source), closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")


def heads_of(catalog: Path) -> tuple[Head, ...]:
    """Read the tables that a copy of a catalog names.

    Raises:
        FileNotFoundError: the metadata of one was superseded and removed.
    """
    io = DurableFileIO()
    return tuple(
        Head(name, location, FromInputFile.table_metadata(io.new_input(location)))
        for name, location in tables_of(catalog)
    )


def tables_of(catalog: Path) -> list[tuple[str, str]]:
    """Read names and metadata locations of the tables in a copy of a catalog."""
    with closing(sqlite3.connect(catalog)) as connection:
        return [(str(row[0]), str(row[1])) for row in connection.execute(_TABLES, (CATALOG_NAME,))]


def files_of(head: Head) -> list[ReachableFile]:
    """List every file that the kept snapshots of a table reach, each once; its metadata file first.

    Raises:
        FileNotFoundError: a file that had to be read was removed.
        Data: LAKE_CORRUPT when another engine wrote delete files, which K2 does not read.
    """
    reached = Reach().files(head.location, head.metadata, DurableFileIO())
    if any(file.kind is FileKind.DELETES for file in reached):
        raise Data(Reason.LAKE_CORRUPT, "another engine wrote delete files in the lake")
    return reached
