"""What retention removes, and what the lake says of it afterwards."""

import threading

import pytest

from k2 import limits
from k2.errors import NotFound, Reason
from k2.lake.catalog import local_path
from k2.lake.retain import DatedFile, Retainer, due
from k2.market.events import DAY_US
from k2.market.instrument import Instrument
from k2.settings import LakeSettings
from tests.eventually import eventually
from tests.lake_world import FaultyCatalog, LakeWorld, piece

HOUR_US = DAY_US // 24
MIB = limits.MIB


def settings(**given):
    return LakeSettings().model_copy(update=given)


def file(name, day, hour=0, size=1):
    return DatedFile(name, "m", day, day * DAY_US + hour * HOUR_US, 10, size * MIB)


def names(files):
    return [one.location for one in files]


def test_days_that_ended_long_ago_go():
    files = [file("c", 3), file("a", 1, 23), file("b", 2)]
    keep = settings(retention_hours=24)
    assert names(due(files, 3 * DAY_US - 1, keep)) == []
    assert names(due(files, 3 * DAY_US, keep)) == ["a"]
    assert names(due(files, 4 * DAY_US, keep)) == ["a", "b"]
    assert names(due(files, 9 * DAY_US, keep)) == ["a", "b"]  # the newest stays
    assert names(due(files, 9 * DAY_US, settings(retention_hours=None))) == []


def test_the_oldest_go_until_a_tenth_of_the_budget_is_free():
    files = [file(str(hour), 0, hour, size=10) for hour in range(11)]
    assert names(due(files, 0, settings(bytes_max=110 * MIB))) == []
    assert names(due(files, 0, settings(bytes_max=100 * MIB))) == ["0", "1"]
    assert names(due(files, 0, settings(bytes_max=109 * MIB))) == ["0", "1"]
    assert len(due(files, 0, settings(bytes_max=1))) == 10


def test_both_rules_count_together():
    files = [file("a", 1, size=50), file("b", 2, size=50), file("c", 3, size=50)]
    both = settings(retention_hours=24, bytes_max=100 * MIB)
    assert names(due(files, 3 * DAY_US, both)) == ["a"]
    assert names(due(files, 3 * DAY_US, settings(retention_hours=24, bytes_max=99 * MIB))) == [
        "a",
        "b",
    ]


@pytest.fixture
def days(lake):
    """A file for each of four days, today the last; ids 0 to 3."""
    today = lake.clock.now_us() // DAY_US
    lake.commit_each([0], times=[(today - 3) * DAY_US + 5])
    lake.commit_each([1], times=[(today - 2) * DAY_US + 5])
    lake.commit_each([2], times=[(today - 1) * DAY_US + 5])
    lake.commit_each([3], times=[today * DAY_US + 5])
    return lake


def retainer(lake, catalog=None, **given):
    given = {"retention_hours": 24} | given
    return Retainer(
        replacer=lake.replacer("retain", catalog), clock=lake.clock, settings=settings(**given)
    )


def ids(lake):
    return [row[3] for row in lake.rows()]


def test_a_pass_removes_old_rows_and_says_from_when_on_none_is_missing(days):
    before = days.snapshots.current()
    states = days.snapshots.states(before)
    one = retainer(days)
    assert one.step()
    after = days.snapshots.current()
    assert ids(days) == [2, 3]
    today = days.clock.now_us() // DAY_US
    assert (before.floor_us, after.floor_us) == (None, (today - 2) * DAY_US + 6)
    assert (after.operation, after.rows_total, after.files_total) == ("delete", 2, 2)
    for fact in ("positions", "counters", "state_path", "topic", "topic_id", "cluster_id"):
        assert getattr(after, fact) == getattr(before, fact)
    assert days.snapshots.states(after) == states
    assert (one.stats.files, one.stats.rows) == (2, 2)
    assert one.stats.bytes == before.bytes_total - after.bytes_total


