"""A letter is accepted once, whatever is remembered of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2 import limits
from k2.lake.ingest.letter_identity import Origin, accept_letters, bounded
from k2.market.fold import FoldState, from_table, to_table

A, B = Origin("trades", 0, 1), Origin("feed:x", 0, 0)


def no_table(origin, offsets):
    raise AssertionError("memory says it")


def accepted(state, *letters, stored=no_table):
    return accept_letters(state, letters, 5, stored)


def test_a_letter_is_new_once():
    state, new = accepted(FoldState(), (A, 5), (A, 5), (B, 5), (A, 6))
    assert new == [True, False, True, True]
    assert (state.accepted, state.duplicate) == (3, 1)
    _, new = accepted(state, (A, 6), (A, 4))
    assert new == [False, True]


def test_partitions_and_epochs_are_origins_of_their_own():
    _, new = accepted(FoldState(), (A, 5), (A._replace(partition=2), 5), (A._replace(epoch=1), 5))
    assert new == [True, True, True]


def test_the_state_is_a_value():
    before, _ = accepted(FoldState(), (A, 5))
    accepted(before, (A, 7))
    assert before.seen[A.key].intervals.tolist() == [[5, 5]]


def test_within_the_bounds_nothing_is_asked():
    state, _ = accepted(FoldState(), *((A, each) for each in range(0, 100, 2)))
    assert bounded(state) == state


def test_only_what_may_have_been_forgotten_is_asked(monkeypatch):
    monkeypatch.setattr(limits, "LETTER_INTERVALS_MAX", 4)
    state, _ = accepted(FoldState(), *((A, each) for each in range(0, 20, 2)))
    state = bounded(state)
    assert len(state.seen[A.key].intervals) <= 4
    asked = []

    def stored(origin, offsets):
        asked.extend(offsets)
        return [each for each in offsets if each % 2 == 0]

    _, new = accepted(state, (A, 2), (A, 3), (A, 18), (A, 21), stored=stored)
    assert new == [False, True, False, True]
    assert asked == [2, 3]


def test_it_survives_being_published(monkeypatch):
    monkeypatch.setattr(limits, "LETTER_INTERVALS_MAX", 4)
    monkeypatch.setattr(limits, "LETTER_ORIGINS_MAX", 2)
    state = FoldState()
    for run in range(4):
        state, _ = accepted(state, *((Origin(f"feed:{run}", 0, 0), n) for n in range(0, 20, 2)))
    state = bounded(state)
    counts = {0: (state.accepted, state.duplicate, state.dead)}
    assert from_table(to_table({0: state}), counts)[0] == state


@pytest.mark.parametrize("bounds", [(2, 1), (4, 2), (1000, 1000)])
@given(
    batches=st.lists(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), max_size=12), max_size=8
    )
)
def test_whatever_comes_each_is_new_exactly_once(bounds, batches):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "LETTER_INTERVALS_MAX", bounds[0])
        patch.setattr(limits, "LETTER_ORIGINS_MAX", bounds[1])
        state, table = FoldState(), set()
        for batch in batches:
            letters = [(Origin(name, 0, 0), offset) for name, offset in batch]

            def stored(origin, offsets, table=frozenset(table)):
                return [each for each in offsets if (origin, each) in table]

            state, new = accept_letters(bounded(state), letters, len(table), stored)
            for letter, is_new in zip(letters, new, strict=True):
                assert is_new == (letter not in table)
                table.add(letter)
        assert state.accepted == len(table)
