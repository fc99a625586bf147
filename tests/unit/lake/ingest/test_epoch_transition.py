import contextlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from k2 import limits
from k2.errors import Data, Invalid, Reason, Unavailable
from k2.lake.commit.snapshot_commit import find_commit
from k2.lake.iceberg.catalog import local_path
from k2.lake.ingest.epoch_transition import (
    AvailableTape,
    StartedEpoch,
    begin_epoch,
    carried_over,
    end_epoch,
    first_positions,
)
from k2.market.fold import FoldState, Seen
from k2.market.offsets import OffsetVector
from k2.tape.topics import TopicDescription
from k2.tape.truncation_check import mark_of, read_marks
from tests.support.lake_world import Crash, FaultyCatalog
from tests.support.writer_world import BTC, ETH, begun, ended, pumped


def test_an_epoch_ends_where_the_lake_stands_and_nothing_else_changes(world):
    world.put(1, 2)
    pumped(world)
    before = world.snapshots.current()
    after = ended(world)
    assert after == world.snapshots.current()
    assert after.epochs.ended == "TOPIC_RECREATED"
    assert (after.positions, after.counters, after.state_path, after.rows_total) == (
        before.positions,
        before.counters,
        before.state_path,
        before.rows_total,
    )
    assert world.ids() == [1, 2]


def test_ending_it_twice_does_no_harm(world):
    world.put(1)
    pumped(world)
    first = ended(world)
    assert ended(world, why="OTHER") == first
    assert len(world.snapshots.list()) == 2


def test_a_lake_that_has_not_begun_has_nothing_to_end_and_takes_any_tape(world):
    assert ended(world) is None
    world.put(1)
    assert begun(world, "begin") == StartedEpoch(0, adopted=True)
    assert begun(world) == StartedEpoch(0)
    head = world.snapshots.current()
    assert (head.rows_total, head.positions) == (0, head.first_positions)
    assert len(world.snapshots.list()) == 1


@pytest.mark.parametrize("lost", ["made again", "overtaken"])
def test_a_tape_lost_before_its_first_row_was_taken_is_refused(world, lost):
    partition = world.put(1, 2)
    begun(world)
    if lost == "made again":
        world.tape.recreate()
    else:
        world.tape.remove_before(partition, 2)
    with pytest.raises(Data) as caught:
        begun(world)
    assert caught.value.reason in {Reason.TOPIC_RECREATED, Reason.RETENTION_OVERTOOK}
    ended(world, caught.value.reason)
    assert begun(world, "next") == StartedEpoch(1, adopted=True)


def test_an_empty_lake_begins_where_retention_has_left_the_tape(world):
    partition = world.put(1, 2, 3)
    world.tape.remove_before(partition, 2)
    assert begun(world, "begin") == StartedEpoch(0, adopted=True)
    assert begun(world) == StartedEpoch(0)
    assert world.snapshots.current().first_positions[partition] == 2
    pumped(world)
    assert world.ids() == [3]
    assert world.verified()["ok"]


def test_a_store_that_goes_away_while_an_epoch_begins_is_waited_for(world):
    partition = world.put(1)
    pumped(world)
    world.tape.recreate()
    ended(world)
    metadata = Path(local_path(world.table.metadata_location)).parent
    aside = metadata.with_name("aside")

    def away(states):
        metadata.rename(aside)
        metadata.touch()

    with pytest.raises(Unavailable) as caught:
        begun(world, tell=away)
    assert caught.value.reason is Reason.LAKE_UNAVAILABLE
    metadata.unlink()
    aside.rename(metadata)
    assert begun(world, "next") == StartedEpoch(1, adopted=True)
    assert world.snapshots.current().positions[partition] == 0


def test_an_epoch_that_lasts_goes_on(world):
    world.put(1)
    pumped(world)
    assert begun(world) == StartedEpoch(0)
    assert len(world.snapshots.list()) == 1


def test_another_writer_may_move_the_lake_while_one_starts(world):
    partition = world.put(1)
    pumped(world)

    def facts():
        seen = world.facts
        assert seen.log_end[partition] >= world.snapshots.current().positions[partition]
        return seen

    class Moving:
        """As the lake is read, another writer commits what has just been printed."""

        def load_table(self, identifier):
            world.put(2)
            pumped(world, "other")
            return world.catalog.load_table(identifier)

    there = AvailableTape(
        facts, partial(read_marks, world.tape.reader), world.placement.place, print
    )
    assert begin_epoch(Moving(), world.clock, there, "x") == StartedEpoch(0)


