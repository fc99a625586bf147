import pytest

from k2.errors import Data, NotFound, Reason, Unavailable
from k2.lake.iceberg.catalog import local_path, write_file
from k2.lake.iceberg.epochs import EpochHistory
from k2.lake.iceberg.snapshot import CommitSummary, SnapshotReader, ancestors_of, summary_of
from k2.lake.iceberg.tables import TRADES
from k2.market.offsets import OffsetVector
from tests.support.lake_world import TAPE, piece
from tests.support.trades import NOW_US

CARRIED = CommitSummary(
    OffsetVector(0, (5, 0)),
    {0: (3, 1, 1), 1: (0, 0, 0)},
    "s",
    EpochHistory(),
    "t",
    "i",
    "c",
    "w",
    "w-1",
)


def test_what_a_commit_carries_reads_back_equal():
    assert summary_of(CARRIED.properties()) == CARRIED
    assert summary_of({"operation": "append"}) is None


@pytest.mark.parametrize("name", ["k2.counters", "k2.state", "k2.commit-id"])
def test_a_summary_that_lost_a_part_is_corrupt(name):
    properties = CARRIED.properties()
    del properties[name]
    with pytest.raises(Data) as caught:
        summary_of(properties)
    assert caught.value.reason is Reason.LAKE_CORRUPT


def test_an_empty_lake_has_no_snapshot(lake):
    assert lake.snapshots.current() is None
    assert lake.snapshots.list() == ()
    for ask in (lambda: lake.snapshots.get(1), lambda: lake.snapshots.as_of(NOW_US)):
        with pytest.raises(NotFound) as caught:
            ask()
        assert caught.value.reason is Reason.UNKNOWN_SNAPSHOT


def test_a_lake_without_a_table_is_empty(tmp_path, lake):
    lake.catalog.drop_table(TRADES)
    assert SnapshotReader(lake.catalog).current() is None
    with pytest.raises(NotFound):
        SnapshotReader(lake.catalog).files(1)


def three(lake):
    """Three commits, ten seconds apart."""
    writer, state, found = lake.committer(), None, []
    for number in range(3):
        lake.clock.advance(10)
        outcome = writer.commit(
            [piece(0, [number], start=number, state=state, times=[NOW_US + number])]
        )
        state = outcome.states[0]
        found.append(outcome.snapshot)
    return found


def test_snapshots_are_listed_newest_first_and_found(lake):
    found = three(lake)
    assert list(lake.snapshots.list()) == found[::-1]
    assert lake.snapshots.get(found[0].snapshot_id) == found[0]
    assert found[2].parent_id == found[1].snapshot_id
    assert found[0].parent_id is None
    assert found[0].operation == "append"


def test_as_of_is_the_newest_at_or_before(lake):
    first, second, _ = three(lake)
    at = lake.snapshots.as_of
    assert at(second.committed_at_us) == second
    assert at(second.committed_at_us - 1) == first
    with pytest.raises(NotFound):
        at(first.committed_at_us - 1)


def test_the_oldest_that_covers_positions_is_found(lake):
    first, second, third = three(lake)
    covering = lake.snapshots.covering
    assert covering(first.positions) == first
    assert covering(OffsetVector.zero(0, TAPE.partitions)) == first
    assert covering(second.positions) == second
    beyond = third.positions.advanced(0, third.positions[0] + 1)
    assert covering(beyond) is None
    assert covering(third.positions.advanced(1, 1)) is None


def test_files_have_their_bounds_and_only_new_manifests_are_read(lake):
    first, second, third = three(lake)
    reader = SnapshotReader(lake.catalog)
    old = reader.files(second.snapshot_id)
    files = reader.files(third.snapshot_id)
    assert len(files) == 3
    assert set(old) <= set(files)
    assert {id(file) for file in old} <= {id(file) for file in files}  # kept, not read again
    newest = max(files, key=lambda file: file.time_max_us)
    assert (newest.time_min_us, newest.time_max_us) == (NOW_US + 2, NOW_US + 2)
    assert (newest.symbol_min, newest.symbol_max, newest.exchange) == (
        "BTCUSDT",
        "BTCUSDT",
        "BINANCE",
    )
    assert newest.path.startswith("/")
    assert reader.files(first.snapshot_id)[0].rows == 1


def test_an_unknown_snapshot_has_no_files(lake):
    three(lake)
    with pytest.raises(NotFound):
        lake.snapshots.files(12345)


