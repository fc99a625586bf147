"""Verification of a lake of which retention has removed what is older than a floor."""

import numpy as np
import pyarrow as pa
import pytest

from k2.lake.commit.committer import PartitionBatch
from k2.lake.maintenance.retention import Retention
from k2.market.events import DAY_US, Fault
from k2.market.fold import FoldState, fold
from k2.market.ledger import GapState
from k2.settings import LakeSettings
from k2.tape.consumer import RawBatch
from tests.support.writer_world import judged_alone, kinds, pumped
from tests.unit.lake.verify.test_verification import told


def retained(world, hours=24):
    """Let retention remove what is older."""
    settings = LakeSettings(retention_hours=hours)
    one = Retention(
        replacer=world.replacer("retain"),
        clock=world.clock,
        settings=settings,
        bytes_max=settings.bytes_max,
    )
    assert one.step()


def days_of(world, *ids_of_days):
    """A commit a day with these ids, today's the last; the partition."""
    today_us = world.clock.now_us() // DAY_US * DAY_US
    for back, ids in zip(range(len(ids_of_days) - 1, -1, -1), ids_of_days, strict=True):
        partition = world.put(*ids, at=today_us - back * DAY_US + 7)
        pumped(world, f"w{back}")
    return partition


def test_rows_that_lake_retention_removed_are_not_lost(world):
    partition = days_of(world, [1, 2, 4], [5], [6], [7])
    retained(world)
    assert world.ids() == [6, 7]
    report = world.verified()
    assert report["ok"], report["problems"]
    assert report["floor_us"] == world.snapshots.current().retained_from_us
    assert "lake retention has removed rows of before" in report["message"]
    assert (report["rows"], report["accepted"], report["holes_total"]) == (2, 6, 1)
    world.put(4)  # late, and known though its row is gone
    pumped(world, "late")
    assert world.verified()["ok"]
    for start in (2, 4, 7):
        world.tape.remove_before(partition, start)
        report = world.verified()
        assert report["ok"], report["problems"]
        assert report["holes_total"] == 1


@pytest.mark.parametrize("start", [0, 3])
def test_a_row_above_the_floor_is_missed(world, start):
    partition = days_of(world, [1, 2], [3], [4])
    today_us = world.clock.now_us() // DAY_US * DAY_US
    log = world.tape.logs[partition]
    world.put(5, 6, at=today_us + 8)
    raw = RawBatch(partition, np.arange(log.end, dtype=np.int64), log.values, log.end)
    columns = judged_alone(world, raw)
    after = fold(FoldState(), columns).state
    writer = world.committer("bad", tape=world.identity)
    writer.commit([PartitionBatch(partition, 4, 6, (columns.take(np.array([4])),), after)])
    retained(world)
    world.tape.remove_before(partition, start)
    assert kinds(world.verified()) == {("LOST", 1, (5,))}


def test_a_state_that_forgot_an_id_of_the_tape_is_found_above_a_floor(world):
    partition = days_of(world, [1, 2], [3], [4])
    today_us = world.clock.now_us() // DAY_US * DAY_US
    world.put(5, at=today_us + 8)
    world.put(6, at=today_us + 9)
    log = world.tape.logs[partition]
    raw = RawBatch(partition, np.arange(log.end, dtype=np.int64), log.values, log.end)
    columns = judged_alone(world, raw)
    forgetful = fold(FoldState(), columns.take(np.array([0, 1, 2, 3, 5]))).state
    writer = world.committer("bad", tape=world.identity)
    rows = (columns.take(np.array([4, 5])),)
    writer.commit([PartitionBatch(partition, 4, 6, rows, forgetful)])
    retained(world)
    world.tape.remove_before(partition, 3)
    assert {one[0] for one in kinds(world.verified())} == {"STATE"}