def test_the_next_pass_drops_what_still_names_them_but_for_tags(days):
    tagged = days.snapshots.list()[1].snapshot_id
    days.table.manage_snapshots().create_tag(tagged, "kept").commit()
    one = retainer(days)
    one.step()
    assert len(days.snapshots.list()) == 5
    assert one.step()
    left = {each.snapshot_id for each in days.table.metadata.snapshots}
    assert left >= {tagged, days.snapshots.current().snapshot_id}
    assert len(left) == 3  # and the head of when they were dropped
    assert one.stats.snapshots == 3
    one.step()
    assert not one.step()
    assert ids(days) == [2, 3]


def test_a_time_before_what_was_removed_is_out_of_range(days):
    before_us = days.snapshots.current().committed_at_us
    with pytest.raises(NotFound) as refused:
        days.snapshots.as_of(1)
    assert refused.value.reason is Reason.UNKNOWN_SNAPSHOT
    one = retainer(days)
    while one.step():
        pass
    with pytest.raises(NotFound) as refused:
        days.snapshots.as_of(before_us)
    assert refused.value.reason is Reason.OUT_OF_RANGE


def test_every_later_commit_carries_the_floor(days):
    retainer(days).step()
    floor = days.snapshots.current().floor_us
    days.commit_each([4, 5])
    days.maintainer().expire(days.clock.now_us() + HOUR_US)
    assert {one.floor_us for one in days.snapshots.list()} == {floor}
    assert days.snapshots.current().operation == "replace"


def test_a_late_copy_of_a_removed_trade_is_a_duplicate(days):
    retainer(days).step()
    writer = days.committer("late")
    positions, states, _ = writer.base()
    late = piece(0, [0], start=positions[0], state=states[0])
    writer.commit([late])
    assert ids(days) == [2, 3]
    assert late.state.duplicate == 1
    assert late.state.seen[Instrument("BINANCE", "BTCUSDT")].count == 4


def test_the_floor_never_falls(days):
    retainer(days).step()
    floor = days.snapshots.current().floor_us
    days.commit_each([9], times=[floor - DAY_US])  # a backfill of what is too old
    assert ids(days) == [2, 3, 9]
    one = retainer(days)
    assert one.step()
    assert ids(days) == [2, 3]
    assert days.snapshots.current().floor_us == floor


def test_the_budget_holds_without_hours(days):
    size = days.snapshots.current().bytes_total
    assert not retainer(days, retention_hours=None, bytes_max=size).step()
    assert retainer(days, retention_hours=None, bytes_max=size - 1).step()
    assert ids(days) == [1, 2, 3]


def test_nothing_to_do_reads_no_manifest(days):
    one = retainer(days)
    while one.step():
        pass
    for manifest in days.table.current_snapshot().manifests(days.table.io):
        local_file = local_path(manifest.manifest_path)
        with open(local_file, "wb"):
            pass
    assert not one.step()
    days.clock.advance(86_400)
    with pytest.raises(EOFError):
        one.step()


def test_an_empty_lake_has_nothing_to_lose(lake):
    assert not retainer(lake).step()


def test_another_commit_may_come_first(days):
    catalog = FaultyCatalog(days.catalog, before=lambda: days.commit_each([4]))
    assert retainer(days, catalog).step()
    assert ids(days) == [2, 3, 4]


def test_it_goes_on_after_a_failure(days):
    stopping = threading.Event()
    one = retainer(days, FaultyCatalog(days.catalog, "busy"), retain_interval_s=0.01)
    thread = threading.Thread(target=one.run, args=(stopping,))
    thread.start()
    eventually(lambda: one.stats.rows == 2)
    stopping.set()
    thread.join()
    assert one.stats.failures == 1


def test_a_laptop_is_bounded_by_default(tmp_path):
    world = LakeWorld(tmp_path)
    assert world.settings.lake.retention_hours is None
    assert world.settings.lake.bytes_max == 20 * 1024 * MIB
    world.close()
