"""What the drivers judge by sees what is wrong."""

import pytest

from tests.chaos.account import doubled, holes_of, wrong_ids


@pytest.mark.parametrize(
    ("ids", "acknowledged", "holes"),
    [([3, 1, 2], 3, ()), ([1, 2, 5], 2, [(3, 4)]), ([], -1, ()), ([4], 3, ())],
)
def test_an_account_that_balances(ids, acknowledged, holes):
    assert wrong_ids("S", ids, acknowledged, holes) == []


@pytest.mark.parametrize(
    ("ids", "acknowledged", "holes", "fault"),
    [
        ([], 4, (), "no rows, 4 was acknowledged"),
        ([1, 2, 2, 3], 3, (), "1 ids are doubled: [2]"),
        ([2, 3], 5, (), "2 of the ids acknowledged are lost: [4, 5]"),
        ([1, 3], 3, [(2, 2)], "1 of the ids acknowledged are lost: [2]"),
        ([1, 3], 1, (), "1 ids are neither held nor in a hole: [2]"),
        ([1, 2, 3], 3, [(3, 4)], "1 ids are held and in a hole: [3]"),
        ([1, 4], 1, [(2, 3), (3, 3)], "1 ids are in two holes: [3]"),
    ],
)
def test_what_is_wrong_is_named(ids, acknowledged, holes, fault):
    assert wrong_ids("S", ids, acknowledged, holes) == [f"S: {fault}"]


def test_ids_may_be_told_to_be_doubled_alone():
    assert doubled("S", [1, 9]) == []
    assert doubled("S", [1, 9, 9]) == ["S: 1 ids are doubled: [9]"]


def test_the_holes_of_a_symbol_are_spans():
    holes = [{"symbol": one, "first_id": "3", "last_id": "4"} for one in ("S", "T")]
    assert holes_of({"holes": holes}, "S") == [(3, 4)]
    assert holes_of({}, "S") == []
