"""Backs up a data directory while its stack runs, or while it does not.

1. What is written whole or never changed is copied: stamp, schemas by id, the key that signs
   tickets (readable by its owner alone, there as here).
2. The registry's database is copied until it did not change meanwhile. Such a copy is what a kill
   at that moment would have left, which the database recovers from; it is written so rarely that
   the first copy nearly always is one.
3. The catalog is pinned by one step of SQLite's own backup; then everything it reaches is copied
   (`k2/lake/maintenance/backup_source.py`), data files only where an earlier backup has not left
   them there. If maintenance removed one of them meanwhile, the catalog is pinned again.
4. The description is written last, durably: only then is it a backup (`backup_store.py`).

The tape is not backed up. It is the buffer in front of the lake: what a restored lake does not hold
is read from it again from O on, or, where it is lost too, fetched again by trade ids.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k2 import limits
from k2.clock import Clock
from k2.errors import Data, Invalid, NotFound, Overloaded, Reason, Unavailable
from k2.lake.iceberg.reachability import ReachableFile
from k2.lake.maintenance.backup_source import (
    Head,
    LocalLake,
    files_of,
    heads_of,
    local_lake,
    pin_catalog,
    tables_of,
)
from k2.settings import Settings
from servers.local import backup_store as vault
from servers.local import layout
from servers.local.backup_store import Backup, Entry, Vault
from servers.local.stamp import Stamp

CATALOG = "lake/catalog.db"
WAREHOUSE = "lake/warehouse"
PRIVATE = "ticket.key"
_WHOLE = (layout.STAMP, PRIVATE, "schemas/*.json")
_REGISTRY = "registry/*.db"

Progress = Callable[[str, int, int], None]


class Stopped(Exception):
    """The process was asked to stop; files that were copied stay for the next backup."""


@dataclass(frozen=True)
class Made:
    """The result of a backup.

    Attributes:
        backup: its description.
        copied_bytes: of data files that were not there before.
        pins: how often the catalog was pinned.
    """

    backup: Backup
    copied_bytes: int
    pins: int


class Meter:
    """Counts bytes, tells progress, and ends the work when asked to.

    Args:
        progress: called with the step, bytes done, and bytes in all (0: not known).
        stopping: asks whether to stop.
    """

    def __init__(self, progress: Progress, stopping: Callable[[], bool]) -> None:
        self._progress, self._stopping = progress, stopping
        self._what, self._done, self._total = "", 0, 0

    def begin(self, what: str, total: int) -> None:
        """Go on to something else."""
        self._what, self._done, self._total = what, 0, total
        self.tick(0)

    def tick(self, size: int) -> None:
        """Count bytes that were moved.

        Raises:
            Stopped: when asked to.
        """
        if self._stopping():
            raise Stopped
        self._done += size
        self._progress(self._what, min(self._done, self._total), self._total)


def back_up(settings: Settings, folder: Path, clock: Clock, name: str, meter: Meter) -> Made:
    """Back up the data directory of the settings.

    Args:
        settings: whose data directory.
        folder: of the backup; made, or one with an earlier backup of the same directory.
        clock: for the time of the pin, and pauses.
        name: unlike any other backup's.
        meter: counts progress.

    Raises:
        Invalid: BAD_REQUEST, BAD_SETTING, NOT_EMPTY, NOT_WRITABLE or ALREADY_RUNNING.
        NotFound: BAD_REQUEST when there is nothing to back up.
        Data: LAKE_CORRUPT; BACKUP_INVALID when the earlier backup cannot be read; see `layout`.
        Overloaded: DISK_FULL.
        Unavailable: LAKE_UNAVAILABLE or REGISTRY_UNAVAILABLE when they never hold still.
        Stopped: when asked to.
    """
    data_dir = settings.data_dir.resolve()
    lake = local_lake(settings)
    _check_apart(data_dir, lake, folder)
    stamp = layout.check(data_dir)
    if stamp is None:
        raise NotFound(Reason.FILE_NOT_FOUND, f"there is no data of K2 in {data_dir}")
    with vault.writing(folder), vault.target_errors(folder):
        work = _Work(data_dir, lake, Vault(folder, name, meter.tick), clock, meter)
        try:
            return work.run(stamp)
        except BaseException:
            work.vault.abandon()
            raise


def _check_apart(data_dir: Path, lake: LocalLake, folder: Path) -> None:
    for taken in (data_dir, lake.warehouse):
        if folder == taken or taken in folder.parents or folder in taken.parents:
            raise Invalid(
                Reason.BAD_REQUEST,
                f"{folder} and {taken} lie in one another: a backup belongs elsewhere, best on "
                "another disk",
            )


@dataclass
class _Work:
    """One backup being made."""

    data_dir: Path
    lake: LocalLake
    vault: Vault
    clock: Clock
    meter: Meter
    copied: int = 0
    made_at_us: int = 0

    def run(self, stamp: Stamp) -> Made:
        """Run all steps."""
        files = [*self._whole(), *self._registry()]
        heads: tuple[Head, ...] = ()
        pins = 0
        if self.lake.catalog.exists():
            heads, of_lake, pins = self._lake()
            files += of_lake
        backup = Backup(
            made_at_us=self.made_at_us or self.clock.now_us(),
            source=stamp.source,
            exchange=stamp.exchange,
            data_version=stamp.version,
            warehouse=f"file://{self.lake.warehouse}",
            tables=tuple(map(_described, heads)),
            files=tuple(files),
        )
        self.vault.finish(backup)
        return Made(backup, self.copied, pins)

    def _whole(self) -> Iterator[Entry]:
        self.meter.begin("stamp, schemas and key", 0)
        for pattern in _WHOLE:
            for path in sorted(self.data_dir.glob(pattern)):
                yield self.vault.keep(path, path.relative_to(self.data_dir).as_posix())

    def _registry(self) -> Iterator[Entry]:
        for path in sorted(self.data_dir.glob(_REGISTRY)):
            yield self._steady(path)

    def _steady(self, path: Path) -> Entry:
        """Copy a file until it did not change during the copy."""
        self.meter.begin("registry", 0)
        for _ in range(limits.STEADY_COPIES_MAX):
            before = path.stat().st_mtime_ns
            entry = self.vault.keep(path, path.relative_to(self.data_dir).as_posix())
            again = vault.measure(path, self.meter.tick)
            if (entry.size, entry.sha256) == again and path.stat().st_mtime_ns == before:
                return entry
            self.clock.sleep(limits.STEADY_PAUSE_S)
        raise Unavailable(
            Reason.REGISTRY_UNAVAILABLE,
            f"{path} changes all the time: back up when fewer schemas are registered",
        )

    def _lake(self) -> tuple[tuple[Head, ...], list[Entry], int]:
        """Pin the tables and list their files; returns how many pins it took, too."""
        last: list[tuple[str, str]] = []
        for pin in range(1, limits.BACKUP_PINS_MAX + 1):
            catalog = self._pinned()
            tables = tables_of(catalog)
            try:
                heads = heads_of(catalog)
                self._check_same(heads)
                return heads, [self.vault.kept(CATALOG), *self._files(heads)], pin
            except FileNotFoundError as error:
                if tables == last:
                    raise Data(
                        Reason.LAKE_CORRUPT, f"the lake names a file that is gone: {error}"
                    ) from error
            last = tables
        raise Unavailable(
            Reason.LAKE_UNAVAILABLE,
            f"{limits.BACKUP_PINS_MAX} times a file was removed before it was copied: "
            "back up when there is less to maintain",
        )

    def _check_same(self, heads: tuple[Head, ...]) -> None:
        """Refuse to replace the backup of another lake."""
        before = self.vault.before
        known = {table["uuid"] for table in before.tables} if before else set()
        if known and known.isdisjoint(str(head.metadata.table_uuid) for head in heads):
            raise Invalid(
                Reason.NOT_EMPTY,
                f"{self.vault.folder} holds the backup of another lake: name another folder",
            )

    def _pinned(self) -> Path:
        self.meter.begin("catalog", 0)
        copy = self.vault.room(CATALOG)
        shutil.rmtree(copy.parent)
        copy = self.vault.room(CATALOG)
        self.made_at_us = self.clock.now_us()
        try:
            pin_catalog(self.lake, copy)
        except sqlite3.Error as error:
            raise Unavailable(
                Reason.LAKE_UNAVAILABLE, f"the catalog cannot be copied: {error}"
            ) from error
        return copy

    def _files(self, heads: tuple[Head, ...]) -> Iterator[Entry]:
        reached = [file for head in heads for file in files_of(head)]
        missing = sum(file.size or 0 for file in reached if file.data and not self._has(file))
        free = shutil.disk_usage(self.vault.folder).free
        if missing > free:
            raise Overloaded(
                Reason.DISK_FULL,
                f"{missing:,} bytes are to be copied, {free:,} are free in {self.vault.folder}",
            )
        self.meter.begin("metadata", 0)
        for file in reached:
            if not file.data:
                inside = self.lake.inside(file.location)
                yield self.vault.keep(self.lake.warehouse / inside, f"{WAREHOUSE}/{inside}")
        self.meter.begin("data files", missing)
        for file in reached:
            if file.data:
                yield self._data(file)

    def _has(self, file: ReachableFile) -> bool:
        return self.vault.holds(self.lake.inside(file.location), file.size or 0)

    def _data(self, file: ReachableFile) -> Entry:
        inside, size = self.lake.inside(file.location), file.size or 0
        source = self.lake.warehouse / inside
        entry, copied = self.vault.share(source, inside, size, f"{WAREHOUSE}/{inside}")
        if entry.size != size:
            message = f"{source} has {entry.size} bytes, the lake says {size}"
            raise Data(Reason.LAKE_CORRUPT, message)
        self.copied += size if copied else 0
        return entry


def _described(head: Head) -> dict[str, Any]:
    """Describe a table; ids are text, because a JSON number would lose digits."""
    snapshot = head.snapshot()
    found: dict[str, Any] = {"name": head.name, "uuid": str(head.metadata.table_uuid)}
    if snapshot is None:
        return found | {"snapshot_id": None}
    return found | {
        "snapshot_id": str(snapshot.snapshot_id),
        "committed_at_us": snapshot.committed_at_us,
        "rows": snapshot.rows_total,
        "snapshots": len(head.metadata.snapshots),
        "epoch": snapshot.positions.epoch,
        "positions": snapshot.positions.encode(),
        "topic": snapshot.topic,
        "topic_id": snapshot.topic_id,
        "cluster_id": snapshot.cluster_id,
    }
