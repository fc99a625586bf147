import pytest

from k2.lake.iceberg.lineage import ancestors_of
from tests.support.lake_world import piece


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


def test_it_starts_where_it_is_told_to(lake, five):
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
