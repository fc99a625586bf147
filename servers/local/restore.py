"""Restores a backup: into a new data directory, or a lost lake beside a tape that still exists.

1. Everything is copied into a staging folder of the data directory, each file held against its
   SHA-256. Nothing else is touched before all of them fit.
2. The lake is made to name its new place (`k2/lake/maintenance/relocation.py`).
3. Then all is renamed into place, the lake last, and the staging folder removed.

While the staging folder holds a lake, or there is none beside it, `k2 up` refuses the data
directory, and the same restore can be started again.

Beside its own tape a restored lake goes on from its O as if it had never been away. Elsewhere the
broker is a new one, which the writer refuses by name (CLUSTER_CHANGED).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from k2 import limits
from k2.clock import Clock
from k2.errors import Data, Invalid, Overloaded, Reason
from k2.lake.iceberg.catalog import sync_directory
from k2.lake.maintenance.relocation import Move, relocate
from k2.settings import Settings
from servers.local import backup_store, layout
from servers.local.backup import CATALOG, PRIVATE, WAREHOUSE, Meter
from servers.local.backup_store import Backup, Entry, read_backup
from servers.local.embedded_stack import check_writable
from servers.local.stack_file import holding
from servers.local.stamp import read_stamp

_LAKE = "lake"
_OWN = ("run", "logs", "tmp", layout.RESTORING)  # of every data directory, and of a restore
_TAPE = "kafka"


@dataclass(frozen=True)
class Restored:
    """The result of a restore.

    Attributes:
        backup: what it was made of.
        files, bytes: how much was put in place.
    """

    backup: Backup
    files: int
    bytes: int


def restore(
    settings: Settings, folder: Path, clock: Clock, meter: Meter, *, keep_tape: bool
) -> Restored:
    """Put a backup into the data directory of the settings.

    Args:
        settings: where to.
        folder: of the backup.
        clock: for the patience with the directory's lock.
        meter: counts progress.
        keep_tape: only what is missing beside the tape, the lake above all; else the data directory
            must be empty.

    Raises:
        Invalid: NOT_EMPTY, ALREADY_RUNNING, NOT_WRITABLE or BAD_SETTING.
        Data: BACKUP_INVALID, CHECKSUM_MISMATCH, DATA_DIR_NEWER or STAMP_MISMATCH.
        Overloaded: DISK_FULL.
        Stopped: when asked to; nothing is in place then.
    """
    if settings.lake.catalog_uri or settings.lake.warehouse:
        raise Invalid(
            Reason.BAD_SETTING,
            "lake.catalog_uri or lake.warehouse is set, and a lake is restored under the data "
            "directory: unset them",
        )
    backup = read_backup(folder)
    layout.check_version(backup.data_version, str(folder))
    data_dir = settings.data_dir.resolve()
    check_writable(data_dir)
    with holding(data_dir / "run", clock), backup_store.target_errors(data_dir):
        (_check_beside_tape if keep_tape else _check_empty)(data_dir, backup)
        entries = [entry for entry in backup.files if _is_wanted(entry, data_dir)]
        stage = data_dir / layout.RESTORING
        try:
            _stage(entries, folder, stage, meter)
            warehouse = f"file://{data_dir / WAREHOUSE}"
            if (stage / CATALOG).exists():
                relocate(stage / CATALOG, Move(backup.warehouse, warehouse, stage / WAREHOUSE))
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
        _put_in_place(stage, data_dir)
    return Restored(backup, len(entries), sum(entry.size for entry in entries))


def _check_empty(data_dir: Path, _backup: Backup) -> None:
    there = {path.name for path in data_dir.iterdir()} - set(_OWN)
    if (data_dir / layout.RESTORING).exists():  # what an unfinished restore had put in place
        there -= {"schemas", "registry", layout.STAMP, PRIVATE}
    if there:
        raise Invalid(
            Reason.NOT_EMPTY,
            f"{data_dir} holds data already ({min(there)}): name a new --data-dir; to restore a "
            "lost lake beside the tape that is still there, use --keep-tape",
        )


def _check_beside_tape(data_dir: Path, backup: Backup) -> None:
    if (data_dir / _LAKE).exists():
        raise Invalid(
            Reason.NOT_EMPTY, f"there is a lake in {data_dir}: move {data_dir / _LAKE} away first"
        )
    if not (data_dir / _TAPE).exists():
        raise Invalid(
            Reason.BAD_REQUEST, f"there is no tape in {data_dir} to keep: leave out --keep-tape"
        )
    stamp = read_stamp(data_dir / layout.STAMP)
    have = (stamp.source, stamp.exchange) if stamp else None
    if have not in (None, (backup.source, backup.exchange)):
        raise Data(
            Reason.STAMP_MISMATCH,
            f"{data_dir} holds {' '.join(have or ())} data, the backup "
            f"{backup.source} {backup.exchange} data",
        )


def _is_wanted(entry: Entry, data_dir: Path) -> bool:
    """Whether to put a file back: all of the lake, of all else what is missing."""
    if Path(entry.to).is_absolute() or ".." in Path(entry.to).parts + Path(entry.path).parts:
        raise Data(Reason.BACKUP_INVALID, f"the backup names a file outside of it: {entry.to}")
    return entry.to.startswith(f"{_LAKE}/") or not (data_dir / entry.to).exists()


def _stage(entries: list[Entry], folder: Path, stage: Path, meter: Meter) -> None:
    """Copy all files, each held against its checksum."""
    shutil.rmtree(stage, ignore_errors=True)
    size = sum(entry.size for entry in entries)
    free = shutil.disk_usage(stage.parent).free
    if size + limits.DISK_FREE_MIN > free:
        raise Overloaded(
            Reason.DISK_FULL,
            f"{size:,} bytes are to be restored and {limits.DISK_FREE_MIN:,} to be left, {free:,} "
            f"are free in {stage.parent}",
        )
    stage.mkdir()
    meter.begin("copying and checking", size)
    for entry in entries:
        try:
            found = backup_store.copy_file(folder / entry.path, stage / entry.to, meter.tick)
        except FileNotFoundError as error:
            raise Data(Reason.BACKUP_INVALID, f"{folder / entry.path} is missing") from error
        if found != (entry.size, entry.sha256):
            raise Data(
                Reason.CHECKSUM_MISMATCH,
                f"{folder / entry.path} is not what was backed up; nothing was restored",
            )


def _put_in_place(stage: Path, data_dir: Path) -> None:
    """Rename what was staged, the lake last, and make that durable."""
    for folder in (stage, *(path for path in stage.rglob("*") if path.is_dir())):
        sync_directory(str(folder))
    for path in sorted(_movable(stage, data_dir), key=lambda path: path.name == _LAKE):
        target = data_dir / path.relative_to(stage)
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
        sync_directory(str(target.parent))
    sync_directory(str(data_dir))
    shutil.rmtree(stage)
    sync_directory(str(data_dir))


def _movable(stage: Path, data_dir: Path) -> Iterator[Path]:
    """List what can be renamed at once: a folder that is not there yet, else its content."""
    for path in stage.iterdir():
        if path.is_dir() and (data_dir / path.name).is_dir():
            yield from path.iterdir()
        else:
            yield path
