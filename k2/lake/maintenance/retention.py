"""Retention of a table: by hours and by bytes, whole files, the oldest first.

By default, data is removed only when the disk budget is exceeded. `retained_from_us` is a time of
the column that the table is partitioned by: from it on, all rows are kept. Every later commit
carries it, answers about earlier times report it, and verification compares rows from it on.

* By hours: the days that ended longer ago, whole Iceberg partitions.
* By bytes: the files whose newest row is oldest, until a tenth of the budget is free again. The
  newest file stays, whatever its size.

The files are removed in one commit like any other, which carries positions and state: their ids
stay known, so a late duplicate of a removed row is a duplicate still. Earlier snapshots still name
the files; the next pass expires them, which makes the files unreachable (but for what a tag names),
and a sweep removes them when no query can read them any more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata

from k2.clock import Clock
from k2.lake.commit.snapshot_commit import RewriteFiles, unreferenced_snapshots
from k2.lake.iceberg.catalog import reaching_lake
from k2.lake.iceberg.file_stats import LiveFile, read_live_files
from k2.lake.iceberg.snapshot import RETAINED_FROM, CommitSummary, current_of
from k2.lake.maintenance.maintenance_commit import MaintenanceCommitter, succeeds
from k2.market.events import DAY_US
from k2.metrics import exported
from k2.settings import LakeSettings
from k2.telemetry import Counter

_HOUR_US = 3_600_000_000
_FREED = 0.9  # of the budget, after a removal by bytes
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetentionStats:
    """Counters of retention since its start.

    Attributes:
        files, rows, bytes: removed from the newest snapshot.
        snapshots: expired, because they named removed files.
        failures: passes that did not reach the lake; retried.
    """

    files: Counter = 0
    rows: Annotated[
        Counter,
        exported(
            "k2_lake_retention_removed_rows_total", "Rows that retention removed, of all tables."
        ),
    ] = 0
    bytes: Counter = 0
    snapshots: Counter = 0
    failures: Counter = 0


def expired_files(
    files: Sequence[LiveFile], now_us: int, hours: int | None, bytes_max: int
) -> list[LiveFile]:
    """Choose the files to remove, oldest first.

    Args:
        files: of the newest snapshot.
        now_us: the time.
        hours: how long rows are kept; None: while the budget lasts.
        bytes_max: the budget.
    """
    oldest = sorted(files, key=lambda file: (file.time_max_us, file.location))
    last_day = _last_day_gone(now_us, hours)
    gone = [file for file in oldest[:-1] if last_day is not None and file.day <= last_day]
    left = sum(file.size_bytes for file in files) - sum(file.size_bytes for file in gone)
    if left > bytes_max:
        known = {file.location for file in gone}
        for file in oldest[:-1]:
            if left <= bytes_max * _FREED:
                break
            if file.location not in known:
                gone.append(file)
                left -= file.size_bytes
    return gone


def _last_day_gone(now_us: int, hours: int | None) -> int | None:
    """Return the newest day that ended longer ago than rows are kept; None where all are kept."""
    if hours is None:
        return None
    return (now_us - hours * _HOUR_US) // DAY_US - 1


class Retention:
    """Applies retention to a table, named `table`. One thread; `stats` may be read by any.

    Args:
        replacer: commits to the table.
        clock: of the age of rows.
        settings: hours, and the interval of passes.
        bytes_max: of the newest snapshot.
    """

    def __init__(
        self,
        *,
        replacer: MaintenanceCommitter,
        clock: Clock,
        settings: LakeSettings,
        bytes_max: int,
    ) -> None:
        self.table = replacer.store.layout.name
        self._replacer = replacer
        self._clock = clock
        self._hours = settings.retention_hours
        self._interval_s = settings.retain_interval_s
        self._bytes_max = bytes_max
        self._day_done: int | None = None
        self.stats = RetentionStats()

    def run(self, stopping: threading.Event) -> None:
        """Run passes at an interval until `stopping` is set; a failed pass is retried."""
        while not stopping.wait(self._interval_s):
            if not succeeds(f"retention of {self.table}", self.step):
                self.stats = replace(self.stats, failures=self.stats.failures + 1)

    def step(self) -> bool:
        """Run one pass; returns whether anything was removed or expired.

        Raises:
            Unavailable: LAKE_UNAVAILABLE. Overloaded: DISK_FULL. Data: LAKE_CORRUPT.
        """
        last_day = _last_day_gone(self._clock.now_us(), self._hours)
        if not self._worth_a_look(self._replacer.load(), last_day):
            return False
        done = RetentionStats()

        def plan(table: Table, summary: CommitSummary) -> RewriteFiles | None:
            nonlocal done
            files = _live_files(table, self._replacer.store.layout.day_of)
            gone = expired_files(files, self._clock.now_us(), self._hours, self._bytes_max)
            dropped = _from_before(table.metadata)
            done = RetentionStats(
                len(gone),
                sum(file.rows for file in gone),
                sum(file.size_bytes for file in gone),
                len(dropped),
            )
            return _replacement(table, summary, gone, dropped)

        changed = self._replacer.commit(plan) is not None
        self._day_done = last_day
        if changed:
            self._note(done)
        return changed

    def _worth_a_look(self, table: Table, last_day: int | None) -> bool:
        """Return whether a pass may find anything, without reading manifests."""
        head = current_of(table.metadata)
        if head is None:
            return False
        full = head.bytes_total > self._bytes_max
        return full or last_day != self._day_done or bool(_from_before(table.metadata))

    def _note(self, done: RetentionStats) -> None:
        before = self.stats
        self.stats = replace(
            before,
            files=before.files + done.files,
            rows=before.rows + done.rows,
            bytes=before.bytes + done.bytes,
            snapshots=before.snapshots + done.snapshots,
        )
        if done.files:
            removed = {"files": done.files, "b": done.bytes}
            log.warning("%s: retention removed %d rows", self.table, done.rows, extra=removed)


def _replacement(
    table: Table, summary: CommitSummary, gone: Sequence[LiveFile], dropped: frozenset[int]
) -> RewriteFiles | None:
    if not gone:
        return RewriteFiles(summary, dropped=dropped) if dropped else None
    floors = [file.time_max_us + 1 for file in gone]
    if (known := table.properties.get(RETAINED_FROM)) is not None:
        floors.append(int(known))
    return RewriteFiles(
        replace(summary, retained_from_us=max(floors)),
        removed=frozenset(file.location for file in gone),
        touched=frozenset(file.manifest for file in gone),
        dropped=dropped,
    )


def _from_before(metadata: TableMetadata) -> frozenset[int]:
    """List snapshots with a lower retained time than the table's: they may name removed files."""
    floor = metadata.properties.get(RETAINED_FROM)
    if floor is None:
        return frozenset()
    return frozenset(
        snapshot.snapshot_id
        for snapshot in unreferenced_snapshots(metadata)
        if snapshot.summary
        and int(snapshot.summary.additional_properties.get(RETAINED_FROM, -1)) < int(floor)
    )


def _live_files(table: Table, day_of: str) -> list[LiveFile]:
    """Read the files of the newest snapshot."""
    head = table.metadata.current_snapshot()
    with reaching_lake():
        return [
            file
            for manifest in (head.manifests(table.io) if head else [])
            for file in read_live_files(table, manifest, day_of)
        ]
