from pyiceberg.table.statistics import PartitionStatisticsFile

from k2.lake.iceberg.reachability import Reach, path_of


def test_a_lake_that_lost_nothing_reaches_every_file(lake):
    assert Reach().of(lake.table) == lake.on_disk()
    lake.commit_each(range(10))
    assert Reach().of(lake.table) == lake.on_disk()


def test_what_only_older_snapshots_name_is_reached_while_they_are_kept(lake):
    lake.commit_each(range(8))
    lake.maintainer().compact()
    reach = Reach()
    assert reach.of(lake.table) == lake.on_disk()
    lake.maintainer("other").expire(lake.clock.now_us() + 10**12)
    left = reach.of(lake.table)
    assert len(lake.on_disk() - left) > 8
    assert left == Reach().of(lake.table)
    lake.commit_each([8])
    assert reach.of(lake.table) == Reach().of(lake.table)


def test_a_tag_keeps_its_snapshots_files(lake):
    lake.commit_each(range(8))
    with lake.table.manage_snapshots() as manage:
        manage.create_tag(lake.table.metadata.current_snapshot_id, "audit")
    lake.maintainer().compact()
    lake.maintainer().expire(lake.clock.now_us() + 10**12)
    files = {path for path in Reach().of(lake.table) if path.endswith(".parquet")}
    assert len(files) == 9


def test_statistics_of_other_engines_are_reached(lake):
    lake.commit_each([1])
    location = f"{lake.table.location()}/metadata/stats.parquet"
    statistics = PartitionStatisticsFile(
        snapshot_id=1, statistics_path=location, file_size_in_bytes=1
    )
    metadata = lake.table.metadata.model_copy(update={"partition_statistics": [statistics]})
    reached = Reach().files(lake.table.metadata_location, metadata, lake.table.io)
    assert location in {file.location for file in reached}


def test_a_location_is_a_path_of_its_file_system():
    assert path_of("file:///a/b") == "/a/b"
    assert path_of("s3://bucket/a/b") == "bucket/a/b"


def test_the_state_that_an_epoch_began_with_is_reached_as_long_as_it_lasts(world):
    for ids in ((1, 2), (3,)):
        world.put(*ids)
        pump = world.pump(f"w{ids}")
        pump.step()
        assert pump.commit()
        if ids == (1, 2):
            world.begin_epoch()
    world.maintainer().expire(world.clock.now_us() + 10**12)
    kept = world.snapshots.list()
    first_state = kept[0].epochs.start_state
    assert first_state
    assert first_state not in {one.state_path for one in kept}
    assert path_of(first_state) in Reach().of(world.table)
