"""What retention removes, and what the lake says of it afterwards."""

import threading
from dataclasses import replace
from itertools import count

import pytest

from k2 import limits
from k2.errors import NotFound, Reason
from k2.lake.commit.event_files import OpsStore
from k2.lake.iceberg.catalog import local_path
from k2.lake.iceberg.file_stats import LiveFile
from k2.lake.iceberg.reachability import Reach
from k2.lake.iceberg.snapshot import current_of, read_states
from k2.lake.iceberg.tables import DEAD_LETTERS, DEAD_LETTERS_LAYOUT
from k2.lake.maintenance.retention import Retention, expired_files
from k2.market.events import DAY_US
from k2.settings import LakeSettings
from tests.support.eventually import eventually
from tests.support.lake_world import FaultyCatalog, LakeWorld
from tests.support.ops_world import OpsWorld, letter

HOUR_US = DAY_US // 24
MIB = limits.MIB


def settings(**given):
    return LakeSettings().model_copy(update=given)


def file(name, day, hour=0, size=1):
    return LiveFile(name, "m", day, (), day * DAY_US + hour * HOUR_US, 10, size * MIB)


def names(files):
    return [one.location for one in files]


def gone(files, now_us, hours=None, bytes_max=limits.LAKE_BYTES_MAX):
    return names(expired_files(files, now_us, hours, bytes_max))


def test_days_that_ended_long_ago_go():
    files = [file("c", 3), file("a", 1, 23), file("b", 2)]
    assert gone(files, 3 * DAY_US - 1, 24) == []
    assert gone(files, 3 * DAY_US, 24) == ["a"]
    assert gone(files, 4 * DAY_US, 24) == ["a", "b"]
    assert gone(files, 9 * DAY_US, 24) == ["a", "b"]  # the newest stays
    assert gone(files, 9 * DAY_US) == []


def test_the_oldest_go_until_a_tenth_of_the_budget_is_free():
    files = [file(str(hour), 0, hour, size=10) for hour in range(11)]
    assert gone(files, 0, bytes_max=110 * MIB) == []
    assert gone(files, 0, bytes_max=100 * MIB) == ["0", "1"]
    assert gone(files, 0, bytes_max=109 * MIB) == ["0", "1"]
    assert len(gone(files, 0, bytes_max=1)) == 10


def test_both_rules_count_together():
    files = [file("a", 1, size=50), file("b", 2, size=50), file("c", 3, size=50)]
    assert gone(files, 3 * DAY_US, 24, 100 * MIB) == ["a"]
    assert gone(files, 3 * DAY_US, 24, 99 * MIB) == ["a", "b"]


@pytest.fixture
def days(lake):
    """A file for each of four days, today the last; ids 0 to 3."""
    today = lake.clock.now_us() // DAY_US
    lake.commit_each([0], times=[(today - 3) * DAY_US + 5])
    lake.commit_each([1], times=[(today - 2) * DAY_US + 5])
    lake.commit_each([2], times=[(today - 1) * DAY_US + 5])
    lake.commit_each([3], times=[today * DAY_US + 5])
    return lake


def retainer(lake, catalog=None, bytes_max=limits.LAKE_BYTES_MAX, store=None, **given):
    given = {"retention_hours": 24} | given
    return Retention(
        replacer=lake.replacer("retain", catalog, store=store),
        clock=lake.clock,
        settings=settings(**given),
        bytes_max=bytes_max,
    )


class Trades:
    """The table of trades, as these tests see a table."""

    kind = LakeWorld

    def __init__(self, world):
        self.world = world
        self.table_of = lambda: world.table
        self.keeper = world.maintainer

    def put(self, number, at_us):
        """Commit a row of that time."""
        self.world.commit_each([number], times=[at_us])

    def ids(self):
        return ids(self.world)

    def retainer(self, **given):
        return retainer(self.world, **given)


class DeadLetters:
    """That of dead letters."""

    kind = OpsWorld

    def __init__(self, world):
        self.world = world
        self.table_of = lambda: world.catalog.load_table(DEAD_LETTERS)
        self.keeper = world.keeper
        self.writers = count()

    def put(self, number, at_us):
        self.world.post(replace(letter(number), at_us=at_us))
        writer = self.world.letter_writer(f"w{next(self.writers)}")
        writer.step()
        writer.close()

    def ids(self):
        return sorted(self.world.origins())

    def retainer(self, **given):
        return retainer(self.world, store=OpsStore(DEAD_LETTERS_LAYOUT), **given)


