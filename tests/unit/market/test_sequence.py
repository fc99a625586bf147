"""The check of trade ids: what is next, missing, doubled, late or begun anew."""

import pytest

from k2 import limits
from k2.market.sequence import Counts, Finding, Sequence


def observed(ids, acknowledged=None):
    sequence = Sequence(acknowledged)
    return sequence, [sequence.observe(trade_id).name for trade_id in ids]


def test_consecutive_ids_are_next():
    sequence, findings = observed([7, 8, 9])
    assert findings == ["FIRST", "NEXT", "NEXT"]
    assert (sequence.first, sequence.last, sequence.gaps) == (7, 9, ())
    assert sequence.counts == Counts(seen=3)


def test_a_jump_opens_a_gap_with_its_range():
    sequence, findings = observed([5, 9, 10, 12])
    assert findings == ["FIRST", "GAP", "NEXT", "GAP"]
    assert sequence.gaps == ((6, 8), (11, 11))
    assert sequence.counts == Counts(seen=4, gaps=2, missing=4)


def test_an_id_seen_before_is_a_duplicate():
    sequence, findings = observed([5, 6, 5, 6, 8, 8, 6])
    assert findings == ["FIRST", "NEXT", "DUPLICATE", "DUPLICATE", "GAP", "DUPLICATE", "DUPLICATE"]
    assert sequence.counts == Counts(seen=3, gaps=1, missing=1, duplicates=4)


@pytest.mark.parametrize(
    ("late", "left"),
    [
        ([11], ((12, 14),)),
        ([14], ((11, 13),)),
        ([13], ((11, 12), (14, 14))),
        ([13, 12], ((11, 11), (14, 14))),
        ([13, 12, 11, 14], ()),
    ],
)
def test_a_late_id_is_reordered_once_and_narrows_its_gap(late, left):
    sequence, findings = observed([10, 15, *late, *late])
    assert findings[2:] == ["REORDERED"] * len(late) + ["DUPLICATE"] * len(late)
    assert sequence.gaps == left
    assert sequence.last == 15


def test_an_outage_is_a_gap_after_the_acknowledged_id():
    sequence, findings = observed([105, 106], acknowledged=100)
    assert findings == ["GAP", "NEXT"]
    assert sequence.gaps == ((101, 104),)
    assert (sequence.first, sequence.counts.missing) == (105, 4)


def test_nothing_missed_in_an_outage_is_no_gap():
    sequence, findings = observed([101], acknowledged=100)
    assert findings == ["NEXT"]
    assert sequence.first == 101


def test_what_an_earlier_run_sent_is_never_called_a_duplicate():
    # It may have been one of that run's gaps: only the fold knows.
    sequence, findings = observed([100, 99, 99, 101], acknowledged=100)
    assert findings == ["REORDERED", "REORDERED", "REORDERED", "NEXT"]
    assert sequence.first == 100


def test_ids_before_the_first_are_late_not_doubled():
    _, findings = observed([50, 49, 51])
    assert findings == ["FIRST", "REORDERED", "NEXT"]


def test_far_below_everything_known_the_venue_began_anew():
    far = 50 + limits.SEQUENCE_REORDER_MAX
    sequence, findings = observed([far + 1, far + 3, 50, 51, 1])
    assert findings == ["FIRST", "GAP", "RESET", "NEXT", "REORDERED"]
    assert sequence.leapt is None
    assert (sequence.last, sequence.gaps) == (51, ())
    assert sequence.counts == Counts(seen=5, gaps=1, missing=1, reordered=1, resets=1)


def test_a_wild_jump_is_a_new_beginning_not_a_gap():
    wild = 10 + limits.SEQUENCE_JUMP_MAX + 1
    sequence, findings = observed([9, wild, wild + 1, 10])
    assert findings == ["FIRST", "RESET", "NEXT", "RESET"]
    assert sequence.counts.missing == 0
    assert sequence.leapt is None, "the last one fell"
    assert observed([9, wild])[0].leapt == (10, wild - 1)
    assert observed([wild], acknowledged=9)[0].leapt == (10, wild - 1)
    assert observed([9, wild - 1])[1] == ["FIRST", "GAP"]


def test_open_gaps_are_bounded_and_the_oldest_is_forgotten():
    every_other = range(0, 2 * limits.SEQUENCE_GAPS_MAX + 4, 2)
    sequence, _ = observed(every_other)
    assert len(sequence.gaps) == limits.SEQUENCE_GAPS_MAX
    assert sequence.gaps[0] == (3, 3)
    assert sequence.observe(0) is Finding.REORDERED, "below the floor nothing is certain"
    assert sequence.observe(2) is Finding.DUPLICATE
    assert sequence.counts.missing == limits.SEQUENCE_GAPS_MAX + 1


def test_splitting_gaps_keeps_the_bound_too():
    count = limits.SEQUENCE_GAPS_MAX
    sequence, _ = observed([*range(0, 4 * count + 1, 4)])
    assert sequence.observe(2) is Finding.REORDERED
    assert len(sequence.gaps) == count
    assert sequence.gaps[0] == (3, 3)
