"""What the lake process counts beside its heartbeat."""

from pathlib import Path

from servers.processes.lake_measures import measure_lake
from tests.support.lake_world import LakeWorld
from tests.support.scraped import scraped


def test_the_table_is_measured_as_its_committer_left_it(tmp_path):
    world = LakeWorld(tmp_path)
    committer = world.committer()
    empty = scraped(measure_lake(committer, None))
    assert empty["k2_lake_table_rows",] == 0
    assert ("k2_lake_bytes_per_trade",) not in empty
    assert ("k2_lake_last_commit_time_seconds",) not in empty
    assert ("k2_tape_retention_margin_seconds",) not in empty
    world.commit_each(range(3), committer)
    found = scraped(measure_lake(committer, 3600.0))
    files = list((tmp_path / "lake" / "warehouse").rglob("*.parquet"))
    size = sum(Path(file).stat().st_size for file in files)
    assert found["k2_lake_table_rows",] == 3
    assert found["k2_lake_snapshots",] == 3
    assert found["k2_lake_files",] == found["k2_lake_files_written_total",] == len(files) == 3
    assert found["k2_lake_table_bytes",] == found["k2_lake_bytes_total",] == size
    assert found["k2_lake_bytes_per_trade",] == size / 3
    assert found["k2_lake_last_commit_time_seconds",] >= world.clock.now_us() // 10**6
    assert found["k2_tape_retention_margin_seconds",] == 3600


def test_what_maintenance_committed_is_measured_too(tmp_path):
    world = LakeWorld(tmp_path)
    committer = world.committer()
    world.commit_each(range(8), committer)
    merged = world.maintainer(excluding=committer.excluded).compact()
    assert merged
    assert scraped(measure_lake(committer, None))["k2_lake_files",] < 8