@pytest.fixture(params=[Trades, DeadLetters])
def kept(request, tmp_path):
    """A table with a file for each of four days, today the last; ids 0 to 3."""
    table = request.param(request.param.kind(tmp_path))
    today = table.world.clock.now_us() // DAY_US
    for number in range(4):
        table.put(number, (today - 3 + number) * DAY_US + 5)
    yield table
    table.world.close()


def head_of(table):
    return current_of(table.table_of().metadata)


def ids(lake):
    return [row[3] for row in lake.rows()]


def test_a_pass_removes_old_rows_and_says_from_when_on_none_is_missing(kept):
    before, io = head_of(kept), kept.table_of().io
    states = read_states(io, before)
    one = kept.retainer()
    assert one.step()
    after = head_of(kept)
    assert kept.ids() == [2, 3]
    today = kept.world.clock.now_us() // DAY_US
    assert (before.retained_from_us, after.retained_from_us) == (None, (today - 2) * DAY_US + 6)
    assert (after.operation, after.rows_total, after.files_total) == ("delete", 2, 2)
    for fact in ("positions", "counters", "state_path", "topic", "topic_id", "cluster_id"):
        assert getattr(after, fact) == getattr(before, fact)
    assert read_states(io, after) == states
    assert (one.stats.files, one.stats.rows) == (2, 2)
    assert one.stats.bytes == before.bytes_total - after.bytes_total


def test_the_next_pass_drops_what_still_names_them_but_for_tags(kept):
    before = [one.snapshot_id for one in kept.table_of().metadata.snapshots]
    kept.table_of().manage_snapshots().create_tag(before[-2], "kept").commit()
    one = kept.retainer()
    one.step()
    assert len(kept.table_of().metadata.snapshots) == len(before) + 1
    assert one.step()
    left = {each.snapshot_id for each in kept.table_of().metadata.snapshots}
    assert left >= {before[-2], head_of(kept).snapshot_id}
    assert len(left) == 3  # and the head of when they were dropped
    assert one.stats.snapshots == len(before) - 1
    one.step()
    assert not one.step()
    assert kept.ids() == [2, 3]


def test_removed_files_are_swept_after_the_grace(kept):
    files = {task.file.file_path for task in kept.table_of().scan().plan_files()}
    while kept.retainer().step():
        pass
    keeper = kept.keeper()
    keeper.sweep()
    kept.world.clock.advance(limits.SWEEP_GRACE_S)
    assert keeper.sweep().waiting == 0
    on_disk = kept.world.on_disk(kept.table_of().name())
    assert on_disk == Reach().of(kept.table_of())
    assert len(on_disk & {local_path(path) for path in files}) == 2


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
    floor = days.snapshots.current().retained_from_us
    days.commit_each([4, 5])
    days.maintainer().expire(days.clock.now_us() + HOUR_US)
    assert {one.retained_from_us for one in days.snapshots.list()} == {floor}
    assert days.snapshots.current().operation == "replace"


def test_a_late_copy_of_a_removed_row_is_a_duplicate(kept):
    kept.retainer().step()
    kept.put(0, kept.world.clock.now_us())
    assert kept.ids() == [2, 3]
    head = head_of(kept)
    (state,) = (one for one in read_states(kept.table_of().io, head).values() if one.accepted)
    assert (state.accepted, state.duplicate) == (4, 1)


def test_the_floor_never_falls(kept):
    kept.retainer().step()
    floor = head_of(kept).retained_from_us
    kept.put(9, floor - DAY_US)  # what is too old comes late
    assert kept.ids() == [2, 3, 9]
    assert kept.retainer().step()
    assert kept.ids() == [2, 3]
    assert head_of(kept).retained_from_us == floor


def test_the_budget_holds_without_hours(kept):
    size = head_of(kept).bytes_total
    assert not kept.retainer(retention_hours=None, bytes_max=size).step()
    assert kept.retainer(retention_hours=None, bytes_max=size - 1).step()
    assert kept.ids() == [1, 2, 3]


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
    assert world.settings.lake.letters_bytes_max == 1024 * MIB
    world.close()
