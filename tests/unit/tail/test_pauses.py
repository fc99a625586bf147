"""Why partitions are not read, and how fast they catch up."""

import pytest

from k2 import limits
from k2.market.offsets import OffsetVector
from k2.tail.pauses import Deferral, Pauses, Why


class Reader:
    def __init__(self):
        self.paused, self.calls = set(), 0

    def pause(self, partitions):
        self.paused.update(partitions)
        self.calls += 1

    def resume(self, partitions):
        self.paused.difference_update(partitions)
        self.calls += 1


@pytest.fixture
def reader():
    return Reader()


@pytest.mark.parametrize("first", Why)
@pytest.mark.parametrize("second", Why)
def test_only_the_last_reason_to_go_resumes(reader, first, second):
    pauses = Pauses()
    pauses.add(reader, 1, first)
    pauses.add(reader, 1, second)
    assert reader.paused == {1}
    pauses.remove(reader, 1, first)
    assert reader.paused == ({1} if first is not second else set())
    assert pauses.has(1, second) == (first is not second)
    pauses.remove(reader, 1, second)
    pauses.remove(reader, 1, second)
    assert (reader.paused, reader.calls) == (set(), 2)


def ends(*offsets):
    return OffsetVector(0, offsets)


def test_what_was_paused_catches_up_until_the_lake_covers_an_end_that_it_reached(reader):
    deferral, pauses = Deferral(), Pauses()
    deferral.obey({1, 2}, pauses, reader, 0.0)
    assert (deferral.all, reader.paused) == ({1, 2}, {1, 2})
    deferral.obey({2}, pauses, reader, 0.0)
    assert (deferral.paused, deferral.catching_up, reader.paused) == ({2}, {1}, {2})
    ahead = ends(0, 99, 99)
    assert deferral.note_end(ends(0, 9, 9), ends(0, 9, 0), ahead) == set(), "none was noted before"
    assert deferral.note_end(ends(0, 20, 9), ends(0, 8, 0), ahead) == set()
    assert deferral.note_end(ends(0, 30, 9), ends(0, 21, 0), ends(0, 20, 0)) == set()
    assert deferral.note_end(ends(0, 40, 9), ends(0, 29, 0), ends(0, 20, 0)) == set()
    assert deferral.all == {1, 2}
    assert deferral.note_end(ends(0, 40, 9), ends(0, 39, 0), ends(0, 21, 0)) == {1}
    assert deferral.all == {2}


def test_what_is_resumed_again_has_to_reach_the_tape_again(reader):
    deferral, pauses = Deferral(), Pauses()
    for wanted in ({1}, ()):
        deferral.obey(wanted, pauses, reader, 0.0)
    for _ in range(2):
        deferral.note_end(ends(0, 9), ends(0, 9), ends(0, 0))
    for wanted in ({1}, ()):
        deferral.obey(wanted, pauses, reader, 0.0)
    for _ in range(2):
        assert deferral.note_end(ends(0, 30), ends(0, 9), ends(0, 9)) == set()


def test_what_is_paused_again_catches_up_no_more(reader):
    deferral, pauses = Deferral(), Pauses()
    for wanted in ({1}, (), {1}):
        deferral.obey(wanted, pauses, reader, 0.0)
    assert (deferral.paused, deferral.catching_up, reader.paused) == ({1}, set(), {1})


def test_catching_up_has_a_pace_and_other_partitions_do_not_count(reader):
    deferral, pauses = Deferral(), Pauses()
    deferral.count([(1, 10**9)], 0.0)
    deferral.obey({1}, pauses, reader, 0.0)
    deferral.obey((), pauses, reader, 0.0)
    at, covered = ends(0, 0), ends(0, 0)
    deferral.count([(0, 10**9), (1, limits.CONSUME_BATCH_RECORDS - 1)], 0.0)
    deferral.pace(at, covered, pauses, reader)
    assert reader.paused == set()
    deferral.count([(1, limits.TAIL_CATCH_UP_RECORDS_PER_S + 1)], 0.0)
    deferral.pace(at, covered, pauses, reader)
    assert reader.paused == {1}
    deferral.count([], 0.9)
    deferral.pace(at, covered, pauses, reader)
    assert reader.paused == {1}
    deferral.count([], 1.1)
    deferral.pace(at, covered, pauses, reader)
    assert reader.paused == set()


@pytest.mark.parametrize("most", [limits.TAIL_CATCH_UP_AHEAD, 10])
def test_catching_up_does_not_run_far_ahead_of_the_lake(reader, most):
    deferral, pauses = Deferral(most), Pauses()
    deferral.obey({1}, pauses, reader, 0.0)
    deferral.obey((), pauses, reader, 0.0)
    far = most + 1
    deferral.pace(ends(0, far), ends(10**9, 0), pauses, reader)
    assert reader.paused == {1}
    deferral.pace(ends(0, far), ends(0, 1), pauses, reader)
    assert reader.paused == set()
