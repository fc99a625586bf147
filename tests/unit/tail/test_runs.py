import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from k2.tail.runs import SparseColumn


def nothing(rows):
    return pa.nulls(rows, pa.int64())


def test_what_lies_between_runs_is_nothing():
    runs = SparseColumn(nothing)
    assert runs.between(0, 9) is None
    runs.add(2, pa.array([20, 21]))
    runs.add(6, pa.array([60]))
    assert runs.between(0, 8).to_pylist() == [None, None, 20, 21, None, None, 60, None]
    assert runs.between(3, 4).to_pylist() == [21]
    assert runs.between(4, 6) is None
    assert runs.size_bytes == 24


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=150), st.data())
def test_any_runs_read_back_as_they_were_added(shape, data):
    runs, whole = SparseColumn(nothing), []
    for gap, length in shape:
        whole += [None] * gap
        values = list(range(len(whole), len(whole) + length))
        runs.add(len(whole), pa.array(values))
        whole += values
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole) + 3))
    found = runs.between(start, stop)
    expected = (whole + [None] * 3)[start:stop]
    assert (found.to_pylist() if found is not None else [None] * len(expected)) == expected
