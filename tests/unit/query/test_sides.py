import pytest

from k2 import limits
from k2.errors import Data, NotFound, Reason, Unavailable
from k2.market.fold import FoldState
from k2.market.offsets import OffsetVector, ReadToken
from k2.query.request import Consistency, TradesRequest
from k2.query.sides import LakeSide, assert_not_truncated
from tests.fakes.lake import FakeSnapshots, lake_snapshot

STATES = {0: FoldState(accepted=1)}


@pytest.fixture
def snapshots():
    made = FakeSnapshots()
    for number in (1, 2):
        positions = OffsetVector(0, (number * 10, 0))
        made.commit(lake_snapshot(number, positions, number * 100), (), STATES)
    return made


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


def test_a_lake_of_another_topic_is_refused(snapshots):
    with pytest.raises(Data) as caught:
        LakeSide(snapshots, 2, "2").refresh()
    assert caught.value.reason is Reason.TOPIC_RECREATED


@pytest.mark.parametrize(
    ("end", "snapshot_id"), [((0, 0), 1), ((10, 0), 1), ((11, 0), 2), ((20, 0), 2)]
)
def test_the_oldest_snapshot_that_holds_a_tokens_rows_is_chosen(snapshots, end, snapshot_id):
    lake = LakeSide(snapshots, 2, "1")
    assert lake.covering(ReadToken("1", OffsetVector(0, end))).snapshot_id == snapshot_id


def test_no_snapshot_holds_rows_that_were_not_committed(snapshots):
    lake = LakeSide(snapshots, 2, "1")
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
    with pytest.raises(NotFound) as caught:
        LakeSide(snapshots, 2, "1").covering(token)
    assert caught.value.reason is Reason.UNKNOWN_TOKEN


def test_the_tape_may_only_grow():
    read = OffsetVector(0, (3, 7))
    for end in ((3, 7), (4, 9)):
        assert_not_truncated(OffsetVector(0, end), (read,))
    with pytest.raises(Data) as caught:
        assert_not_truncated(OffsetVector(0, (9, 6)), (OffsetVector(0, (0, 0)), read))
    assert caught.value.reason is Reason.TAPE_TRUNCATED
    assert caught.value.metadata["partition"] == "1"