def test_nothing_is_read_while_the_catalog_names_the_same_metadata(lake):
    three(lake)
    reader = SnapshotReader(lake.catalog)
    snapshot = reader.current()
    assert reader.current() is snapshot
    assert reader.list() is reader.list()


def test_states_of_an_old_snapshot_are_as_they_were(lake):
    first, _, third = three(lake)
    assert lake.snapshots.states(first)[0].accepted == 1
    assert lake.snapshots.states(third)[0].accepted == 3


def test_a_snapshot_of_another_engine_says_what_its_ancestor_says(lake):
    *_, third = three(lake)
    with lake.table.transaction() as transaction:
        transaction.update_snapshot().fast_append().commit()
    current = lake.snapshots.current()
    assert current.snapshot_id != third.snapshot_id
    assert current.positions == third.positions
    assert current.state_path == third.state_path
    outcome = lake.committer("w2").commit(
        [piece(0, [9], start=3, state=lake.snapshots.states(current)[0])]
    )
    assert outcome.landed == {0}


def test_when_that_ancestor_is_gone_the_properties_speak(lake):
    found = three(lake)
    with lake.table.transaction() as transaction:
        transaction.update_snapshot().fast_append().commit()
    lake.table.maintenance.expire_snapshots().by_ids([one.snapshot_id for one in found]).commit()
    assert len(lake.snapshots.list()) == 1
    assert lake.snapshots.current().positions == found[2].positions


def test_a_table_that_k2_never_wrote_is_refused(lake):
    with lake.table.transaction() as transaction:
        transaction.update_snapshot().fast_append().commit()
    with pytest.raises(Data) as caught:
        lake.snapshots.current()
    assert caught.value.reason is Reason.LAKE_CORRUPT


def test_a_state_file_that_is_not_one_is_corrupt(lake):
    *_, third = three(lake)
    output = lake.table.io.new_output(third.state_path)
    lake.table.io.delete(third.state_path)
    write_file(output, b"garbage")
    with pytest.raises(Data) as caught:
        lake.snapshots.states(third)
    assert caught.value.reason is Reason.LAKE_CORRUPT
    lake.table.io.delete(third.state_path)
    with pytest.raises(Unavailable):
        lake.snapshots.states(third)


def test_metadata_that_is_missing_makes_the_lake_unavailable(lake, tmp_path):
    three(lake)
    location = local_path(lake.table.metadata_location)
    lake.table.io.delete(location)
    with pytest.raises(Unavailable) as caught:
        SnapshotReader(lake.catalog).current()
    assert caught.value.reason is Reason.LAKE_UNAVAILABLE


@pytest.fixture
def five(lake):
    """Five commits; their ids."""
    writer, state, made = lake.committer(), None, []
    for number in range(5):
        outcome = writer.commit([piece(0, [number], start=number, state=state)])
        state = outcome.states[0]
        made.append(outcome.snapshot.snapshot_id)
    return made


def lineage(lake):
    metadata = lake.table.metadata
    return [one.snapshot_id for one in ancestors_of(metadata, metadata.current_snapshot())]


def test_it_is_the_chain_of_parents(lake, five):
    assert lineage(lake) == five[::-1]


def test_an_empty_table_has_none(lake):
    assert lineage(lake) == []


@pytest.mark.parametrize("dropped", [[0], [1], [1, 2], [0, 2], [1, 3], [0, 1, 2, 3]])
def test_it_goes_on_where_snapshots_were_dropped(lake, five, dropped):
    gone = [five[number] for number in dropped]
    lake.table.maintenance.expire_snapshots().by_ids(gone).commit()
    assert lineage(lake) == [one for one in five[::-1] if one not in gone]


def test_ancestors_start_at_the_given_snapshot(lake, five):
    lake.table.maintenance.expire_snapshots().by_ids([five[2]]).commit()
    metadata = lake.table.metadata
    start = metadata.snapshot_by_id(five[3])
    assert [one.snapshot_id for one in ancestors_of(metadata, start)] == [five[3], *five[1::-1]]


def test_what_was_committed_to_another_branch_is_no_part_of_it(lake, five):
    with lake.table.manage_snapshots() as manage:
        manage.create_branch(five[2], "side")
    rows = lake.table.scan().to_arrow().slice(0, 1)
    lake.table.append(rows, branch="side")
    writer = lake.committer("w2")
    positions, states, _ = writer.base()
    last = writer.commit([piece(0, [9], start=positions[0], state=states[0])])
    lake.table.maintenance.expire_snapshots().by_ids([five[4]]).commit()
    assert lineage(lake) == [last.snapshot.snapshot_id, *five[3::-1]]
