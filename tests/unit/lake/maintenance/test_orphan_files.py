import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from k2 import limits
from k2.errors import Unavailable
from k2.lake.iceberg.catalog import local_path
from k2.lake.iceberg.reachability import Reach
from k2.lake.maintenance.orphan_files import SweepResult, _Folder
from k2.settings import LakeSettings
from tests.support.lake_world import Crash, FaultyCatalog, piece

GRACE = limits.SWEEP_GRACE_S
SKEW = limits.CLOCK_SKEW_MAX_S


@pytest.fixture
def worn(lake):
    """A lake with files that nothing names: merged, dropped, and of a commit that failed."""
    lake.commit_each(range(8))
    lake.maintainer("early").compact()
    with pytest.raises(Crash):
        lake.commit_each([8], lake.committer("mortal", FaultyCatalog(lake.catalog, "crash before")))
    lake.maintainer("early").expire(lake.clock.now_us() + 10**12)
    return lake


def dead(lake):
    """Files that nothing names, the sweeper's lists not counted."""
    found = lake.on_disk() - Reach().of(lake.table)
    return {path for path in found if "k2-dead-" not in path}


def ids(lake):
    return [row[3] for row in lake.rows()]


def test_after_the_grace_there_is_on_disk_what_is_reachable_and_nothing_else(worn):
    gone, maintainer = dead(worn), worn.maintainer()
    assert len(gone) > 10
    first = maintainer.sweep()
    assert (first.removed, first.waiting) == (0, len(gone))
    assert gone <= worn.on_disk()
    worn.clock.advance(GRACE - 1)
    assert maintainer.sweep().removed == 0
    worn.clock.advance(1)
    last = maintainer.sweep()
    assert (last.removed, last.waiting) == (len(gone), 0)
    assert last.removed_bytes == first.waiting_bytes > 0
    assert worn.on_disk() == Reach().of(worn.table)
    assert ids(worn) == list(range(8))
    assert worn.snapshots.states(worn.snapshots.current())[0].accepted == 8


def test_files_are_removed_in_the_order_of_their_paths(worn, monkeypatch):
    """A simulation replays only where each run does the same in the same order."""
    gone, removed, remove = dead(worn), [], _Folder.remove

    def watched(folder, path):
        removed.append(path)
        return remove(folder, path)

    monkeypatch.setattr(_Folder, "remove", watched)
    worn.maintainer().sweep()
    worn.clock.advance(GRACE)
    worn.maintainer().sweep()
    assert removed[: len(gone)] == sorted(gone)


def test_a_lake_without_dead_files_is_not_touched(lake):
    lake.commit_each(range(3))
    before = lake.table.metadata_location
    assert lake.maintainer().sweep() == SweepResult(files=len(lake.on_disk()))
    assert lake.table.metadata_location == before


def test_an_idle_lake_comes_to_rest(worn):
    for _ in range(4):
        worn.maintainer().sweep()
        worn.clock.advance(GRACE)
    before = worn.table.metadata_location
    for _ in range(3):
        assert worn.maintainer().sweep().waiting == 0
        worn.clock.advance(GRACE)
    assert worn.table.metadata_location == before
    assert worn.on_disk() == Reach().of(worn.table)


def test_an_idle_lake_with_all_the_snapshots_it_may_have_comes_to_rest(lake, monkeypatch):
    monkeypatch.setattr(limits, "SNAPSHOTS_KEPT_MAX", 5)
    monkeypatch.setattr(limits, "SNAPSHOTS_NEWEST_KEPT", 4)
    lake.commit_each(range(7))
    for number in range(2):
        lake.maintainer(f"m{number}").sweep()
        lake.clock.advance(GRACE)
    before = lake.table.metadata_location
    assert lake.maintainer("last").sweep().waiting == 0
    assert lake.table.metadata_location == before
    assert lake.on_disk() == Reach().of(lake.table)
    lake.commit_each([7])
    assert len(lake.table.metadata.snapshots) == 5


def test_what_is_known_outlives_the_process(worn):
    gone = dead(worn)
    worn.maintainer("one").sweep()
    worn.clock.advance(GRACE)
    assert worn.maintainer("two").sweep().removed == len(gone)


def test_a_list_that_is_torn_costs_time_only(worn):
    gone = dead(worn)
    worn.maintainer().sweep()
    (path,) = (path for path in worn.on_disk() if "k2-dead-" in path)
    Path(path).write_text('{"since_us": 1, "dead"')
    worn.clock.advance(GRACE)
    swept = worn.maintainer().sweep()
    assert (swept.removed, swept.waiting) == (0, len(gone) + 1)
    worn.clock.advance(GRACE)
    assert worn.maintainer().sweep().removed == len(gone) + 1
    assert worn.on_disk() == Reach().of(worn.table)


