import pytest

from k2.lake.iceberg.epochs import EpochHistory, epochs_of
from k2.market.offsets import OffsetVector

SECOND = EpochHistory(
    past=(OffsetVector(0, (5, 7)), OffsetVector(1, (3,))),
    past_topics=("id-a", "id-b"),
    start=OffsetVector(2, (0, 9)),
    start_state="file:///state",
    ended="TOPIC_RECREATED",
    marks=("", "00ff"),
)


@pytest.mark.parametrize("epochs", [EpochHistory(), SECOND])
def test_what_a_snapshot_carries_reads_back_equal(epochs):
    assert epochs_of(epochs.properties()) == epochs


def test_every_commit_says_all_of_it_so_that_nothing_old_stays_in_the_table():
    assert EpochHistory().properties().keys() == SECOND.properties().keys()


def test_commits_from_before_there_were_epochs_are_of_the_first():
    assert epochs_of({"k2.positions": "0:1"}) == EpochHistory()


def test_what_is_no_vector_is_refused():
    with pytest.raises(ValueError, match="not an offset vector"):
        epochs_of({"k2.past-epochs": "garbage"})


def test_a_mark_belongs_to_one_partition():
    marked = EpochHistory().marked(1, "00ff", 3)
    assert marked.marks == ("", "00ff", "")
    assert marked.marked(0, "a", 3).marks == ("a", "00ff", "")
