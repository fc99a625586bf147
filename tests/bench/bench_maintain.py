"""A lake that is committed to and maintained: what grows with the number of commits, and what not.

    python -m tests.bench.bench_maintain 10000

Real commits on a local SQLite catalog and a local warehouse, ten seconds apart by a clock that is
set; merging every 30 s and sweeping every 10 min of that clock, as the lake process does. Commit
latency is that of the writer's commits alone, merges between them; planning is what a new query
server does (read all manifests of the newest snapshot) and what a running one does (read what the
last commit added). CPU times are for comparing on a machine that others use too.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from k2.lake.iceberg.catalog import local_path
from k2.lake.iceberg.snapshot import SnapshotReader
from k2.market.files import FileIndex
from tests.support.lake_world import LakeWorld, piece

COMMITS = 200  # of `make bench`
ROWS = 20  # of a commit
INTERVAL_S = 10
MERGE_EACH, SWEEP_EACH = 3, 60  # commits
WINDOW = 500  # commits that latencies are of
SYMBOLS = ("ADAUSDT", "BNBUSDT", "BTCUSDT", "ETHUSDT")


@dataclass
class Site:
    """A lake, its writer and its maintainer."""

    lake: LakeWorld
    number: int = 0
    commit_ms: list[float] = field(default_factory=list)
    commit_cpu_ms: list[float] = field(default_factory=list)
    maintain_cpu_s: float = 0.0

    def __post_init__(self) -> None:
        self.writer = self.lake.committer("bench")
        self.maintainer = self.lake.maintainer("upkeep", excluding=self.writer.excluded)
        self.reader = SnapshotReader(self.lake.catalog)
        self.state = None

    def commit(self) -> None:
        """One commit, and the maintenance that is due after it."""
        self.lake.clock.advance(INTERVAL_S)
        start = self.number * ROWS
        now = self.lake.clock.now_us()
        batch = piece(
            0,
            [one // len(SYMBOLS) for one in range(start, start + ROWS)],  # contiguous a symbol
            start=start,
            state=self.state,
            symbol=[SYMBOLS[one % len(SYMBOLS)] for one in range(ROWS)],
            times=[now + one for one in range(ROWS)],
        )
        began, began_cpu = time.perf_counter(), time.process_time()
        outcome = self.writer.commit([batch])
        self.commit_ms.append((time.perf_counter() - began) * 1e3)
        self.commit_cpu_ms.append((time.process_time() - began_cpu) * 1e3)
        assert outcome.landed == {0}
        self.state = outcome.states[0]
        self.number += 1
        began_cpu = time.process_time()
        if self.number % MERGE_EACH == 0:
            self.maintainer.compact()
        if self.number % SWEEP_EACH == 0:
            self.maintainer.sweep()
        self.maintain_cpu_s += time.process_time() - began_cpu

    def figures(self) -> list[tuple[str, float, str]]:
        """What there is now."""
        table = self.lake.table
        snapshot = self.lake.snapshots.current()
        assert snapshot is not None
        assert snapshot.rows_total == self.number * ROWS
        self.reader.files(self.reader.current().snapshot_id)
        cold, warm = [], []
        for _ in range(5):
            cold.append(planning_ms(SnapshotReader(self.lake.catalog)))
            self.commit()
            warm.append(planning_ms(self.reader))
        recent, recent_cpu = self.commit_ms[-WINDOW:], self.commit_cpu_ms[-WINDOW:]
        metadata = Path(local_path(table.metadata_location))
        on_disk = list(map(Path, self.lake.on_disk()))
        return [
            ("data files", snapshot.files_total, ""),
            ("files on disk", len(on_disk), ""),
            ("bytes on disk", sum(path.stat().st_size for path in on_disk) / 2**20, "MiB"),
            ("manifests", len(table.current_snapshot().manifests(table.io)), ""),
            ("snapshots", len(table.metadata.snapshots), ""),
            ("metadata.json", metadata.stat().st_size / 1024, "KiB"),
            ("commit p50", float(np.percentile(recent, 50)), "ms"),
            ("commit p99", float(np.percentile(recent, 99)), "ms"),
            ("commit p50, CPU", float(np.percentile(recent_cpu, 50)), "ms"),
            ("commit p99, CPU", float(np.percentile(recent_cpu, 99)), "ms"),
            ("plan, new reader, CPU", float(np.median(cold)), "ms"),
            ("plan, after a commit, CPU", float(np.median(warm)), "ms"),
            ("bytes a trade", snapshot.bytes_total / snapshot.rows_total, "B"),
            ("rewrites a row", self.maintainer.stats.rows_rewritten / snapshot.rows_total, ""),
            ("maintenance a commit, CPU", self.maintain_cpu_s / self.number * 1e3, "ms"),
        ]


def planning_ms(reader: SnapshotReader) -> float:
    """CPU time until the files of the newest snapshot can be chosen from."""
    began = time.process_time()
    FileIndex(reader.files(reader.current().snapshot_id))
    return (time.process_time() - began) * 1e3


def measured(commits: int) -> list[tuple[int, list[tuple[str, float, str]]]]:
    """Figures after some commits, and after the last."""
    found = []
    stops = {100, 300, 1000, 2000, 3000, 5000, commits}
    gc.collect()
    gc.freeze()  # as each process of K2 does after its imports
    with tempfile.TemporaryDirectory() as folder:
        site = Site(LakeWorld(Path(folder)))
        while site.number < commits:
            site.commit()
            if site.number in stops:
                found.append((site.number, site.figures()))
                print(*found[-1], file=sys.stderr, flush=True)
        offsets = [row[0] for row in site.lake.rows("tape_offset")]
        assert offsets == list(range(site.number * ROWS)), "a row was lost or doubled"
        site.lake.close()
    return found


def measure() -> list[tuple[str, float, str]]:
    """See `tests/bench/__main__.py`."""
    ((commits, figures),) = measured(COMMITS)[-1:]
    return [(f"after {commits} commits: {name}", value, unit) for name, value, unit in figures]


def main(arguments: list[str]) -> None:
    """Print the figures side by side."""
    table = measured(int(arguments[0]) if arguments else COMMITS)
    print(f"{'commits':28}" + "".join(f"{commits:>12,}" for commits, _ in table))
    for row, (name, _, unit) in enumerate(table[0][1]):
        values = "".join(f"{figures[row][1]:>12,.4g}" for _, figures in table)
        print(f"{name:28}{values} {unit}")


if __name__ == "__main__":
    main(sys.argv[1:])
