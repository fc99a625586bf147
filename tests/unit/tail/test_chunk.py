from dataclasses import replace

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from k2.market.events import to_arrow
from k2.market.offsets import TimeRange
from k2.market.schema import TRADE, arrow_schema
from k2.tail.chunk import Chunk, SparseColumn, TailRows
from tests.support.trades import NOW_US, columns, label

ALL = TimeRange()
NAMES = TRADE.columns


def chunk_of(batch, capacity=8, partition=3, chunk_id=1):
    made = Chunk(chunk_id, batch.labels[0], 0, partition, capacity)
    made.append(batch, np.arange(len(batch)), 1.0)
    return made


def vendored(batch, entries):
    return replace(batch, vendor_data=pa.array(entries, pa.map_(pa.string(), pa.string())))


def piece(chunk, low=0, end=10**9):
    return chunk.hold().cut(low, end)


def ids(rows, *, descending=False, limit=None):
    order = rows.canonical(descending=descending, limit=limit)
    return rows.batch(["trade_id"], order).column(0).to_pylist()


def test_rows_come_back_with_every_column_exactly():
    batch = vendored(columns([5, 6, 7], times=[1, 2, 3]), [[("a", "b")], [], [("c", "d")]])
    rows = TailRows([piece(chunk_of(batch))], ALL)
    got = rows.batch(NAMES, rows.canonical(descending=False, limit=None))
    assert got == to_arrow(batch, 0, 3)
    assert got.schema == arrow_schema(TRADE)
    got.validate(full=True)


def test_what_was_held_stays_as_it_was():
    chunk = chunk_of(columns([1, 2], times=[1, 2]))
    held = chunk.hold()
    chunk.append(columns([3], times=[9], first_offset=2), np.arange(1), 2.0)
    assert held.range.rows == 2
    assert ids(TailRows([held.cut(0, 99)], ALL)) == [1, 2]
    assert chunk.hold().range.rows == 3
    assert chunk.hold().range.time_max_us == 9
    assert chunk.arrived_s == 2.0


def test_a_sealed_chunk_takes_no_more():
    chunk = chunk_of(columns([1]))
    assert chunk.free == 7
    chunk.seal()
    assert chunk.free == 0
    assert chunk.hold() is chunk.hold()
    chunk.seal()


def test_a_cut_is_by_offset():
    batch = replace(columns([1, 2, 3, 4]), offset=np.array([10, 12, 15, 20]))
    held = chunk_of(batch).hold()
    assert ids(TailRows([held.cut(11, 20)], ALL)) == [2, 3]
    assert ids(TailRows([held.cut(21, 30)], ALL)) == []
    assert held.below(21) is held
    assert held.below(10) is None
    below = held.below(15)
    assert (below.range.rows, below.range.offset_high) == (2, 12)
    assert ids(TailRows([below.cut(0, 99)], ALL)) == [1, 2]


def test_the_greatest_time_below_an_offset():
    held = chunk_of(columns([1, 2, 3], times=[5, 9, 7])).hold()
    assert held.time_max_below(0) is None
    assert held.time_max_below(1) == 5
    assert held.time_max_below(3) == 9


def test_times_are_half_open():
    held = chunk_of(columns([1, 2, 3], times=[5, 9, 7])).hold()
    assert ids(TailRows([held.cut(0, 9)], TimeRange(5, 9))) == [1, 3]
    assert ids(TailRows([held.cut(0, 9)], TimeRange(6, None))) == [3, 2]
    assert ids(TailRows([held.cut(0, 9)], TimeRange(10, None))) == []
    assert ids(TailRows([held.cut(0, 9)], TimeRange(6, 7))) == []


def test_the_canonical_order_is_time_exchange_symbol_id_also_at_a_limit():
    btc = chunk_of(columns([2, 1, 9], times=[5, 5, 6]), chunk_id=1)
    eth = chunk_of(columns([1], symbols="ETHUSDT", times=[5]), chunk_id=2)
    rows = TailRows([piece(eth), piece(btc)], ALL)
    order = rows.canonical(descending=False, limit=None)
    both = rows.batch(["symbol", "trade_id", "tape_partition"], order).to_pylist()
    assert [tuple(row.values())[:2] for row in both] == [
        ("BTCUSDT", 1), ("BTCUSDT", 2), ("ETHUSDT", 1), ("BTCUSDT", 9),
    ]  # fmt: skip
    assert ids(rows, descending=True) == [9, 1, 2, 1]
    assert ids(rows, descending=True, limit=2) == [9, 1]
    assert ids(rows, limit=1) == [1]
    assert len(rows) == 4


def test_columns_of_several_labels_keep_their_rows():
    one = chunk_of(columns([1, 3], times=[1, 3]), partition=0)
    other = Chunk(2, label(source="backfill"), 0, 1, 4)
    late = vendored(columns([2], times=[2]), [[("late", "yes")]])
    other.append(late, np.arange(1), 0.0)
    rows = TailRows([piece(one), piece(other)], ALL)
    got = rows.batch(NAMES, rows.canonical(descending=False, limit=None))
    assert got.column("source").to_pylist() == ["simulated", "backfill", "simulated"]
    assert got.column("tape_partition").to_pylist() == [0, 1, 0]
    assert got.column("vendor_data").to_pylist() == [[], [("late", "yes")], []]
    got.validate(full=True)


def test_nothing_gives_an_empty_batch_of_the_right_form():
    rows = TailRows([], ALL)
    assert len(rows) == 0
    order = rows.canonical(descending=True, limit=5)
    assert rows.batch(NAMES, order).schema == arrow_schema(TRADE)


def test_vendor_data_of_many_small_batches():
    chunk = Chunk(1, label(), 0, 0, 1024)
    expected = []
    for number in range(300):
        entries = [[("n", str(number))]] if number % 3 == 0 else [[]]
        expected += entries
        batch = vendored(columns([number], first_offset=number), entries)
        chunk.append(batch, np.arange(1), 0.0)
    chunk.append(columns([300], first_offset=300), np.arange(1), 0.0)
    expected.append([])
    rows = TailRows([piece(chunk)], ALL)
    got = rows.batch(["vendor_data"], np.arange(301)).column(0).to_pylist()
    assert got == expected
    assert chunk.vendor_data.between(300, 301) is None
    assert chunk.vendor_data.between(2, 5).to_pylist() == [[], [("n", "3")], []]
    assert chunk.size_bytes > 1024 * 57


def test_newest_receive_time_is_known():
    assert chunk_of(columns([1, 2])).receive_max_us == NOW_US + 1000


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
