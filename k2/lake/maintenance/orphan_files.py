"""Removes orphan files, and argues why it removes no other file.

A file is an *orphan* when no kept snapshot names it and none ever will. It is removed when it has
been known as an orphan for the grace, which is longer than any query can go on reading.

*No snapshot names it.* The files are listed first; what is reachable is read from a head that was
loaded after that. A file of the list that this head does not reach was either removed from the
table, or belongs to a commit that has not landed.

*None ever will.* A commit lands only on the very head it was prepared on. The process that wrote a
file of the list had loaded that head before the list was made. So after the list the remover
commits a *fence*, a snapshot that changes nothing (`maintenance_commit.py`): every commit prepared
before it is refused from then on, however long its writer sleeps (a laptop's lid, a stopped
process). What the head of the fence does not reach is an orphan for good. A process that may commit
files on a later head than they were made for (compaction) checks whether a fence lies between, and
drops them if so. This part does not depend on clocks.

*No query reads it.* A query reads files of a snapshot that was kept when it was planned, until its
ticket and its stream end. A file's age does not say when it became an orphan: a file of last week
may have been merged away a minute ago. So each sweep records the orphans it found and the time, in
a list beside the metadata (`k2-dead-...json`), and removes them once that time is the grace ago. A
list is written once and never changed, and orphans stay orphans, so every later reader may rely on
it; the loss of a list only delays removal. Here clocks count: the grace is longer than a query by
more than they may differ (`limits.CLOCK_SKEW_MAX_S`).

A read error ends the sweep: with half of what is reachable, no file is known to be an orphan.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from pyarrow.fs import FileSelector, FileSystem, FileType
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from k2.clock import Clock
from k2.lake.commit.snapshot_commit import RewriteFiles
from k2.lake.iceberg.catalog import reaching_lake, write_file
from k2.lake.iceberg.manifests import new_metadata_output
from k2.lake.iceberg.reachability import Reach, path_of
from k2.lake.maintenance.maintenance_commit import MaintenanceCommitter

_LIST = "k2-dead-"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found and did.

    Attributes:
        files: on disk when it began, its own lists not counted.
        waiting, waiting_bytes: orphans that are not removed yet.
        removed, removed_bytes: removed now.
    """

    files: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    removed: int = 0
    removed_bytes: int = 0


@dataclass(frozen=True)
class _OrphanList:
    """The orphans that one sweep found."""

    path: str
    since_us: int
    dead: frozenset[str]


class OrphanFileRemover:
    """Sweeps one table. One thread.

    Args:
        replacer: loads the table and commits fences.
        clock: of the grace.
        grace_s: how long an orphan stays on disk.
    """

    def __init__(self, *, replacer: MaintenanceCommitter, clock: Clock, grace_s: float) -> None:
        self._replacer = replacer
        self._clock = clock
        self._grace_us = int(grace_s * 1_000_000)
        self._reach = Reach()

    def sweep(self) -> SweepResult:
        """Find orphan files, and remove those known for the grace.

        Raises:
            Unavailable: LAKE_UNAVAILABLE. Overloaded: DISK_FULL. Data: LAKE_CORRUPT.
        """
        folder = _Folder(self._replacer.load())
        with reaching_lake():
            sizes = folder.sizes()
            reachable = self._reach.of(self._replacer.load())
            lists = folder.lists(sizes)
            for listed in lists:
                del sizes[listed.path]
            since = _earliest(lists)
            unknown = sizes.keys() - reachable - since.keys()
            if unknown and (fenced := self._fence()) is not None:
                reachable, now_us = self._reach.of(fenced), self._clock.now_us()
                lists.append(folder.write(fenced, unknown - reachable, now_us))
                since |= dict.fromkeys(lists[-1].dead, lists[-1].since_us)
            return self._removed(folder, sizes, lists, since)

    def _fence(self) -> Table | None:
        return self._replacer.commit(lambda _, summary: RewriteFiles(summary))

    def _removed(
        self,
        folder: _Folder,
        sizes: Mapping[str, int],
        lists: Iterable[_OrphanList],
        since: Mapping[str, int],
    ) -> SweepResult:
        """Remove expired orphans, always in one order, and the lists that name no file on disk."""
        before_us = self._clock.now_us() - self._grace_us
        dead = sizes.keys() & since.keys()
        due = sorted(path for path in dead if since[path] <= before_us)
        removed = {path for path in due if folder.remove(path)}
        left = sizes.keys() - removed
        for listed in lists:
            if not listed.dead & left:
                folder.remove(listed.path)
        return SweepResult(
            files=len(sizes),
            waiting=len(dead - removed),
            waiting_bytes=sum(sizes[path] for path in dead - removed),
            removed=len(removed),
            removed_bytes=sum(sizes[path] for path in removed),
        )


def _earliest(lists: Iterable[_OrphanList]) -> dict[str, int]:
    """Return since when each file has been known as an orphan."""
    since: dict[str, int] = {}
    for listed in sorted(lists, key=lambda listed: listed.since_us, reverse=True):
        since |= dict.fromkeys(listed.dead, listed.since_us)
    return since


class _Folder:
    """The table's files, through its warehouse's file system."""

    def __init__(self, table: Table) -> None:
        io = cast("PyArrowFileIO", table.io)
        scheme, netloc, self._root = io.parse_location(table.location(), io.properties)
        self._files: FileSystem = io.fs_by_scheme(scheme, "" if scheme == "file" else netloc)

    def sizes(self) -> dict[str, int]:
        """Return every file and its size, bytes."""
        infos = self._files.get_file_info(
            FileSelector(self._root, allow_not_found=True, recursive=True)
        )
        return {info.path: info.size for info in infos if info.type is FileType.File}

    def lists(self, paths: Iterable[str]) -> list[_OrphanList]:
        """Read the lists of earlier sweeps; an unreadable one is treated like any other file."""
        lists = []
        for path in paths:
            if path.rpartition("/")[2].startswith(_LIST):
                try:
                    with self._files.open_input_stream(path) as stream:
                        content = json.loads(stream.read())
                    lists.append(
                        _OrphanList(path, int(content["since_us"]), frozenset(content["dead"]))
                    )
                except (OSError, ValueError, KeyError, TypeError) as error:
                    _log.warning("%s cannot be read: %r", path, error)
        return lists

    def write(self, fenced: Table, dead: Iterable[str], now_us: int) -> _OrphanList:
        """Write the list of orphans as of a fence."""
        paths = sorted(dead)
        name = f"{_LIST}{fenced.metadata.current_snapshot_id}.json"
        output = new_metadata_output(fenced, name)
        write_file(output, json.dumps({"since_us": now_us, "dead": paths}).encode())
        return _OrphanList(path_of(output.location), now_us, frozenset(paths))

    def remove(self, path: str) -> bool:
        """Remove a file; returns whether it is gone."""
        try:
            self._files.delete_file(path)
        except FileNotFoundError:
            return True
        except OSError as error:
            _log.warning("%s was not removed: %r", path, error)
            return False
        return True
