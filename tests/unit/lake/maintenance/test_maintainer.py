import threading
from dataclasses import replace
from pathlib import Path

import pytest

from k2 import limits
from k2.errors import Data, Unavailable
from k2.lake.commit.committer import TradeStore
from k2.lake.iceberg.catalog import local_path
from k2.lake.iceberg.tables import TRADES_LAYOUT
from k2.lake.ingest.epoch_transition import end_epoch
from k2.lake.maintenance.maintainer import MaintainStats
from k2.market import schema
from tests.support.eventually import eventually
from tests.support.lake_world import Crash, FaultyCatalog, piece
from tests.support.writer_world import BTC

HOUR, DAY = 3600, 86_400


@pytest.fixture
def eight(lake):
    """A lake of eight files of a row each."""
    lake.commit_each(range(8))
    return lake


def everything(lake, snapshot_id=None):
    """All columns of all rows of a snapshot, in the order of their offsets."""
    return lake.table.scan(snapshot_id=snapshot_id).to_arrow().sort_by("tape_offset")


def files(lake):
    return lake.snapshots.files(lake.snapshots.current().snapshot_id)


def test_eight_small_files_become_one_with_the_same_rows(eight):
    before, rows = eight.snapshots.current(), everything(eight)
    states = eight.snapshots.states(before)
    assert eight.maintainer().compact() == 1
    after = eight.snapshots.current()
    assert everything(eight).equals(rows)
    assert set(schema.TRADE.columns) <= set(rows.schema.names)
    assert [file.rows for file in files(eight)] == [8]
    assert (after.operation, after.rows_added, after.files_total) == ("replace", 0, 1)
    assert after.bytes_total == files(eight)[0].size_bytes
    assert after.rows_total == before.rows_total
    for fact in ("positions", "counters", "state_path", "topic", "topic_id", "cluster_id"):
        assert getattr(after, fact) == getattr(before, fact)
    assert after.parent_id == before.snapshot_id
    assert eight.snapshots.states(after) == states
    assert eight.table.properties["k2.commit-id"] == after.commit_id


def test_what_was_planned_before_can_be_read_after(eight):
    before = eight.snapshots.current()
    planned, rows = eight.snapshots.files(before.snapshot_id), everything(eight)
    eight.maintainer().compact()
    assert {file.path for file in planned} <= eight.on_disk()
    assert everything(eight, before.snapshot_id).equals(rows)
    assert eight.snapshots.files(before.snapshot_id) == planned


def test_nothing_worth_merging_commits_nothing(lake):
    assert lake.maintainer().compact() == 0
    lake.commit_each(range(7))
    before = lake.table.metadata_location
    assert lake.maintainer().compact() == 0
    assert lake.table.metadata_location == before


def test_many_commits_and_merges_leave_few_files_and_every_row(lake):
    writer, maintainer = lake.committer(), lake.maintainer()
    for number in range(70):
        lake.commit_each([number], writer)
        maintainer.compact()
    assert [row[3] for row in lake.rows()] == list(range(70))
    assert sorted(file.rows for file in files(lake)) == [1] * 6 + [64]
    manifests = lake.table.current_snapshot().manifests(lake.table.io)
    assert len(manifests) <= limits.MANIFESTS_TO_MERGE
    assert maintainer.stats.rows_rewritten == 2 * 64


def test_a_day_that_is_over_ends_in_one_file(lake):
    lake.commit_each(range(8))
    lake.maintainer("one").compact()
    lake.commit_each(range(8, 11))
    assert lake.maintainer("two").compact() == 0
    lake.clock.advance(3 * DAY)
    assert lake.maintainer("three").compact() == 1
    assert [file.rows for file in files(lake)] == [11]
    assert [row[3] for row in lake.rows()] == list(range(11))


def test_days_are_not_mixed(lake):
    writer = lake.committer()
    for number in range(16):
        at = lake.clock.now_us() - (number % 2) * DAY * 1_000_000
        lake.commit_each([number], writer, times=[at])
    assert lake.maintainer().compact() == 2
    assert sorted(file.rows for file in files(lake)) == [8, 8]
    assert [row[3] for row in lake.rows()] == list(range(16))


def stray(lake):
    """A file that nothing names."""
    path = Path(local_path(lake.table.location()), "metadata", "stray.avro")
    path.write_bytes(b"x")
    return str(path)


# --- races ---------------------------------------------------------------------------------------


def test_a_commit_that_comes_first_is_kept(eight):
    catalog = FaultyCatalog(eight.catalog, before=lambda: eight.commit_each([8]))
    maintainer = eight.maintainer(catalog=catalog)
    assert maintainer.compact() == 1
    assert catalog.commits == 2
    assert [row[3] for row in eight.rows()] == list(range(9))
    assert sorted(file.rows for file in files(eight)) == [1, 8]
    assert eight.snapshots.current().positions[0] == 9