def test_rows_of_earlier_epochs_that_lake_retention_removed_are_not_lost(world):
    days_of(world, [1, 2], [3], [4])
    world.begin_epoch()
    world.put(4, 5, 6, at=world.clock.now_us() // DAY_US * DAY_US + 8)
    pumped(world, "second")
    retained(world)
    assert world.ids() == [3, 4, 5, 6]
    report = world.verified()
    assert report["ok"], report["problems"]
    assert (report["accepted"], report["duplicate"], report["rows_of_earlier_epochs"]) == (2, 1, 2)
    with world.table.transaction() as transaction:
        transaction.append(world.table.scan("trade_id == 3").to_arrow())
    assert {one[0] for one in kinds(world.verified())} == {"DOUBLED"}


def test_an_id_of_an_earlier_epoch_that_was_not_carried_over_is_found_above_a_floor(world):
    days_of(world, [1], [2], [3])
    world.begin_epoch()
    retained(world)
    strange = world.table.scan("trade_id == 3").to_arrow()
    place = strange.schema.get_field_index("trade_id")
    strange = strange.set_column(place, strange.schema.field(place), pa.array([9], pa.int64()))
    with world.table.transaction() as transaction:
        transaction.append(strange)
    assert {one[0] for one in kinds(world.verified())} == {"STATE"}


def test_ids_used_again_whose_first_use_both_retentions_removed_are_no_rows(world):
    partition = days_of(world, [1, 2], [3], [1, 2, 4])
    assert [one.fault for one in world.tape.letters] == [Fault.REUSED_ID] * 2
    retained(world, hours=1)
    assert world.ids() == [3, 4]
    for start in (0, 2, 3, 5):
        world.tape.remove_before(partition, start)
        report = world.verified()
        assert report["ok"], report["problems"]
        assert report["rows"] == 2


def test_ids_used_again_within_the_hour_of_a_new_row_are_duplicates_of_rows_that_are_gone(world):
    """The venue begins again at 1; ids that were never seen move the newest time to today."""
    partition = days_of(world, [4, 5, 6], [7], [1, 2, 4, 5])
    assert not world.tape.letters
    retained(world, hours=1)
    assert world.ids() == [1, 2, 7]
    for start in range(9):
        world.tape.remove_before(partition, start)
        report = world.verified()
        assert report["ok"], report["problems"]
        assert ("a lost row may look like" in report["message"]) == (start > 0)


def test_a_duplicate_later_than_all_published_rows_was_no_row(world):
    partition = days_of(world, [4, 5], [], [1, 2])
    world.put(4, 5, at=world.clock.now_us() // DAY_US * DAY_US + 8)
    pumped(world, "again")
    retained(world, hours=1)
    assert world.ids() == [1, 2]
    world.tape.remove_before(partition, 2)
    report = world.verified()
    assert report["ok"], report["problems"]


def test_a_state_that_knows_of_ids_used_again_explains_duplicates_of_rows_that_are_gone(world):
    partition = days_of(world, [4, 5], [], [1, 2, 4, 5, 6])
    world.put(4, at=world.clock.now_us() // DAY_US * DAY_US + 2 * 3_600_000_000)
    pumped(world, "again")
    assert [one.fault for one in world.tape.letters] == [Fault.REUSED_ID]
    retained(world, hours=1)
    assert world.ids() == [1, 2, 6]
    world.tape.remove_before(partition, 2)
    report = world.verified()
    assert report["ok"], report["problems"]


def test_a_row_that_is_lost_is_no_duplicate_that_the_state_has_not_counted(world):
    partition = days_of(world, [4, 5, 6], [7], [1, 2])
    world.put(8, at=world.clock.now_us() // DAY_US * DAY_US + 8)
    log = world.tape.logs[partition]
    raw = RawBatch(partition, np.arange(log.end, dtype=np.int64), log.values, log.end)
    after = fold(FoldState(), judged_alone(world, raw)).state
    writer = world.committer("bad", tape=world.identity)
    writer.commit([PartitionBatch(partition, 6, 7, (), after)])
    retained(world, hours=1)
    world.tape.remove_before(partition, 3)
    assert {one[0] for one in kinds(world.verified())} == {"COUNTERS"}


def test_a_duplicate_below_the_floor_and_later_than_all_published_rows_was_no_row(world):
    partition = days_of(world, [4, 5], [1, 2], [], [])
    day_us = world.clock.now_us() // DAY_US * DAY_US - 2 * DAY_US
    world.put(4, 5, at=day_us + 9)
    world.put(1, symbol="ETHUSDT", at=day_us + 20)
    world.put(2, symbol="ETHUSDT", at=world.clock.now_us())
    pumped(world, "again")
    retained(world, hours=1)
    world.tape.remove_before(partition, 4)
    report = world.verified()
    assert report["ok"], report["problems"]


def test_an_id_that_was_filled_and_is_gone_from_tape_and_lake_is_known_to_the_state(world):
    partition = days_of(world, [2, 1], [], [3])
    told(world, 2, 2, GapState.FILLED)
    retained(world, hours=1)
    world.tape.remove_before(partition, 1)
    report = world.verified(gaps=lambda: world.tape.gaps)
    assert report["ok"], report["problems"]
