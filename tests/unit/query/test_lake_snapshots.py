from dataclasses import replace

import pytest

from k2 import limits
from k2.errors import Data, NotFound, Reason, Unavailable
from k2.lake.iceberg.epochs import EpochHistory
from k2.market.fold import RULES, FoldState
from k2.market.offsets import OffsetVector, ReadToken
from k2.query.lake_snapshots import LakeSide, assert_not_truncated
from k2.query.request import Consistency, TradesRequest
from tests.fakes.lake import FakeSnapshots, lake_snapshot

STATES = {0: FoldState(accepted=1)}


@pytest.fixture
def snapshots():
    made = FakeSnapshots()
    for number in (1, 2):
        positions = OffsetVector(0, (number * 10, 0))
        made.commit(lake_snapshot(number, positions, number * 100), (), STATES)
    return made


def published(snapshots, topic_id="1"):
    """The lake's side once it has read the newest snapshot."""
    lake = LakeSide(snapshots, 2, topic_id)
    lake.refresh()
    return lake


def test_before_the_lake_was_read_it_is_starting(snapshots):
    with pytest.raises(Unavailable) as caught:
        LakeSide(snapshots, 2, "1").published()
    assert caught.value.reason is Reason.STARTING


def test_the_newest_snapshot_is_published_and_stays_when_the_lake_is_away(snapshots):
    lake = LakeSide(snapshots, 2, "1")
    assert lake.refresh().snapshot_id == 2
    snapshots.failure = Unavailable(Reason.LAKE_UNAVAILABLE, "away")
    with pytest.raises(Unavailable):
        lake.refresh()
    assert lake.published().facts.positions == OffsetVector(0, (20, 0))


def test_only_a_snapshot_that_reaches_further_is_newer(snapshots):
    lake = LakeSide(snapshots, 2, "1")
    newest = lake.refresh()
    assert lake.newer_than(newest) is None
    assert lake.newer_than(lake.named_or_newer(1)) is newest
    behind = LakeSide(snapshots, 2, "1")
    snapshots.expire(2)
    assert behind.refresh().snapshot_id == 1
    assert behind.newer_than(newest) is None, "another server has seen a newer one"


def test_an_empty_lake_covers_nothing():
    lake = LakeSide(FakeSnapshots(), 2, "1")
    empty = lake.refresh()
    assert (empty.snapshot_id, empty.snapshot) == (0, None)
    assert empty.facts.positions == OffsetVector.zero(0, 2)
    assert lake.states(empty) == {}
    assert lake.named_or_newer(0) is empty


def test_a_request_pins_the_newest_one_by_id_or_by_time(snapshots):
    lake, as_of = LakeSide(snapshots, 2, "1"), Consistency.AS_OF
    assert lake.pinned(TradesRequest(consistency=Consistency.COMMITTED)).snapshot_id == 2
    assert lake.pinned(TradesRequest(consistency=as_of, as_of_snapshot=1)).snapshot_id == 1
    assert lake.pinned(TradesRequest(consistency=as_of, as_of_time_us=199)).snapshot_id == 1
    with pytest.raises(NotFound):
        lake.pinned(TradesRequest(consistency=as_of, as_of_snapshot=3))


def test_a_snapshot_no_longer_kept_is_replaced_by_the_published_one(snapshots):
    lake = LakeSide(snapshots, 2, "1")
    lake.refresh()
    assert lake.named_or_newer(1).snapshot_id == 1
    assert lake.named_or_newer(77).snapshot_id == 2


def test_what_was_read_is_not_read_again(snapshots):
    lake = LakeSide(snapshots, 2, "1")
    published = lake.refresh()
    assert lake.states(published) == STATES
    reads = snapshots.reads
    assert lake.named_or_newer(2) is published
    assert lake.states(published) == STATES
    assert snapshots.reads == reads


def test_only_so_many_snapshots_are_kept_in_memory(snapshots):
    lake = LakeSide(snapshots, 2, "1")
    for number in range(3, limits.FILE_LISTS_KEPT + 10):
        snapshots.commit(lake_snapshot(number, OffsetVector(0, (number, 0))), (), STATES)
        lake.states(lake.refresh())
    assert len(lake._kept) == len(lake._states) == limits.FILE_LISTS_KEPT
    assert lake.published().snapshot_id in lake._kept


def test_a_lake_of_another_tape_is_refused(snapshots):
    with pytest.raises(Data) as caught:
        LakeSide(snapshots, 3, "1").refresh()
    assert caught.value.reason is Reason.PARTITIONS_CHANGED
    assert "written from 2 partitions, topic t has 3" in caught.value.message


def test_a_lake_of_another_topic_is_refused(snapshots):
    with pytest.raises(Data) as caught:
        LakeSide(snapshots, 2, "2").refresh()
    assert caught.value.reason is Reason.TOPIC_RECREATED


@pytest.mark.parametrize(
    ("end", "snapshot_id"), [((0, 0), 1), ((10, 0), 1), ((11, 0), 2), ((20, 0), 2)]
)
def test_the_oldest_snapshot_that_holds_a_tokens_rows_is_chosen(snapshots, end, snapshot_id):
    lake = published(snapshots)
    assert lake.covering(ReadToken("1", OffsetVector(0, end))).snapshot_id == snapshot_id


