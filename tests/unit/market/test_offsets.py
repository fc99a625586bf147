import pytest

from k2.market.offsets import OffsetVector, TimeRange


def test_a_vector_covers_what_is_below_it():
    assert OffsetVector(0, (5, 3)).covers(OffsetVector(0, (5, 2)))
    assert not OffsetVector(0, (5, 3)).covers(OffsetVector(0, (4, 4)))


def test_a_vector_covers_all_of_older_epochs_and_nothing_of_newer_ones():
    assert OffsetVector(1, (0, 0, 0)).covers(OffsetVector(0, (5, 3)))
    assert not OffsetVector(0, (5, 3)).covers(OffsetVector(1, (0, 0, 0)))


def test_of_two_epochs_the_newer_covers_both():
    older, newer = OffsetVector(0, (5,)), OffsetVector(1, (4, 0))
    assert newer.covers(older)
    assert not older.covers(newer)


def test_advanced_and_zero_and_index():
    vector = OffsetVector.zero(2, 3).advanced(1, 9)
    assert vector == OffsetVector(2, (0, 9, 0))
    assert vector[1] == 9


@pytest.mark.parametrize("vector", [OffsetVector(0, (1, 2, 3)), OffsetVector(7, ())])
def test_the_text_form_reads_back(vector):
    assert OffsetVector.decode(vector.encode()) == vector


@pytest.mark.parametrize("text", ["", "1,2", "0:a", "x:1"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=r"offset vector|invalid literal"):
        OffsetVector.decode(text)


@pytest.mark.parametrize(
    ("start", "end", "low", "high", "overlaps"),
    [
        (None, None, 0, 1, True),
        (10, None, 0, 9, False),
        (10, None, 0, 10, True),
        (None, 10, 10, 20, False),
        (None, 10, 9, 20, True),
    ],
)
def test_ranges_are_half_open(start, end, low, high, overlaps):
    assert TimeRange(start, end).overlaps(low, high) is overlaps