def test_the_writer_goes_on_after_any_merge(eight):
    writer = eight.committer("other")
    writer.base()
    eight.maintainer().compact()
    eight.commit_each([8], writer)
    assert [row[3] for row in eight.rows()] == list(range(9))


def test_of_two_maintainers_one_merges(eight):
    catalog = FaultyCatalog(eight.catalog, before=lambda: eight.maintainer("other").compact())
    maintainer = eight.maintainer(catalog=catalog)
    assert maintainer.compact() == 0
    assert maintainer.stats.abandoned == 1
    assert [row[3] for row in eight.rows()] == list(range(8))
    assert [file.rows for file in files(eight)] == [8]


def test_a_merge_is_forgotten_when_a_fence_lies_between(eight):
    """What was written before a sweep may be found dead by it."""
    eight.clock.advance(HOUR)
    catalog = FaultyCatalog(eight.catalog, before=lambda: eight.maintainer("other").sweep())
    maintainer = eight.maintainer(catalog=catalog)
    stray(eight)
    assert maintainer.compact() == 0
    assert maintainer.stats.abandoned == 1
    assert maintainer.compact() == 1
    eight.clock.advance(4 * HOUR)
    eight.maintainer("other").sweep()
    assert [row[3] for row in eight.rows()] == list(range(8))


@pytest.mark.parametrize("fault", ["reply lost", "landed and refused"])
def test_a_merge_that_landed_though_it_was_answered_otherwise_is_found(eight, fault):
    catalog = FaultyCatalog(eight.catalog, fault)
    maintainer = eight.maintainer(catalog=catalog)
    assert maintainer.compact() == 1
    assert catalog.commits == 1
    assert [row[3] for row in eight.rows()] == list(range(8))


def test_a_merge_in_doubt_is_not_made_twice(eight):
    catalog = FaultyCatalog(eight.catalog, "away after")
    maintainer = eight.maintainer(catalog=catalog)
    with pytest.raises(Unavailable):
        maintainer.compact()
    catalog.away = False
    assert maintainer.compact() == 0
    assert [row[3] for row in eight.rows()] == list(range(8))
    assert [file.rows for file in files(eight)] == [8]


@pytest.mark.parametrize(("fault", "count"), [("crash before", 8), ("crash after", 1)])
def test_one_that_dies_around_the_swing_leaves_all_or_nothing(eight, fault, count):
    rows = everything(eight)
    with pytest.raises(Crash):
        eight.maintainer(catalog=FaultyCatalog(eight.catalog, fault)).compact()
    assert len(files(eight)) == count
    assert everything(eight).equals(rows)
    assert eight.maintainer("next").compact() == (count == 8)
    assert everything(eight).equals(rows)


def test_the_writer_of_the_same_process_waits_and_loses_nothing(eight):
    catalog = FaultyCatalog(eight.catalog)
    writer = eight.committer("same", catalog)
    eight.commit_each([8], writer)
    maintainer = eight.maintainer(excluding=writer.excluded)
    assert maintainer.compact() == 1
    before = catalog.commits
    state = eight.snapshots.states(eight.snapshots.current())[0]
    writer.commit([piece(0, [9], start=9, state=state)])
    assert catalog.commits == before + 1  # no conflict
    assert [row[3] for row in eight.rows()] == list(range(10))


# --- expiry --------------------------------------------------------------------------------------


def test_snapshots_older_than_a_time_are_dropped_but_for_head_and_tags(lake):
    for number in range(5):
        lake.commit_each([number])
        lake.clock.advance(HOUR)
    made = lake.snapshots.list()[::-1]
    with lake.table.manage_snapshots() as manage:
        manage.create_tag(made[0].snapshot_id, "audit")
    maintainer = lake.maintainer()
    assert maintainer.expire(made[3].committed_at_us) == 2
    kept = [one.snapshot_id for one in lake.table.metadata.snapshots]
    assert set(kept) > {made[n].snapshot_id for n in (0, 3, 4)}
    assert not set(kept) & {made[n].snapshot_id for n in (1, 2)}
    assert maintainer.expire(lake.clock.now_us() + HOUR * 10**6) >= 2
    assert lake.snapshots.current().positions[0] == 5
    assert lake.table.metadata.refs["audit"].snapshot_id == made[0].snapshot_id
    assert maintainer.expire(0) == 0
    assert [row[3] for row in lake.rows()] == list(range(5))


def test_a_writer_goes_on_after_snapshots_were_dropped(lake):
    writer = lake.committer()
    lake.commit_each(range(3), writer)
    lake.maintainer().expire(lake.clock.now_us() + 10**9)
    lake.commit_each([3], writer)
    assert [row[3] for row in lake.rows()] == list(range(4))


# --- by itself -----------------------------------------------------------------------------------


