import pytest

from k2 import limits
from k2.errors import Data, Overloaded, Reason, Unavailable
from k2.lake.commit.committer import TapeIdentity
from k2.market.fold import FoldState
from k2.market.instrument import Instrument
from tests.support.lake_world import TAPE, Crash, FaultyCatalog, piece

BTC = Instrument("BINANCE", "BTCUSDT")


def test_rows_positions_counters_and_state_land_together(lake):
    outcome = lake.committer().commit([piece(0, [1, 2, 2], dead=1), piece(2, [7], symbol="X")])
    assert outcome.landed == {0, 2}
    assert outcome.fenced == frozenset()
    assert outcome.rows == 3
    snapshot = lake.snapshots.current()
    assert snapshot == outcome.snapshot
    assert snapshot.positions.offsets == (4, 0, 1, 0)
    assert snapshot.counters[0] == (2, 1, 1)
    assert (snapshot.topic, snapshot.topic_id, snapshot.cluster_id) == TAPE_NAMES
    assert (snapshot.writer_id, snapshot.commit_id) == ("w1", "w1-1")
    assert lake.snapshots.states(snapshot)[0].seen[BTC].intervals.tolist() == [[1, 2]]
    assert lake.rows() == [
        (0, 0, "BTCUSDT", 1),
        (0, 1, "BTCUSDT", 2),
        (2, 0, "X", 7),
    ]
    properties = lake.table.properties
    assert properties["k2.positions"] == "0:4,0,1,0"
    assert properties["k2.commit-id"] == "w1-1"


TAPE_NAMES = (TAPE.topic, TAPE.topic_id, TAPE.cluster_id)


def test_positions_move_though_no_row_was_accepted(lake):
    outcome = lake.committer().commit([piece(1, [], dead=3)])
    assert outcome.landed == {1}
    snapshot = lake.snapshots.current()
    assert snapshot.positions.offsets == (0, 3, 0, 0)
    assert (snapshot.rows_total, snapshot.files_total) == (0, 0)
    assert snapshot.counters[1] == (0, 0, 3)


def test_a_new_writer_goes_on_from_the_lake(lake):
    first = lake.committer().commit([piece(0, [1, 2])])
    positions, states, snapshot = lake.committer("w2").base()
    assert positions.offsets == (2, 0, 0, 0)
    assert snapshot == first.snapshot
    assert states == {**{p: FoldState() for p in range(4)}, **first.states}
    outcome = lake.committer("w2").commit([piece(0, [2, 3], start=2, state=states[0])])
    assert outcome.snapshot.counters[0] == (3, 1, 0)
    assert [row[3] for row in lake.rows()] == [1, 2, 3]


def test_what_another_writer_committed_is_dropped(lake):
    zombie, successor = lake.committer("zombie"), lake.committer("next")
    zombie.base()
    successor.commit([piece(0, [1, 2, 3])])
    outcome = zombie.commit([piece(0, [1, 2])])
    assert outcome.fenced == {0}
    assert outcome.snapshot.positions[0] == 3
    assert outcome.states[0].accepted == 3
    assert [row[3] for row in lake.rows()] == [1, 2, 3]
    again = zombie.commit([piece(0, [3, 4], start=3, state=outcome.states[0])])
    assert again.landed == {0}
    assert [row[3] for row in lake.rows()] == [1, 2, 3, 4]


def test_other_partitions_of_a_fenced_batch_land(lake):
    zombie = lake.committer("zombie")
    zombie.base()
    lake.committer("next").commit([piece(0, [1])])
    outcome = zombie.commit([piece(0, [1, 2]), piece(1, [5], symbol="X")])
    assert (outcome.landed, outcome.fenced, outcome.rows) == ({1}, {0}, 1)
    assert outcome.snapshot.positions.offsets == (1, 1, 0, 0)
    assert [row[3] for row in lake.rows()] == [1, 5]


def test_writers_of_different_partitions_do_not_hurt_each_other(lake):
    one, two = lake.committer("one"), lake.committer("two")
    one.base()
    two.base()
    one.commit([piece(0, [1])])
    assert two.commit([piece(1, [1], symbol="X")]).landed == {1}
    outcome = one.commit([piece(0, [2], start=1, state=piece(0, [1]).state)])
    assert outcome.snapshot.positions.offsets == (2, 1, 0, 0)
    assert outcome.snapshot.counters[1] == (1, 0, 0)


@pytest.mark.parametrize("fault", ["reply lost", "landed and refused"])
def test_a_commit_that_landed_though_it_was_answered_otherwise_is_found(lake, fault):
    catalog = FaultyCatalog(lake.catalog, fault)
    writer = lake.committer(catalog=catalog)
    outcome = writer.commit([piece(0, [1, 2])])
    assert (outcome.landed, outcome.rows) == ({0}, 2)
    assert catalog.commits == 1
    assert [row[3] for row in lake.rows()] == [1, 2]  # the head's files are all there
    assert writer.commit([piece(0, [3], start=2, state=outcome.states[0])]).landed == {0}


def test_another_commit_on_top_of_the_one_with_the_lost_reply_is_respected(lake):
    first = piece(0, [1])
    writer = lake.committer(catalog=(catalog := FaultyCatalog(lake.catalog, "reply lost")))
    load = catalog.load_table

    def load_after_another(identifier):
        catalog.load_table = load
        lake.committer("other").commit([piece(1, [5], symbol="X")])
        return load(identifier)

    writer.base()
    catalog.load_table = load_after_another
    assert writer.commit([first]).landed == {0}
    outcome = writer.commit([piece(0, [2], start=1, state=first.state)])
    assert outcome.snapshot.positions.offsets == (2, 1, 0, 0)
    assert outcome.states[1].accepted == 1


