import pytest

from k2 import limits
from k2.errors import Unavailable
from k2.lake.commit.snapshot_commit import RewriteFiles
from k2.lake.maintenance.maintenance_commit import is_fence, unfenced
from tests.support.lake_world import FaultyCatalog


def fence(lake, **given):
    return lake.replacer(**given).commit(lambda _, facts: RewriteFiles(facts))


def test_a_fence_changes_no_file_and_says_what_its_parent_said(lake):
    lake.commit_each([1, 2])
    before = lake.snapshots.current()
    after = fence(lake)
    now = lake.snapshots.current()
    assert now.snapshot_id == after.metadata.current_snapshot_id
    assert lake.snapshots.files(now.snapshot_id) == lake.snapshots.files(before.snapshot_id)
    assert (now.positions, now.state_path) == (before.positions, before.state_path)
    assert (now.rows_total, now.rows_added, now.operation) == (2, 0, "replace")
    assert (now.writer_id, now.commit_id) == ("m", "m-1")


def test_an_empty_lake_and_a_plan_of_nothing_commit_nothing(lake):
    assert fence(lake) is None
    lake.commit_each([1])
    before = lake.table.metadata_location
    assert lake.replacer().commit(lambda *_: None) is None
    assert lake.table.metadata_location == before


def test_the_plan_is_asked_again_on_another_head(lake):
    lake.commit_each([1])
    heads = []

    def plan(table, facts):
        heads.append(facts.positions[0])
        return RewriteFiles(facts)

    catalog = FaultyCatalog(lake.catalog, before=lambda: lake.commit_each([2]))
    lake.replacer(catalog=catalog).commit(plan)
    assert heads == [1, 2]
    assert lake.snapshots.current().positions[0] == 2


def test_maintenance_that_is_always_overtaken_is_unavailable(lake):
    lake.commit_each([1])
    with pytest.raises(Unavailable):
        fence(lake, catalog=FaultyCatalog(lake.catalog, *["refused"] * limits.COMMIT_ATTEMPTS_MAX))


def test_files_may_be_committed_unless_a_fence_lies_between(lake):
    lake.commit_each([1])
    since = lake.table.metadata.current_snapshot_id
    lake.commit_each([2])
    assert unfenced(lake.table.metadata, since)
    fence(lake)
    metadata = lake.table.metadata
    assert is_fence(metadata.current_snapshot())
    assert not unfenced(metadata, since)
    assert unfenced(metadata, metadata.current_snapshot_id)
    assert not unfenced(metadata, 12345)
    lake.commit_each([3])
    assert not unfenced(lake.table.metadata, since)
    assert unfenced(lake.table.metadata, metadata.current_snapshot_id)


def test_appends_and_merges_are_no_fences(lake):
    lake.commit_each(range(8))
    assert not is_fence(lake.table.current_snapshot())
    lake.maintainer("other").compact()
    assert lake.snapshots.current().operation == "replace"
    assert not is_fence(lake.table.current_snapshot())
