"""The on-disk layout of a backup, and the marker that makes it valid.

    backup.json          what it is of, and every file with its size and SHA-256; written last
    backup.lock          held by the process that writes here
    data/...             data files of the lake; immutable, so the next backup keeps them
    state-ID/...         all else, as it was at one moment

`backup.json` makes the backup: a folder without it holds none, and until a new one has taken its
place the earlier backup stays whole, because nothing that it names is ever written again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from k2 import limits
from k2.errors import Data, Invalid, K2Error, Overloaded, Reason
from k2.lake.iceberg.catalog import sync_directory
from servers.local.embedded_stack import disk_error

VERSION = 1
DATA = "data"
_MANIFEST, _LOCK = "backup.json", "backup.lock"
_STATE = "state-"

Tick = Callable[[int], None]  # gets the bytes that were moved; may raise to stop


@dataclass(frozen=True)
class Entry:
    """One file of a backup.

    Attributes:
        path: inside the backup's folder.
        to: inside the data directory.
        size: in bytes.
        sha256: of its content, hexadecimal.
    """

    path: str
    to: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Backup:
    """The description of a backup, `backup.json`.

    Attributes:
        made_at_us: when its catalog was pinned.
        source, exchange: the stamp of the data directory.
        data_version: of the data directory's layout.
        warehouse: address that the lake's files name.
        tables: of each table its name, newest snapshot, and where that stands on which tape.
        files: all of them.
        version: of this description.
    """

    made_at_us: int
    source: str
    exchange: str
    data_version: int
    warehouse: str
    tables: tuple[dict[str, Any], ...]
    files: tuple[Entry, ...] = field(repr=False)
    version: int = VERSION

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)


def read_backup(folder: Path) -> Backup:
    """Read the description of the backup in a folder.

    Raises:
        Data: BACKUP_INVALID when there is none, or not one that this K2 understands.
    """
    path = folder / _MANIFEST
    try:
        content = json.loads(path.read_bytes())
        if content["version"] > VERSION:
            raise Data(Reason.BACKUP_INVALID, f"{path} was made by a newer K2: use that one")
        files = tuple(Entry(**entry) for entry in content.pop("files"))
        tables = tuple(dict(table) for table in content.pop("tables"))
        return Backup(**content, files=files, tables=tables)
    except FileNotFoundError as error:
        raise Data(
            Reason.BACKUP_INVALID, f"there is no backup in {folder}: {_MANIFEST} is missing"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Data(Reason.BACKUP_INVALID, f"{path} cannot be read: {error!r}") from error


class Vault:
    """Writes a backup. One thread.

    Args:
        folder: the backup's.
        state: unlike any other backup's: names the folder of what is not shared.
        tick: counts progress.

    Attributes:
        before: the backup that is there; None where there is none.

    Raises:
        Data: BACKUP_INVALID when there is one that cannot be read.
    """

    def __init__(self, folder: Path, state: str, tick: Tick) -> None:
        self.folder = folder
        self.state = f"{_STATE}{state}"
        self._tick = tick
        self._touched: set[Path] = {folder}
        self.before = read_backup(folder) if (folder / _MANIFEST).exists() else None
        self._known = {entry.path: entry for entry in self.before.files} if self.before else {}

    def room(self, name: str) -> Path:
        """Make the folder for a file of this backup alone; returns the file's path."""
        path = self.folder / self.state / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def keep(self, source: Path, to: str) -> Entry:
        """Copy a file into the part that only this backup names.

        Raises:
            FileNotFoundError: the source is gone.
            OSError: anything else.
        """
        return self._copied(source, f"{self.state}/{to}", to)

    def kept(self, to: str) -> Entry:
        """Describe a file that was written to `room(to)`."""
        path = self.folder / self.state / to
        self._touched.add(path.parent)
        return Entry(f"{self.state}/{to}", to, *measure(path, self._tick))

    def share(self, source: Path, inside: str, size: int, to: str) -> tuple[Entry, bool]:
        """Have a data file in the part that backups share; whether it had to be copied.

        Raises:
            FileNotFoundError: the source is gone.
            OSError: anything else.
        """
        path = f"{DATA}/{inside}"
        there = self.folder / path
        if there.is_file() and there.stat().st_size == size:
            self._touched.add(there.parent)
            known = self._known.get(path) or Entry(path, to, *measure(there, self._tick))
            return replace(known, to=to), False
        return self._copied(source, path, to), True

    def holds(self, inside: str, size: int) -> bool:
        """Whether `share` would have nothing to copy."""
        with suppress(FileNotFoundError):
            return (self.folder / DATA / inside).stat().st_size == size
        return False

    def finish(self, backup: Backup) -> None:
        """Make it a backup, then remove what the one before it needed and this one does not."""
        for folder in self._touched | {parent for path in self._touched for parent in path.parents}:
            if folder == self.folder or self.folder in folder.parents:
                sync_directory(str(folder))
        scratch = self.folder / f"{_MANIFEST}.new"
        with scratch.open("w") as file:
            json.dump(asdict(backup), file)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self.folder / _MANIFEST)
        sync_directory(str(self.folder))
        self._prune({entry.path for entry in backup.files})

    def abandon(self) -> None:
        """Remove what this backup alone would have named."""
        shutil.rmtree(self.folder / self.state, ignore_errors=True)

    def _copied(self, source: Path, path: str, to: str) -> Entry:
        target = self.folder / path
        self._touched.add(target.parent)
        return Entry(path, to, *copy_file(source, target, self._tick))

    def _prune(self, needed: set[str]) -> None:
        for state in self.folder.glob(f"{_STATE}*"):
            if state.name != self.state:
                shutil.rmtree(state, ignore_errors=True)
        for path in (self.folder / DATA).rglob("*"):
            if path.is_file() and path.relative_to(self.folder).as_posix() not in needed:
                path.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Be the only one that writes a backup there; the folder is made.

    Raises:
        Invalid: NOT_EMPTY when it holds something else, ALREADY_RUNNING when another writes there,
            NOT_WRITABLE.
        Overloaded: DISK_FULL.
    """
    with target_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        foreign = sorted(path.name for path in folder.iterdir() if not _ours(path.name))
        if foreign:
            raise Invalid(
                Reason.NOT_EMPTY,
                f"{folder} holds other things than a backup ({foreign[0]}): name an empty folder",
            )
        lock = (folder / _LOCK).open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Invalid(
                Reason.ALREADY_RUNNING, f"another backup is being written to {folder}"
            ) from error
        yield


def _ours(name: str) -> bool:
    return name in (_MANIFEST, _LOCK, DATA, f"{_MANIFEST}.new") or name.startswith(_STATE)


def copy_file(source: Path, target: Path, tick: Tick) -> tuple[int, str]:
    """Copy a file; under its name it is whole and durable. Its size and SHA-256.

    Raises:
        FileNotFoundError: the source is gone.
        OSError: anything else.
    """
    unfinished = target.with_name(f"{target.name}.part")
    with source.open("rb") as reader:
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as writer:
            os.fchmod(writer.fileno(), os.fstat(reader.fileno()).st_mode & 0o777)
            found = _hashed(iter(lambda: reader.read(limits.COPY_BYTES), b""), tick, writer.write)
            writer.flush()
            os.fsync(writer.fileno())
    unfinished.replace(target)
    return found


def measure(path: Path, tick: Tick) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as reader:
        return _hashed(iter(lambda: reader.read(limits.COPY_BYTES), b""), tick, len)


def _hashed(pieces: Iterable[bytes], tick: Tick, take: Callable[[bytes], int]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        take(piece)
        digest.update(piece)
        size += len(piece)
        tick(len(piece))
    return size, digest.hexdigest()


@contextmanager
def target_errors(folder: Path) -> Iterator[None]:
    """Say what a refusal of the file system under a backup means.

    Raises:
        Overloaded: DISK_FULL.
        Invalid: NOT_WRITABLE.
    """
    try:
        yield
    except OSError as error:
        raise target_error(error, folder) from error


def target_error(error: OSError, folder: Path) -> K2Error:
    """Convert an error of the file system."""
    known = disk_error(error, folder)
    if isinstance(known, Overloaded):
        return Overloaded(
            Reason.DISK_FULL,
            f"no space left in {folder}: make room and start again; what was copied is kept",
        )
    return Invalid(Reason.NOT_WRITABLE, f"{folder}: {error}")