def test_a_refused_commit_is_made_again_on_the_new_head(lake):
    other = piece(1, [9], symbol="X")
    catalog = FaultyCatalog(lake.catalog, before=lambda: lake.committer("o").commit([other]))
    outcome = lake.committer(catalog=catalog).commit([piece(0, [1])])
    assert catalog.commits == 2
    assert outcome.landed == {0}
    assert outcome.snapshot.positions.offsets == (1, 1, 0, 0)
    assert len(lake.rows()) == 2


def test_losing_a_race_for_the_same_records_drops_them(lake):
    mine, theirs = piece(0, [1, 2]), piece(0, [1, 2, 3])
    catalog = FaultyCatalog(lake.catalog, before=lambda: lake.committer("o").commit([theirs]))
    outcome = lake.committer(catalog=catalog).commit([mine])
    assert (outcome.landed, outcome.fenced, outcome.rows) == (frozenset(), {0}, 0)
    assert [row[3] for row in lake.rows()] == [1, 2, 3]


def test_a_commit_that_is_always_overtaken_is_unavailable(lake):
    catalog = FaultyCatalog(lake.catalog, *["refused"] * limits.COMMIT_ATTEMPTS_MAX)
    writer = lake.committer(catalog=catalog)
    with pytest.raises(Unavailable) as caught:
        writer.commit([piece(0, [1])])
    assert caught.value.retry_after_s
    assert writer.commit([piece(0, [1])]).landed == {0}


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        ("busy", Unavailable, Reason.LAKE_UNAVAILABLE),
        ("disk full", Overloaded, Reason.DISK_FULL),
    ],
)
def test_a_commit_that_did_not_reach_the_lake_can_be_made_again(lake, fault, kind, reason):
    writer = lake.committer(catalog=FaultyCatalog(lake.catalog, fault))
    with pytest.raises(kind) as caught:
        writer.commit([piece(0, [1])])
    assert caught.value.reason is reason
    assert writer.commit([piece(0, [1, 2])]).landed == {0}
    assert [row[3] for row in lake.rows()] == [1, 2]


def test_a_commit_in_doubt_is_not_repeated_when_the_catalog_is_back(lake):
    catalog = FaultyCatalog(lake.catalog, "away after")
    writer = lake.committer(catalog=catalog)
    batch = piece(0, [1, 2])
    with pytest.raises(Unavailable):
        writer.commit([batch])
    catalog.away = False
    assert writer.commit([batch]).landed == {0}  # the lake holds exactly this
    assert [row[3] for row in lake.rows()] == [1, 2]
    assert catalog.commits == 1


def test_a_batch_that_grew_while_in_doubt_is_read_again_from_where_the_lake_is(lake):
    catalog = FaultyCatalog(lake.catalog, "away after")
    writer = lake.committer(catalog=catalog)
    with pytest.raises(Unavailable):
        writer.commit([piece(0, [1, 2])])
    catalog.away = False
    outcome = writer.commit([piece(0, [1, 2, 3])])
    assert outcome.fenced == {0}
    assert outcome.snapshot.positions[0] == 2
    assert len(lake.rows()) == 2


@pytest.mark.parametrize(("fault", "held"), [("crash before", []), ("crash after", [1, 2])])
def test_a_writer_that_dies_around_the_swing_leaves_all_or_nothing(lake, fault, held):
    with pytest.raises(Crash):
        lake.committer(catalog=FaultyCatalog(lake.catalog, fault)).commit([piece(0, [1, 2])])
    assert [row[3] for row in lake.rows()] == held
    positions, states, _ = lake.committer("w2").base()
    assert positions[0] == len(held)
    assert states.get(0, FoldState()).accepted == len(held)


def test_the_clock_may_go_back_an_hour(lake):
    writer = lake.committer()
    first = writer.commit([piece(0, [1])])
    lake.clock.advance(-3600)
    second = writer.commit([piece(0, [2], start=1, state=first.states[0])])
    assert second.snapshot.committed_at_us == first.snapshot.committed_at_us + 1000
    assert lake.snapshots.as_of(first.snapshot.committed_at_us) == first.snapshot
    lake.clock.advance(7200)
    third = writer.commit([piece(0, [3], start=2, state=second.states[0])])
    assert third.snapshot.committed_at_us == lake.clock.now_us()


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (TapeIdentity("trades", "topic-1", "cluster-2", 0, 4), Reason.CLUSTER_CHANGED),
        (TapeIdentity("trades", "topic-2", "cluster-1", 0, 4), Reason.TOPIC_RECREATED),
        (TapeIdentity("others", "topic-1", "cluster-1", 0, 4), Reason.TOPIC_RECREATED),
        (TapeIdentity("trades", "topic-1", "cluster-1", 1, 4), Reason.EPOCH_ENDED),
        (TapeIdentity("trades", "topic-1", "cluster-1", 0, 8), Reason.PARTITIONS_CHANGED),
    ],
)
def test_a_lake_of_another_tape_is_refused_by_name(lake, other, reason):
    lake.committer().commit([piece(0, [1])])
    with pytest.raises(Data) as caught:
        lake.committer("w2", tape=other).base()
    assert caught.value.reason is reason