def test_no_snapshot_holds_rows_that_were_not_committed(snapshots):
    lake = published(snapshots)
    assert lake.covering(ReadToken("1", OffsetVector(0, (20, 1)), snapshot_id=2)) is None


@pytest.mark.parametrize(
    "token",
    [
        ReadToken("2", OffsetVector(0, (1, 1))),
        ReadToken("1", OffsetVector(1, (1, 1))),
        ReadToken("1", OffsetVector(0, (1, 1, 1))),
    ],
)
def test_a_token_of_another_tape_is_refused(snapshots, token):
    lake = published(snapshots)
    with pytest.raises(NotFound) as caught:
        lake.covering(token)
    assert caught.value.reason is Reason.UNKNOWN_TOKEN


def test_the_tape_may_only_grow():
    read = OffsetVector(0, (3, 7))
    for end in ((3, 7), (4, 9)):
        assert_not_truncated(OffsetVector(0, end), (read,))
    with pytest.raises(Data) as caught:
        assert_not_truncated(OffsetVector(0, (9, 6)), (OffsetVector(0, (0, 0)), read))
    assert caught.value.reason is Reason.TAPE_TRUNCATED
    assert caught.value.metadata["partition"] == "1"


def epoch_of(number, ended="", epoch=1):
    made = lake_snapshot(number, OffsetVector(epoch, (0, 0)))
    return replace(made, epochs=EpochHistory(ended=ended, rules=RULES))


def test_while_the_next_epoch_awaits_its_tape_the_lake_starts(snapshots):
    snapshots.commit(epoch_of(3, ended="TOPIC_RECREATED", epoch=0), (), STATES)
    with pytest.raises(Unavailable) as caught:
        LakeSide(snapshots, 2, "1").refresh()
    assert caught.value.reason is Reason.STARTING


def test_a_process_does_not_follow_the_lake_into_another_epoch(snapshots):
    lake = LakeSide(snapshots, 2, "1")
    before = lake.refresh()
    assert lake.failure is None
    snapshots.commit(epoch_of(3), (), STATES)
    with pytest.raises(Data) as caught:
        lake.refresh()
    assert caught.value.reason is Reason.EPOCH_ENDED
    assert lake.failure is caught.value
    assert lake.published() is before


def test_only_the_lake_answers_what_was_planned_in_an_older_epoch(snapshots):
    snapshots.commit(epoch_of(3), (), STATES)
    lake = LakeSide(snapshots, 2, "1")
    newest = lake.refresh()
    older, newer = OffsetVector(0, (9, 9, 9)), OffsetVector(2, (0, 0))
    lake.assert_answers(newest, older, union=False)
    lake.assert_answers(newest, newest.facts.positions, union=True)
    refused = [(older, True), (newer, False), (newer, True), (OffsetVector(1, (0,)), False)]
    for end, union in refused:
        with pytest.raises(Data) as caught:
            lake.assert_answers(newest, end, union=union)
        assert caught.value.reason is Reason.EPOCH_ENDED


def test_an_older_snapshot_may_have_had_other_partitions(snapshots):
    snapshots.commit(epoch_of(3), (), STATES)
    snapshots._kept[0] = (lake_snapshot(1, OffsetVector(0, (9,) * 5)), (), STATES)
    lake = LakeSide(snapshots, 2, "1")
    lake.refresh()
    asked = TradesRequest(consistency=Consistency.AS_OF, as_of_snapshot=1)
    assert len(lake.pinned(asked).facts.positions.offsets) == 5


@pytest.fixture
def second_epoch(snapshots):
    """The first epoch had three partitions and ended at 20, 7 and 0; its topic was `1`."""
    made = lake_snapshot(3, OffsetVector(1, (0, 0)), 300, topic_id="2")
    past = EpochHistory(past=(OffsetVector(0, (20, 7, 0)),), past_topics=("1",), rules=RULES)
    snapshots.commit(replace(made, epochs=past), (), STATES)
    return published(snapshots, topic_id="2")


@pytest.mark.parametrize("offsets", [(20, 7, 0), (3, 7, 0)])
def test_a_token_of_an_epoch_that_ended_is_answered_by_the_lake(second_epoch, snapshots, offsets):
    snapshots.expire(1)
    snapshots.expire(2)
    token = ReadToken("1", OffsetVector(0, offsets), snapshot_id=1)
    assert second_epoch.covering(token).snapshot_id == 3


def test_a_token_of_an_epoch_whose_last_records_were_lost_is_out_of_range(second_epoch):
    with pytest.raises(NotFound) as caught:
        second_epoch.covering(ReadToken("1", OffsetVector(0, (20, 8, 0))))
    assert caught.value.reason is Reason.OUT_OF_RANGE


@pytest.mark.parametrize(
    "token",
    [
        ReadToken("2", OffsetVector(0, (1, 1, 0))),
        ReadToken("1", OffsetVector(0, (1, 1))),
        ReadToken("1", OffsetVector(1, (0, 0))),
        ReadToken("2", OffsetVector(2, (0, 0))),
    ],
)
def test_a_token_names_the_topic_of_its_epoch(second_epoch, token):
    with pytest.raises(NotFound) as caught:
        second_epoch.covering(token)
    assert caught.value.reason is Reason.UNKNOWN_TOKEN


def test_the_topic_of_each_epoch_is_known(second_epoch):
    assert [second_epoch.topic_in(epoch) for epoch in (0, 1, 2)] == ["1", "2", ""]
