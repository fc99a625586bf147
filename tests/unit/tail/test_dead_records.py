"""What is remembered of dead records says what all of them would, or that it is forgotten."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2 import limits
from k2.tail.dead_records import DeadSeen

START = 10


def and_then(seen, dead, covered=0):
    """`dead`: offset → whether it is undecided."""
    return seen.and_then(np.array([*dead]), np.array([*dead.values()], dtype=bool), covered)


def test_a_partition_without_dead_records_has_what_the_snapshot_said():
    seen = DeadSeen(3, START)
    assert (seen.below(START), seen.below(99)) == (3, 3)
    assert seen.below(START - 1) is None
    assert not seen.any_undecided(0, 99)


@given(st.lists(st.booleans(), max_size=20), st.integers(START, 35), st.integers(START, 35))
def test_it_counts_and_names_like_a_list(marks, start, end):
    dead = {START + 2 * at: mark for at, mark in enumerate(marks)}
    seen = DeadSeen(3, START)
    for offset, mark in dead.items():
        seen = and_then(seen, {offset: mark})
    assert seen.below(end) == 3 + sum(offset < end for offset in dead)
    expected = any(mark for offset, mark in dead.items() if start <= offset < end)
    assert seen.any_undecided(start, end) == expected


def test_what_a_commit_passed_is_forgotten():
    seen = and_then(and_then(DeadSeen(0, START), {11: True, 12: False}), {20: False}, 12)
    assert seen.offsets.tolist() == [12, 20]
    assert [seen.below(at) for at in (11, 12, 13, 21)] == [None, 1, 2, 3]
    assert not seen.any_undecided(12, 30)


def test_too_many_are_forgotten_but_not_that_some_were_undecided(monkeypatch):
    monkeypatch.setattr(limits, "TAIL_DEAD_KEPT", 2)
    seen = and_then(DeadSeen(0, START), {11: False, 12: True, 13: False, 14: False, 15: False})
    assert seen.offsets.tolist() == [14, 15]
    assert [seen.below(at) for at in (13, 14, 15, 16)] == [None, 3, 4, 5]
    assert seen.any_undecided(10, 99)
    assert seen.any_undecided(12, 99)
    assert not seen.any_undecided(13, 99)


@pytest.mark.parametrize("covered", [0, 50])
def test_values_are_not_changed(covered):
    before = and_then(DeadSeen(0, START), {11: True})
    and_then(before, {12: True}, covered)
    assert (before.total, before.offsets.tolist()) == (1, [11])
