from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2 import limits
from k2.errors import Data, Reason, Unavailable
from k2.lake.commit.committer import TradeStore
from k2.lake.iceberg.catalog import local_path
from k2.lake.iceberg.file_stats import LiveFile
from k2.lake.iceberg.tables import TRADES_LAYOUT
from k2.lake.maintenance.compaction import plan_compaction, rewrite
from k2.market.events import DAY_US
from k2.market.schema import TRADE, arrow_schema
from tests.support.lake_world import piece
from tests.support.trades import NOW_US

DAY = 20_000
NOW = (DAY * 86_400 + 43_200) * 1_000_000
LATER = NOW + 3 * DAY_US
TARGET = limits.COMPACT_TARGET_BYTES


def files(*rows, day=DAY, exchange="BINANCE", size=1000):
    return [
        LiveFile(f"{day}-{exchange}-{number}", "m", day, (exchange,), 0, count, size)
        for number, count in enumerate(rows)
    ]


def chosen(found, now=NOW):
    return [
        [file.rows for file in group]
        for group in plan_compaction(found, now, TARGET, limits.COMPACT_ROWS_MAX)
    ]


def test_eight_of_a_class_become_one():
    assert chosen(files(*[5] * 7)) == []
    assert chosen(files(*[5] * 8)) == [[5] * 8]
    assert chosen(files(*[5] * 7, 8)) == []


def test_partitions_are_not_mixed():
    assert chosen(files(*[5] * 7) + files(*[5] * 7, day=DAY - 1)) == []
    assert chosen(files(*[5] * 7) + files(*[5] * 7, exchange="KRAKEN")) == []


def test_full_files_are_left_alone():
    assert chosen(files(*[limits.COMPACT_ROWS_MAX // 2] * 8)) == []
    assert chosen(files(*[5] * 8, size=TARGET // 2)) == []


def test_a_pass_is_bounded_in_files_and_rows():
    (group,) = chosen(files(*[1] * 200))
    assert len(group) == limits.COMPACT_FILES_MAX
    (group,) = chosen(files(*[400_000] * 8))
    assert sum(group) <= limits.COMPACT_ROWS_MAX
    assert len(group) == 2


def test_the_group_with_the_most_files_comes_first():
    found = files(*[100] * 9) + files(*[1] * 30, day=DAY - 1)
    assert [len(group) for group in chosen(found)] == [30, 9]


@pytest.mark.parametrize(
    ("rows", "merged"),
    [
        ([1, 2, 3], [[1, 2, 3]]),
        ([1, 100], []),  # a late trade does not cause a large file to be rewritten
        ([10, 50, 5000], [[10, 50]]),
        ([60, 400, 3000], [[60, 400, 3000]]),
        ([7], []),
        ([], []),
    ],
)
def test_a_day_that_is_over_is_merged_further(rows, merged):
    assert chosen(files(*rows), LATER) == merged
    assert chosen(files(*rows)) == []


def live(lake):
    return [
        LiveFile(
            task.file.file_path,
            "",
            task.file.partition[0],
            (task.file.partition[1],),
            0,
            task.file.record_count,
            task.file.file_size_in_bytes,
        )
        for task in sorted(lake.table.scan().plan_files(), key=lambda one: one.file.file_path)
    ]


def commit(lake, number, changed=None, **given):
    writer = lake.committer(f"w{number}")
    positions, states, _ = writer.base()
    batch = piece(0, start=positions[0], state=states.get(0), **given)
    accepted = tuple(replace(one, **(changed or {})) for one in batch.accepted)
    writer.commit([replace(batch, accepted=accepted)])


def content(*paths):
    trade = arrow_schema(TRADE)
    tables = [pq.read_table(local_path(path), partitioning=None).cast(trade) for path in paths]
    keys = [(name, "ascending") for name in ("symbol", "event_time", "trade_id")]
    return pa.concat_tables(tables).sort_by(keys)


def test_every_column_of_every_row_is_as_before_and_in_order(lake):
    commit(lake, 1, ids=[5, 1, 3], times=[NOW_US + 2, NOW_US, NOW_US + 1], symbol="ETHUSDT")
    edges = {
        "price": np.array([1, 19 * 10**16], np.int64),
        "quantity": np.array([[1, 0], [-1, 2**60]], np.int64),
        "side": np.array([1, 0], np.uint8),
        "vendor_data": pa.array([[("m", "x"), ("", "")], []], pa.map_(pa.string(), pa.string())),
    }
    commit(lake, 2, edges, ids=[9, 8], symbol="BTCUSDT")
    commit(lake, 3, ids=[7], symbol="ADAUSDT")
    files = live(lake)
    new, count = rewrite(lake.table, files, "merged", TradeStore())
    assert (new.record_count, count) == (6, 3)
    found = pq.read_table(local_path(new.file_path), partitioning=None)
    assert found.cast(arrow_schema(TRADE)).equals(content(*(file.location for file in files)))
    assert found["symbol"].to_pylist() == ["ADAUSDT"] + ["BTCUSDT"] * 2 + ["ETHUSDT"] * 3
    assert found["trade_id"].to_pylist()[3:] == [1, 3, 5]


def test_the_layout_is_that_of_the_writer(lake):
    commit(lake, 1, ids=[1])
    commit(lake, 2, ids=[2])
    files = live(lake)
    new, _ = rewrite(lake.table, files, "merged", TradeStore())
    old, merged = (pq.ParquetFile(local_path(path)) for path in (files[0].location, new.file_path))
    assert merged.schema.equals(old.schema)
    for number in range(old.metadata.num_columns):
        one, two = (each.metadata.row_group(0).column(number) for each in (old, merged))
        assert (one.encodings, one.compression) == (two.encodings, two.compression)
    task = next(iter(lake.table.scan().plan_files())).file
    assert new.partition == task.partition
    assert new.lower_bounds.keys() == task.lower_bounds.keys()
    assert new.sort_order_id == task.sort_order_id


def test_only_what_fits_into_memory_is_merged(lake):
    for number in range(4):
        commit(lake, number, ids=[number])
    files, counts = live(lake), []
    for size in range(0, 2000, 100):
        store = TradeStore(replace(TRADES_LAYOUT, merged_bytes_max=size))
        found = rewrite(lake.table, files, f"merged-{size}", store)
        counts.append(found[1] if found else 0)
        assert found is None or found[0].record_count == found[1]
    assert counts == sorted(counts)
    assert set(counts) == {0, 2, 3, 4}


def test_a_file_that_is_not_one_or_not_there_is_named(lake, tmp_path):
    commit(lake, 1, ids=[1])
    commit(lake, 2, ids=[2])
    files = live(lake)
    with open(local_path(files[1].location), "wb") as stream:
        stream.write(b"garbage")
    with pytest.raises(Data) as caught:
        rewrite(lake.table, files, "merged", TradeStore())
    assert caught.value.reason is Reason.LAKE_CORRUPT
    lake.table.io.delete(files[1].location)
    with pytest.raises(Unavailable):
        rewrite(lake.table, files, "again", TradeStore())