def test_it_works_by_itself_until_it_is_stopped(eight):
    settings = eight.settings.lake.model_copy(
        update={"maintain_interval_s": 0.01, "sweep_interval_s": 0.01}
    )
    eight.settings = eight.settings.model_copy(update={"lake": settings})
    hot, stopping = threading.Event(), threading.Event()
    hot.set()
    maintainer = eight.maintainer(paused=hot.is_set)
    thread = threading.Thread(target=maintainer.run, args=(stopping,))
    thread.start()
    try:
        assert maintainer.stats == MaintainStats()
        hot.clear()
        eventually(lambda: maintainer.stats.compactions == 1)
        stray(eight)
        eight.clock.advance(1)
        eventually(lambda: maintainer.stats.files_waiting > 0)
    finally:
        stopping.set()
        thread.join()
    assert maintainer.stats.files_merged == 8
    assert maintainer.stats.failures == 0


def test_what_fails_is_counted_and_tried_again(eight):
    settings = eight.settings.lake.model_copy(update={"maintain_interval_s": 0.01})
    eight.settings = eight.settings.model_copy(update={"lake": settings})
    catalog, stopping = FaultyCatalog(eight.catalog, "busy", "disk full"), threading.Event()
    maintainer = eight.maintainer(catalog=catalog)
    thread = threading.Thread(target=maintainer.run, args=(stopping,))
    thread.start()
    try:
        eventually(lambda: maintainer.stats.compactions == 1)
    finally:
        stopping.set()
        thread.join()
    assert maintainer.stats.failures == 2


def test_a_file_that_cannot_be_read_is_an_error_and_changes_nothing(eight):
    path = files(eight)[3].path
    with open(local_path(path), "wb") as stream:
        stream.write(b"garbage")
    before = eight.table.metadata_location
    with pytest.raises(Data):
        eight.maintainer().compact()
    assert eight.table.metadata_location == before


def test_files_that_are_too_large_together_are_let_be(eight):
    maintainer = eight.maintainer(store=TradeStore(replace(TRADES_LAYOUT, merged_bytes_max=1)))
    assert maintainer.compact() == 0
    assert maintainer.compact() == 0
    assert len(files(eight)) == 8


# --- proof ---------------------------------------------------------------------------------------


def test_verification_finds_every_trade_once_after_all_of_it(world):
    pump = world.pump()
    for number in range(12):
        at = world.clock.now_us() + number
        world.put(number, number, at=at)  # each twice
        world.put(number, symbol="ETHUSDT", at=at, vendor={"m": str(number)})
        world.tape.append(world.home[BTC], b"garbage")
        pump.step()
        pump.commit()
    before = world.verified()
    assert world.maintainer("m1").compact() == 1
    assert world.verified()["ok"]
    world.maintainer("m2").expire(world.clock.now_us() + 10**12)
    world.maintainer("m3").sweep()
    world.clock.advance(world.settings.lake.sweep_grace_s)
    assert world.maintainer("m4").sweep().removed > 0
    after = world.verified()
    assert after["ok"]
    for name in ("accepted", "duplicate", "dead", "rows", "positions", "partitions", "symbols"):
        assert after[name] == before[name]
    world.put(12, at=world.clock.now_us())
    pump.step()
    if not pump.commit():  # the head it knew was dropped long ago: it looks again
        assert pump.commit()
    assert world.ids() == list(range(13))
    assert world.verified()["ok"]


def pumped(world, *ids):
    """Commits of one row each."""
    for one in ids:
        world.put(one)
        pump = world.pump(f"w{one}")
        pump.step()
        assert pump.commit()


def by_place(world):
    """All columns of all rows, in the order of their places on the tapes."""
    keys = [("tape_epoch", "ascending"), ("tape_offset", "ascending")]
    return world.table.scan().to_arrow().sort_by(keys)


def test_files_of_several_epochs_become_one_in_which_each_row_keeps_its_place(world):
    pumped(world, 1, 2, 3, 4)
    world.begin_epoch()
    pumped(world, 5, 6, 7, 8)
    before, rows = world.snapshots.current(), by_place(world)
    assert rows["tape_epoch"].to_pylist() == [0] * 4 + [1] * 4
    assert rows["tape_offset"].to_pylist() == [0, 1, 2, 3] * 2
    assert world.maintainer().compact() == 1
    after = world.snapshots.current()
    assert len(files(world)) == 1
    assert by_place(world).equals(rows)
    assert (after.epochs, after.positions) == (before.epochs, before.positions)
    report = world.verified()
    assert (report["ok"], report["accepted"], report["rows_of_earlier_epochs"]) == (True, 4, 4)


def test_a_merge_between_the_end_of_an_epoch_and_the_next_one_keeps_it_ended(world):
    pumped(world, *range(1, 9))
    ended = end_epoch(world.catalog, world.clock, "TOPIC_RECREATED", "end")
    assert world.maintainer().compact() == 1
    assert world.snapshots.current().epochs == ended.epochs
    assert ended.epochs.ended == "TOPIC_RECREATED"
