"""A pinned catalog reaches every file that its snapshots need, and no other."""

import os
from pathlib import Path

import pytest
from pyiceberg.manifest import ManifestContent, write_manifest_list

from k2.errors import Data, Invalid, Reason
from k2.lake.iceberg.catalog import local_path
from k2.lake.iceberg.reachability import Reach
from k2.lake.maintenance.backup_source import (
    LocalLake,
    files_of,
    heads_of,
    local_lake,
    pin_catalog,
    tables_of,
)
from k2.settings import Settings
from tests.support.lake_world import piece

_CONTENT = 3  # position in a record of a manifest list


def pinned(lake, tmp_path, name="pinned.db"):
    copy = tmp_path / name
    pin_catalog(local_lake(lake.settings), copy)
    return copy


def commits(lake, count):
    writer, start, state = lake.committer(), 0, None
    for _ in range(count):
        batch = piece(0, range(start, start + 5), start=start, state=state)
        writer.commit([batch])
        start, state = batch.end, batch.state


def test_all_that_the_kept_snapshots_need_is_reached(lake, tmp_path):
    commits(lake, 12)  # enough for manifests to be merged
    (head,) = heads_of(pinned(lake, tmp_path))
    reached = files_of(head)
    paths = [local_path(file.location) for file in reached]
    assert len(set(paths)) == len(paths)
    assert paths[0] == local_path(lake.table.metadata_location)
    assert sum(file.data for file in reached) == 12
    for file, path in zip(reached, paths, strict=True):
        assert file.size in (None, os.path.getsize(path))
    there = {str(path) for path in local_lake(lake.settings).warehouse.rglob("*") if path.is_file()}
    assert {path for path in there - set(paths) if not path.endswith(".metadata.json")} == set()
    assert head.snapshot().positions.offsets == (60, 0, 0, 0)


def test_a_pin_stays_while_the_lake_goes_on(lake, tmp_path):
    commits(lake, 2)
    copy = pinned(lake, tmp_path)
    before = tables_of(copy)
    lake.committer("w2").commit([piece(1, range(3))])
    assert tables_of(copy) == before != tables_of(pinned(lake, tmp_path, "later.db"))
    assert not copy.with_name("pinned.db-wal").exists()


def test_what_was_removed_is_missed(lake, tmp_path):
    commits(lake, 1)
    (head,) = heads_of(pinned(lake, tmp_path))
    os.unlink(local_path(head.metadata.snapshots[0].manifest_list))
    with pytest.raises(FileNotFoundError):
        files_of(head)


def test_delete_files_are_refused_by_a_copy_and_reached_by_the_sweep(lake, tmp_path):
    commits(lake, 2)
    table = lake.table
    newest, before = table.current_snapshot(), Reach().of(table)
    manifests = newest.manifests(table.io)
    manifests[0][_CONTENT] = ManifestContent.DELETES
    with write_manifest_list(
        2, table.io.new_output(newest.manifest_list), newest.snapshot_id, None, 9, "deflate"
    ) as writer:
        writer.add_manifests(manifests)
    assert Reach().of(table) == before
    (head,) = heads_of(pinned(lake, tmp_path))
    with pytest.raises(Data) as refused:
        files_of(head)
    assert refused.value.reason is Reason.LAKE_CORRUPT


def test_an_empty_table_has_no_snapshot(lake, tmp_path):
    (head,) = heads_of(pinned(lake, tmp_path))
    assert head.snapshot() is None
    assert [file.location for file in files_of(head)] == [head.location]


@pytest.mark.parametrize(
    ("setting", "way_out"),
    [({"catalog_uri": "postgresql://h/db"}, "pg_dump"), ({"warehouse": "s3://b"}, "versioning")],
)
def test_a_lake_elsewhere_is_refused_with_a_way_out(tmp_path, setting, way_out):
    with pytest.raises(Invalid, match=way_out) as refused:
        local_lake(Settings(data_dir=tmp_path, lake=setting))
    assert refused.value.reason is Reason.BAD_SETTING


@pytest.mark.parametrize("location", ["file:///w2/a", "file:///w/../etc/a", "s3://w/a", "/wx/a"])
def test_a_file_outside_the_warehouse_is_refused(location):
    lake = LocalLake(Path("/c"), Path("/w"))
    assert lake.inside("file:///w/t/a") == "t/a"
    with pytest.raises(Data) as refused:
        lake.inside(location)
    assert refused.value.reason is Reason.LAKE_CORRUPT


def test_the_state_that_an_epoch_began_with_is_reached(world, tmp_path):
    world.put(1)
    pump = world.pump()
    pump.step()
    assert pump.commit()
    world.begin_epoch()
    world.maintainer().expire(world.clock.now_us() + 10**12)
    first_state = world.snapshots.current().epochs.start_state
    (head,) = heads_of(pinned(world, tmp_path))
    assert first_state in {file.location for file in files_of(head)}
