"""Maintains the lake's tables: in threads of the lake process, and as a command.

`python -m servers maintain compact` and `... maintain expire [OLDER_THAN_US]` print progress and
one result as JSON lines: what was done, of all tables together and of each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from k2 import limits
from k2.errors import Invalid, Reason, Unavailable
from k2.lake.commit.committer import Store, TradeStore
from k2.lake.commit.event_files import OpsStore
from k2.lake.commit.snapshot_commit import TableCatalog
from k2.lake.iceberg.catalog import open_catalog
from k2.lake.iceberg.tables import OPS_LAYOUTS, ensure_lake
from k2.lake.maintenance.maintainer import Maintainer, MaintainStats, Progress
from k2.lake.maintenance.maintenance_commit import Excluding, MaintenanceCommitter, no_exclusion
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
        stores: tuple[Store, ...] = (TradeStore(), *map(OpsStore, OPS_LAYOUTS.values()))
        ensure_lake(catalog)
        maintainers = [maintainer_of(settings, runtime, catalog, store) for store in stores]
        with runtime.interruptible():  # each step is one commit, and survives a crash
            if task == "compact":
                document = compacted(maintainers, _progress(runtime), runtime.stopping)
            else:
                document = expired(maintainers, older_than_us)
    finally:
        catalog.close()
    runtime.emit("result", **document)
    return 0


def maintainer_of(
    settings: Settings,
    runtime: Runtime,
    catalog: TableCatalog,
    store: Store,
    *,
    excluding: Excluding = no_exclusion,
    paused: Callable[[], bool] = lambda: False,
) -> Maintainer:
    """Make the maintainer of a table of this process's lake."""
    replacer = MaintenanceCommitter(
        catalog=catalog,
        clock=runtime.clock,
        maintainer_id=f"{runtime.run_id}-maintain",
        excluding=excluding,
        store=store,
    )
    return Maintainer(replacer=replacer, clock=runtime.clock, settings=settings.lake, paused=paused)


@contextmanager
def beside(runs: Mapping[str, Callable[[threading.Event], None]]) -> Iterator[None]:
    """Run functions in threads of these names meanwhile; each ends once its event is set."""
    ending = threading.Event()
    threads = [
        threading.Thread(target=run, args=(ending,), name=name, daemon=True)
        for name, run in runs.items()
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join(limits.DRAIN_S / len(threads))


def stats_of(maintainers: Sequence[Maintainer]) -> MaintainStats:
    """Sum the statistics of all tables."""
    return MaintainStats(**_total([asdict(maintainer.stats) for maintainer in maintainers]))


def compacted(
    maintainers: Sequence[Maintainer], progress: Progress, stopping: threading.Event
) -> dict[str, Any]:
    """Merge until nothing is worth it; what was done, as a document."""
    tables = {
        maintainer.table: _compacted(maintainer, progress, stopping) for maintainer in maintainers
    }
    done = _total(list(tables.values()))
    message = (
        f"{done['files_merged']} files became {done['merges']}; there are {done['files_total']} now"
    )
    return {**done, "message": message, "tables": tables}


def _compacted(
    maintainer: Maintainer, progress: Progress, stopping: threading.Event
) -> dict[str, int]:
    maintainer.compact(progress, stopping)
    done, kept = maintainer.stats, maintainer.kept()
    return {
        "merges": done.compactions,
        "files_merged": done.files_merged,
        "rows_rewritten": done.rows_rewritten,
        "abandoned": done.abandoned,
        "files_total": kept.files,
        "bytes_total": kept.bytes,
    }


def expired(maintainers: Sequence[Maintainer], older_than_us: int | None) -> dict[str, Any]:
    """Drop the snapshots older than a time, and sweep; what was done, as a document."""
    tables = {maintainer.table: _expired(maintainer, older_than_us) for maintainer in maintainers}
    done = _total(list(tables.values()))
    message = (
        f"{done['snapshots_dropped']} snapshots dropped, {done['snapshots_kept']} kept;"
        f" {done['files_removed']} files removed, {done['files_waiting']} wait until no query can"
        " read them"
    )
    return {**done, "message": message, "tables": tables}


def _expired(maintainer: Maintainer, older_than_us: int | None) -> dict[str, int]:
    dropped = maintainer.expire(older_than_us) if older_than_us is not None else 0
    swept = maintainer.sweep()
    return {
        "snapshots_dropped": dropped,
        "snapshots_kept": maintainer.kept().snapshots,
        "files_removed": swept.removed,
        "bytes_removed": swept.removed_bytes,
        "files_waiting": swept.waiting,
        "bytes_waiting": swept.waiting_bytes,
    }


def _total(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    """Sum each count over all tables."""
    return {name: sum(table[name] for table in counts) for name in counts[0]}


def _progress(runtime: Runtime) -> Progress:
    """Make a function that prints each step; a step takes long enough."""
    return lambda message, done, total: runtime.emit(
        "progress", message=message, done=done, total=total
    )


def _asked(argv: Sequence[str]) -> tuple[str, int | None]:
    """Read the task, and the time before which snapshots are dropped."""
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