def test_an_epoch_that_lasts_does_not_go_on_with_another_tape(world):
    world.put(1)
    pumped(world)
    world.tape.recreate()
    with pytest.raises(Data) as caught:
        begun(world)
    assert caught.value.reason is Reason.TOPIC_RECREATED
    assert "k2 tape new-epoch" in caught.value.message


def test_a_tape_that_lost_records_and_was_filled_again_is_known_by_its_last_record(world):
    partition = world.put(1, 2, 3)
    pumped(world)
    assert begun(world) == StartedEpoch(0)
    assert world.snapshots.current().epochs.marks[partition] == mark_of(
        world.tape.logs[partition].values[-1]
    )
    world.tape.truncate(partition, 2)
    world.put(4, 5, 6)
    with pytest.raises(Data) as caught:
        begun(world)
    assert caught.value.reason is Reason.TAPE_TRUNCATED
    ended(world, Reason.TAPE_TRUNCATED)
    begun(world)
    pumped(world, "w2")
    assert world.ids() == [1, 2, 3, 4, 5, 6]
    assert world.verified()["ok"]


def test_a_last_record_that_retention_removed_is_not_asked_for(world):
    partition = world.put(1, 2)
    pumped(world)
    world.tape.remove_before(partition, 2)
    assert begun(world) == StartedEpoch(0)


def test_the_next_epoch_begins_on_the_tape_that_is_there_with_all_ids_seen(world):
    world.put(1, 2, 3)
    world.put(7, symbol="ETHUSDT")
    pumped(world)
    last = world.snapshots.current()
    found = world.begin_epoch()
    head = world.snapshots.current()
    assert (found.epoch, found.adopted) == (1, True)
    assert head.positions == OffsetVector(1, (0,) * 8)
    assert head.epochs.past == (last.positions,)
    assert (head.epochs.start, head.epochs.ended) == (head.positions, "")
    assert (head.topic_id, head.rows_total) == ("2", 4)
    assert set(head.counters.values()) == {(0, 0, 0)}
    states = world.snapshots.states(head)
    assert states[world.home[BTC]].seen[BTC].intervals.tolist() == [[1, 3]]
    assert states[world.home[ETH]].seen[ETH].intervals.tolist() == [[7, 7]]


def test_a_trade_is_stored_once_though_both_tapes_have_it(world):
    world.put(1, 2, 3)
    pumped(world)
    world.begin_epoch()
    partition = world.put(2, 3, 4, 6)
    pumped(world, "w2")
    assert world.ids() == [1, 2, 3, 4, 6]
    assert world.snapshots.current().counters[partition] == (2, 2, 0)
    rows = {row[0]: row[1:] for row in world.rows("trade_id", "tape_epoch", "tape_offset")}
    assert (rows[3], rows[4]) == ((0, 2), (1, 2))
    report = world.verified()
    assert (report["ok"], report["epoch"], report["rows_of_earlier_epochs"]) == (True, 1, 3)
    assert [(hole["first_id"], hole["last_id"]) for hole in report["holes"]] == [(5, 5)]


def test_an_epoch_may_have_other_partitions(world):
    world.put(1, 2)
    pumped(world)
    world.begin_epoch(partitions=16)
    world.put(2, 3)
    pumped(world, "w2")
    assert world.ids() == [1, 2, 3]
    assert len(world.snapshots.current().positions.offsets) == 16
    assert world.verified()["ok"]


def test_epochs_follow_each_other(world):
    for epoch in range(4):
        world.put(epoch, epoch + 1)
        pumped(world, f"w{epoch}")
        assert world.verified()["ok"]
        if epoch % 2:
            world.tape.recreate()
        ended(world)
        begun(world)
    assert world.epoch == 4
    assert world.ids() == [0, 1, 2, 3, 4]
    assert [end.epoch for end in world.snapshots.current().epochs.past] == [0, 1, 2, 3]
    assert world.verified()["ok"]


@pytest.mark.parametrize("started", [False, True])
def test_a_writer_of_the_ended_epoch_adds_nothing_any_more(world, started):
    world.put(1)
    zombie = world.pump("zombie")
    zombie.step()
    zombie.commit()
    world.put(2)
    zombie.step()
    ended(world)
    if started:
        begun(world)
    with pytest.raises(Data) as caught:
        zombie.commit()
    assert caught.value.reason is Reason.EPOCH_ENDED
    assert world.ids() == [1]