def test_age_alone_does_not_make_a_file_dead_for_long(lake):
    """Files of long ago that were merged a moment ago may be read by a query of a moment ago."""
    lake.commit_each(range(8))
    for path in lake.on_disk():
        os.utime(path, (0, 0))
    files = lake.snapshots.files(lake.snapshots.current().snapshot_id)
    lake.maintainer().compact()
    lake.maintainer().expire(lake.clock.now_us() + 10**12)
    lake.maintainer().sweep()
    lake.clock.advance(GRACE - 1)
    lake.maintainer().sweep()
    assert all(Path(file.path).exists() for file in files)


# --- races ---------------------------------------------------------------------------------------


def test_a_writer_that_sleeps_through_sweeps_cannot_commit_what_they_removed(worn):
    def night():
        for _ in range(3):
            worn.clock.advance(2 * GRACE)
            worn.maintainer("night").sweep()

    writer = worn.committer("sleeper", FaultyCatalog(worn.catalog, before=night))
    worn.commit_each([8], writer)
    assert ids(worn) == list(range(9))
    worn.maintainer().sweep()
    worn.clock.advance(GRACE)
    worn.maintainer().sweep()
    assert ids(worn) == list(range(9))
    assert worn.on_disk() == Reach().of(worn.table)


def test_a_merge_that_sleeps_through_sweeps_cannot_commit_what_they_removed(worn):
    worn.commit_each(range(8, 15))

    def night():
        for _ in range(3):
            worn.clock.advance(GRACE)
            worn.maintainer("night").sweep()

    catalog = FaultyCatalog(worn.catalog, before=night)
    worn.commit_each([15])
    maintainer = worn.maintainer("sleeper", catalog)
    maintainer.compact()
    maintainer.compact()
    assert ids(worn) == list(range(16))
    assert len(worn.snapshots.files(worn.snapshots.current().snapshot_id)) == 2


def test_a_commit_between_the_look_and_the_fence_keeps_its_files(worn):
    """Its files are on the list and not yet named by the head that is looked at."""
    state = worn.snapshots.states(worn.snapshots.current())[0]

    class Between:
        """Commits just after the head was loaded for the second time."""

        def __init__(self, inner):
            self.inner, self.loads = inner, 0

        def load_table(self, identifier):
            table = self.inner.load_table(identifier)
            self.loads += 1
            if self.loads == 2:
                worn.committer("w9").commit([piece(0, [9], start=8, state=state)])
            return table

        def commit_table(self, *arguments):
            return self.inner.commit_table(*arguments)

    worn.maintainer("other", Between(worn.catalog)).sweep()
    worn.clock.advance(GRACE)
    worn.maintainer().sweep()
    assert ids(worn) == [*range(8), 9]
    assert worn.on_disk() == Reach().of(worn.table)


@pytest.mark.parametrize("skew", [-SKEW, SKEW])
def test_clocks_an_hour_apart_leave_a_query_its_time(worn, skew):
    """One clock says when a file died, another when its grace is over."""
    reading = limits.SNAPSHOT_POLL_S + limits.TICKET_LIFE_S + limits.STREAM_S
    gone = dead(worn)
    worn.maintainer().sweep()
    worn.clock.advance(skew + reading)
    assert worn.maintainer("other").sweep().removed == 0
    assert gone <= worn.on_disk()
    worn.clock.advance(2 * SKEW + GRACE)
    worn.maintainer("other").sweep()
    assert worn.on_disk() == Reach().of(worn.table)


def test_what_cannot_be_read_ends_the_sweep(worn):
    manifest = worn.table.current_snapshot().manifests(worn.table.io)[0].manifest_path
    Path(local_path(manifest)).unlink()
    before = worn.on_disk()
    with pytest.raises(Unavailable):
        worn.maintainer().sweep()
    assert worn.on_disk() == before


def test_two_sweepers_at_once_do_no_harm(worn):
    gone = dead(worn)
    worn.maintainer("one").sweep()
    worn.clock.advance(GRACE)
    catalog = FaultyCatalog(worn.catalog)
    Path(local_path(worn.table.location()), "metadata", "stray").write_bytes(b"x")
    catalog.before = lambda: worn.maintainer("two").sweep()
    swept = worn.maintainer("three", catalog).sweep()
    assert swept.removed == len(gone)
    assert ids(worn) == list(range(8))


def test_a_grace_shorter_than_a_query_is_refused():
    with pytest.raises(ValidationError):
        LakeSettings(sweep_grace_s=limits.STREAM_S)
