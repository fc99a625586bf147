"""Maintenance of the lake: merges small files, expires snapshots, removes orphan files.

It is the same for every table: what differs is in the table's `Store` (columns, order, partitions,
bounds). It runs in a thread of the lake process, and on request in a process of its own; both may
run at once, since every change is one compare-and-swap on the head (`maintenance_commit.py`).

1. Choose files to merge from the newest snapshot (`compaction.py`).
2. Read them and write their rows as one sorted file (`compaction.rewrite`). It takes the most time,
   and no writer waits for it.
3. Commit on the current head, if it still names every file that was read and no fence lies between.
   Else the new file is dropped: another process merged the same files, and rows would be doubled.
4. From time to time remove orphan files (`orphan_files.py`).

It may stop at any step: a file that was not committed is an orphan.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import pyarrow as pa
from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table

from k2.clock import Clock
from k2.lake.commit.snapshot_commit import RewriteFiles, unreferenced_snapshots
from k2.lake.iceberg.catalog import reaching_lake
from k2.lake.iceberg.file_stats import LiveFile, read_live_files
from k2.lake.iceberg.snapshot import CommitSummary, current_of
from k2.lake.maintenance.compaction import plan_compaction, rewrite
from k2.lake.maintenance.maintenance_commit import MaintenanceCommitter, succeeds, unfenced
from k2.lake.maintenance.orphan_files import OrphanFileRemover, SweepResult
from k2.metrics import exported
from k2.settings import LakeSettings
from k2.telemetry import Counter, Gauge

Progress = Callable[[str, int, int], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaintainStats:
    """Counters of a maintainer since its start; a value, replaced at each change.

    Attributes:
        compactions, files_merged, rows_rewritten: of committed merges, and what they read.
        abandoned: merges whose files another process had merged or removed meanwhile.
        snapshots_dropped: expired by request.
        files_removed, bytes_removed: by sweeps.
        files_waiting: orphans at the last sweep that are not removed yet.
        failures: of any kind; the failed work is retried.
    """

    compactions: Annotated[
        Counter, exported("k2_lake_compactions_total", "Merges committed, of all tables.")
    ] = 0
    files_merged: Annotated[
        Counter,
        exported("k2_lake_compacted_files_total", "Files that merges replaced, of all tables."),
    ] = 0
    rows_rewritten: Counter = 0
    abandoned: Counter = 0
    snapshots_dropped: Counter = 0
    files_removed: Annotated[
        Counter,
        exported(
            "k2_lake_orphans_removed_total", "Unnamed files that were removed, of all tables."
        ),
    ] = 0
    bytes_removed: Counter = 0
    files_waiting: Gauge = 0
    failures: Counter = 0


@dataclass(frozen=True)
class TableSize:
    """The size of a table.

    Attributes:
        files, bytes: of the newest snapshot.
        snapshots: of any branch or tag.
    """

    files: int = 0
    bytes: int = 0
    snapshots: int = 0


class Maintainer:
    """Maintains one table, named `table`. One thread; `stats` may be read by any.

    Args:
        replacer: commits to the table.
        clock: of ages and intervals.
        settings: which merges are worth their cost, and the intervals.
        paused: called before each merge; an overloaded process makes none.
    """

    def __init__(
        self,
        *,
        replacer: MaintenanceCommitter,
        clock: Clock,
        settings: LakeSettings,
        paused: Callable[[], bool] = lambda: False,
    ) -> None:
        self.table = replacer.store.layout.name
        self._replacer = replacer
        self._clock = clock
        self._settings = settings
        self._paused = paused
        self._sweeper = OrphanFileRemover(
            replacer=replacer, clock=clock, grace_s=settings.sweep_grace_s
        )
        self._live = _Live(replacer.store.layout.day_of)
        self._too_large: frozenset[str] = frozenset()
        self.stats = MaintainStats()

    def kept(self) -> TableSize:
        """Measure the table.

        Raises:
            Unavailable: LAKE_UNAVAILABLE. Data: LAKE_CORRUPT.
        """
        metadata = self._replacer.load().metadata
        head = current_of(metadata)
        if head is None:
            return TableSize()
        return TableSize(head.files_total, head.bytes_total, len(metadata.snapshots))

    def run(self, stopping: threading.Event) -> None:
        """Maintain until `stopping` is set; failed work is retried at the next turn.

        A pause stops merging only: sweeping costs little and frees disk, and a full disk may be the
        reason for the pause.
        """
        sweep_at_s = self._clock.monotonic_s() + self._settings.sweep_interval_s
        while not stopping.wait(self._settings.maintain_interval_s):
            self._run_step(lambda: self.compact(stopping=stopping))
            if self._clock.monotonic_s() >= sweep_at_s:
                sweep_at_s = self._clock.monotonic_s() + self._settings.sweep_interval_s
                self._run_step(self.sweep)

    def _run_step(self, work: Callable[[], object]) -> None:
        if not succeeds(f"maintenance of {self.table}", work):
            self.stats = replace(self.stats, failures=self.stats.failures + 1)

    def compact(
        self,
        progress: Progress = lambda message, done, total: None,
        stopping: threading.Event | None = None,
    ) -> int:
        """Merge until no merge is worth its cost; returns how many merges were committed.

        Args:
            progress: gets how many merges are done, and of how many as far as is known.
            stopping: when set, it ends after the current merge.

        Raises:
            Unavailable: LAKE_UNAVAILABLE. Overloaded: DISK_FULL. Data: LAKE_CORRUPT.
        """
        done = 0
        while not self._paused():
            table = self._replacer.load()
            groups = self._groups(table)
            merged = 0
            for group in groups:
                if self._paused() or (stopping is not None and stopping.is_set()):
                    return done + merged
                progress(f"merging files of {self.table}", done + merged, done + len(groups))
                merged += self._merge(table, group)
            if not merged:
                break
            done += merged
        return done

    def expire(self, older_than_us: int) -> int:
        """Expire the snapshots committed before a time; returns how many.

        The head stays, and the snapshots that a tag or a branch names. Their files are removed
        after the grace.

        Raises:
            Unavailable: LAKE_UNAVAILABLE. Overloaded: DISK_FULL. Data: LAKE_CORRUPT.
        """
        dropped: frozenset[int] = frozenset()

        def plan(table: Table, summary: CommitSummary) -> RewriteFiles | None:
            nonlocal dropped
            dropped = frozenset(
                snapshot.snapshot_id
                for snapshot in unreferenced_snapshots(table.metadata)
                if snapshot.timestamp_ms * 1000 < older_than_us
            )
            return RewriteFiles(summary, dropped=dropped) if dropped else None

        self._replacer.commit(plan)
        self.stats = replace(
            self.stats, snapshots_dropped=self.stats.snapshots_dropped + len(dropped)
        )
        return len(dropped)

    def sweep(self) -> SweepResult:
        """Remove orphan files; see `orphan_files.py`."""
        swept = self._sweeper.sweep()
        self.stats = replace(
            self.stats,
            files_removed=self.stats.files_removed + swept.removed,
            bytes_removed=self.stats.bytes_removed + swept.removed_bytes,
            files_waiting=swept.waiting,
        )
        return swept

    # --- one merge -------------------------------------------------------------------------------

    def _groups(self, table: Table) -> list[tuple[LiveFile, ...]]:
        """Do step 1: plan merges."""
        with reaching_lake():
            live = self._live.of(table)
        small = [file for file in live.values() if file.location not in self._too_large]
        rows_max = self._replacer.store.layout.merged_rows_max
        return plan_compaction(
            small, self._clock.now_us(), self._settings.compact_target_bytes, rows_max
        )

    def _merge(self, table: Table, group: Sequence[LiveFile]) -> bool:
        """Do steps 2 and 3; returns whether the merge was committed."""
        since = table.metadata.current_snapshot_id or 0
        written = rewrite(table, group, self._replacer.name(), self._replacer.store)
        pa.default_memory_pool().release_unused()  # else the pool keeps what the largest merge took
        if written is None:  # two of its files are more than a pass may hold
            self._too_large |= {file.location for file in group[:2]}
            return False
        file, count = written
        removed = frozenset(file.location for file in group[:count])

        def plan(head: Table, summary: CommitSummary) -> RewriteFiles | None:
            live = self._live.of(head)
            if not removed <= live.keys() or not unfenced(head.metadata, since):
                return None
            touched = frozenset(live[location].manifest for location in removed)
            return RewriteFiles(summary, (file,), removed, touched)

        stats = self.stats
        if self._replacer.commit(plan) is None:
            log.info("%s: a merge was overtaken", self.table, extra={"files": len(removed)})
            self.stats = replace(stats, abandoned=stats.abandoned + 1)
            return False
        self.stats = replace(
            stats,
            compactions=stats.compactions + 1,
            files_merged=stats.files_merged + len(removed),
            rows_rewritten=stats.rows_rewritten + file.record_count,
        )
        return True


class _Live:
    """The files of the newest snapshot; each manifest is read once."""

    def __init__(self, day_of: str) -> None:
        self._day_of = day_of
        self._known: dict[str, tuple[LiveFile, ...]] = {}

    def of(self, table: Table) -> Mapping[str, LiveFile]:
        """Read the files that may be merged, by location."""
        head = table.metadata.current_snapshot()
        spec = table.metadata.default_spec_id
        by_manifest: dict[str, tuple[LiveFile, ...]] = {}
        for manifest in head.manifests(table.io) if head else []:
            if manifest.content is ManifestContent.DATA and manifest.partition_spec_id == spec:
                path = manifest.manifest_path
                known = self._known.get(path)
                by_manifest[path] = (
                    known if known is not None else read_live_files(table, manifest, self._day_of)
                )
        self._known = by_manifest
        return {file.location: file for files in by_manifest.values() for file in files}
