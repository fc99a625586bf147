"""Rows of any files, in any order, are put in canonical order as a sort by all keys would."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.query.batches import canonical_order

TIMES = st.one_of(st.integers(0, 3), st.integers(0, 10**6))
ROWS = st.tuples(TIMES, st.sampled_from("XYZ"), st.sampled_from(["A", "B", "é", ""]), TIMES)
FILES = st.lists(st.tuples(st.booleans(), st.lists(ROWS, max_size=40)), max_size=4)


def batch(rows):
    times, exchanges, symbols, ids = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.RecordBatch.from_pydict(
        {
            "trade_id": pa.array(ids, pa.int64()),
            "symbol": pa.array(symbols, pa.string()),
            "exchange": pa.array(exchanges, pa.string()),
            "event_time": pa.array(times, pa.timestamp("us", "UTC")),
        }
    )


def as_written(rows):
    """Rows of a file of each exchange: by symbol, time and id."""
    return sorted(rows, key=lambda row: (row[1], row[2], row[0], row[3]))


@settings(max_examples=300, deadline=None)
@given(FILES)
def test_the_order_is_that_of_a_sort_by_all_keys(files):
    rows = [row for sound, some in files for row in (as_written(some) if sound else some)]
    expected = sorted(range(len(rows)), key=lambda at: rows[at])
    assert canonical_order(batch(rows)).tolist() == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_the_order_of_many_rows_is_that_of_a_sort_by_all_keys(moments, symbols, seed):
    noise = np.random.default_rng(seed)
    times, ids = noise.integers(0, moments, 500), noise.integers(0, 50, 500)
    names = noise.integers(0, symbols, 500)
    rows = [
        (t, "X", f"S{n}", i)
        for t, n, i in zip(*map(np.ndarray.tolist, (times, names, ids)), strict=True)
    ]
    made = batch(as_written(rows))
    expected = np.lexsort(
        (
            made["trade_id"].to_numpy(),
            made["symbol"].to_numpy(zero_copy_only=False).astype(str),
            made["event_time"].cast("int64").to_numpy(),
        )
    )
    assert canonical_order(made).tolist() == expected.tolist()