def test_where_retention_overtook_the_lake_it_goes_on_with_what_is_left(world):
    partition = world.put(1, 2)
    other = world.put(7, 8, symbol="ETHUSDT")
    pumped(world)
    world.put(3, 4, 5)
    world.tape.remove_before(partition, 4)
    ended(world, Reason.RETENTION_OVERTOOK)
    begun(world)
    head = world.snapshots.current()
    assert (head.positions[partition], head.positions[other]) == (4, 2)
    pumped(world, "w2")
    assert world.ids() == [1, 2, 5]
    report = world.verified()
    assert (report["ok"], report["holes_total"]) == (True, 1)


def test_a_truncated_tape_is_read_from_its_beginning(world):
    partition = world.put(1, 2, 3)
    pumped(world)
    world.tape.truncate(partition, 1)
    world.put(4)
    ended(world, Reason.TAPE_TRUNCATED)
    begun(world)
    assert world.snapshots.current().positions[partition] == 0
    pumped(world, "w2")
    assert world.ids() == [1, 2, 3, 4]
    assert world.verified()["ok"]


def head_at(world, *ids, why):
    world.put(*ids)
    pumped(world)
    return ended(world, why)


@pytest.mark.parametrize(
    ("why", "changed", "first"),
    [
        (Reason.RETENTION_OVERTOOK, {}, 3),
        (Reason.RETENTION_OVERTOOK, {"log_start": 5}, 5),
        (Reason.RETENTION_OVERTOOK, {"log_end": 2}, 1),
        (Reason.RETENTION_OVERTOOK, {"topic_id": "2"}, 1),
        (Reason.RETENTION_OVERTOOK, {"cluster_id": "2"}, 1),
        (Reason.TAPE_TRUNCATED, {}, 1),
        (Reason.TOPIC_RECREATED, {}, 1),
    ],
)
def test_only_a_tape_that_is_surely_the_same_is_gone_on_with(world, why, changed, first):
    head = head_at(world, 1, 2, 3, why=why)
    here = world.home[BTC]
    start, end = changed.pop("log_start", 1), changed.pop("log_end", 9)
    facts = {
        "cluster_id": head.cluster_id,
        "topic": head.topic,
        "topic_id": head.topic_id,
        "partitions": 8,
        "log_start": tuple(start if p == here else 0 for p in range(8)),
        "log_end": tuple(end if p == here else 0 for p in range(8)),
    }
    assert first_positions(head, TopicDescription(**facts | changed))[here] == first


def test_ids_of_one_instrument_on_two_partitions_are_corrupt():
    seen = {BTC: Seen(np.array([[1, 2]]), 5)}
    assert carried_over({0: FoldState(seen, 2, 9, 9)}, lambda _: 3, 4)[3] == FoldState(seen)
    with pytest.raises(Data) as caught:
        carried_over({0: FoldState(seen), 1: FoldState(seen)}, lambda _: 3, 4)
    assert caught.value.reason is Reason.LAKE_CORRUPT


@pytest.mark.parametrize("fault", ["crash before", "crash after", "reply lost", "refused"])
def test_an_epoch_begins_once_whatever_befalls_the_commit(world, fault):
    world.put(1)
    pumped(world)
    ended(world)
    with contextlib.suppress(Crash):
        begun(world, "first", FaultyCatalog(world.catalog, fault))
    found = begun(world, "second")
    assert found.epoch == 1
    assert found.adopted == (fault == "crash before")
    assert len(world.snapshots.list()) == 3
    assert world.verified()["ok"]


def test_of_two_that_begin_it_at_once_one_does(world):
    world.put(1)
    pumped(world)
    ended(world)
    catalog = FaultyCatalog(world.catalog, before=lambda: begun(world, "faster"))
    found = begun(world, "slower", catalog)
    assert found == StartedEpoch(1)
    assert find_commit(world.table.metadata, "faster")


def test_a_catalog_where_others_are_always_faster_is_given_up(world):
    world.put(1)
    pumped(world)
    catalog = FaultyCatalog(world.catalog, *["refused"] * limits.COMMIT_ATTEMPTS_MAX)
    with pytest.raises(Unavailable):
        end_epoch(catalog, world.clock, "X", "e")


def test_epochs_are_bounded(world, monkeypatch):
    monkeypatch.setattr(limits, "EPOCHS_MAX", 1)
    world.put(1)
    pumped(world)
    world.begin_epoch()
    with pytest.raises(Invalid) as caught:
        ended(world)
    assert caught.value.reason is Reason.LIMIT_OUT_OF_BOUNDS
