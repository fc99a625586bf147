"""Maintenance: in a thread of the lake process, and on request as a process that ends.

`python -m servers maintain compact` and `... maintain expire [OLDER_THAN_US]` print progress and
one result as JSON lines.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from k2 import limits
from k2.errors import Invalid, Reason, Unavailable
from k2.lake.append import TableCatalog
from k2.lake.catalog import open_catalog
from k2.lake.maintain import Maintainer, Progress
from k2.lake.replacer import Excluding, Replacer, nobody
from k2.lake.snapshot import SnapshotReader
from k2.lake.tables import ensure_tables
from k2.settings import Settings
from servers.runtime import Runtime


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Do what is asked; progress and the result as JSON lines.

    Raises:
        Invalid: BAD_REQUEST. Unavailable: LAKE_UNAVAILABLE, also where there is no lake.
        Overloaded: DISK_FULL. Data: LAKE_CORRUPT.
    """
    task, older_than_us = _asked(argv)
    if not settings.lake.catalog_uri and not settings.data_dir.is_dir():
        raise Unavailable(Reason.LAKE_UNAVAILABLE, f"there is no lake in {settings.data_dir}")
    catalog = open_catalog(settings, runtime.clock)
    try:
        ensure_tables(catalog)
        maintainer = maintainer_of(settings, runtime, catalog)
        snapshots = SnapshotReader(catalog)
        if task == "compact":
            document = compacted(maintainer, snapshots, _progress(runtime), runtime.stopping)
        else:
            document = expired(maintainer, snapshots, older_than_us)
    finally:
        catalog.close()
    runtime.emit("result", **document)
    return 0


def maintainer_of(
    settings: Settings,
    runtime: Runtime,
    catalog: TableCatalog,
    *,
    excluding: Excluding = nobody,
    paused: Callable[[], bool] = lambda: False,
) -> Maintainer:
    """A maintainer of this process's lake; see `Maintainer` and `Replacer` for the arguments."""
    replacer = Replacer(
        catalog=catalog,
        clock=runtime.clock,
        maintainer_id=f"{runtime.run_id}-maintain",
        excluding=excluding,
    )
    return Maintainer(replacer=replacer, clock=runtime.clock, settings=settings.lake, paused=paused)


@contextmanager
def maintained(maintainer: Maintainer, *, wanted: bool) -> Iterator[None]:
    """Maintain the lake in a thread meanwhile, where that is wanted."""
    ending = threading.Event()
    thread = threading.Thread(target=maintainer.run, args=(ending,), name="maintain", daemon=True)
    if wanted:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        if wanted:
            thread.join(limits.DRAIN_S)


def compacted(
    maintainer: Maintainer,
    snapshots: SnapshotReader,
    progress: Progress,
    stopping: threading.Event,
) -> dict[str, Any]:
    """Merge until nothing is worth it; what was done, as a document."""
    maintainer.compact(progress, stopping)
    done, head = maintainer.stats, snapshots.current()
    files = head.files_total if head else 0
    return {
        "merges": done.compactions,
        "files_merged": done.files_merged,
        "rows_rewritten": done.rows_rewritten,
        "abandoned": done.abandoned,
        "files_total": files,
        "bytes_total": head.bytes_total if head else 0,
        "message": f"{done.files_merged} files became {done.compactions}; there are {files} now",
    }


def expired(
    maintainer: Maintainer, snapshots: SnapshotReader, older_than_us: int | None
) -> dict[str, Any]:
    """Drop the snapshots older than a time, and sweep; what was done, as a document."""
    dropped = maintainer.expire(older_than_us) if older_than_us is not None else 0
    swept = maintainer.sweep()
    kept = len(snapshots.list())
    return {
        "snapshots_dropped": dropped,
        "snapshots_kept": kept,
        "files_removed": swept.removed,
        "bytes_removed": swept.removed_bytes,
        "files_waiting": swept.waiting,
        "bytes_waiting": swept.waiting_bytes,
        "message": (
            f"{dropped} snapshots dropped, {kept} kept; {swept.removed} files removed,"
            f" {swept.waiting} wait until no query can read them"
        ),
    }


def _progress(runtime: Runtime) -> Progress:
    """Prints each step; one takes long enough."""
    return lambda message, done, total: runtime.emit(
        "progress", message=message, done=done, total=total
    )


def _asked(argv: Sequence[str]) -> tuple[str, int | None]:
    """The task, and the time that snapshots to drop are older than."""
    match argv:
        case ["compact"]:
            return "compact", None
        case ["expire"]:
            return "expire", None
        case ["expire", time] if time.isdecimal():
            return "expire", int(time)
    raise Invalid(
        Reason.BAD_REQUEST, f"{' '.join(argv)!r} is none of `compact`, `expire [OLDER_THAN_US]`"
    )
