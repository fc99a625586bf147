"""What a feed's document promises, also one of an earlier feed, or a spoilt one."""

import pytest

from k2.market.coverage import Coverage, carried, coverage_of, hull


def test_a_promise_is_read_as_it_was_written():
    promise = Coverage(-1, 7)
    assert coverage_of(promise.values() | {"resumed_after": 3, "first_id": 5}) == promise


@pytest.mark.parametrize(
    ("document", "began_after"),
    [
        ({"resumed_after": 90, "first_id": 100}, 90),
        ({"resumed_after": None, "first_id": 100}, 99),
        ({"first_id": 0}, -1),
        ({"began_after": "early", "first_id": 100}, 99),
        ({"began_after": 900, "first_id": 100}, 101),  # above what it promises
        ({"first_id": None}, 101),
        ({}, 101),
    ],
)
def test_a_document_that_does_not_say_where_it_began_says_it_by_the_rest(document, began_after):
    assert coverage_of({"trade_id": 101, **document}) == Coverage(began_after, 101)


@pytest.mark.parametrize("document", [{}, {"trade_id": "many"}, {"trade_id": -4, "first_id": 1}])
def test_an_unreadable_document_promises_nothing(document):
    assert coverage_of(document) is None


@pytest.mark.parametrize(
    ("own", "others", "whole"),
    [
        ((99, 120), [], (99, 120)),
        ((99, 120), [(110, 150)], (99, 150)),
        ((99, 120), [(120, 150), (150, 160)], (99, 160)),
        ((99, 120), [(121, 150)], (99, 120)),  # nobody promised 121
        ((99, 120), [(10, 20), (50, 99)], (50, 120)),
        (None, [(99, 120), (30, 40)], (30, 40)),
        (None, [(99, 120), (30, 99)], (30, 120)),
    ],
)
def test_a_promise_is_carried_by_those_that_begin_inside_it(own, others, whole):
    mine = [Coverage(*own)] if own else []
    all_of = [*(Coverage(*one) for one in others), *mine]
    assert carried(mine[0] if mine else None, all_of) == Coverage(*whole)


def test_the_hull_holds_every_promise():
    assert hull([Coverage(30, 40), Coverage(9, 12), Coverage(35, 36)]) == Coverage(9, 40)
