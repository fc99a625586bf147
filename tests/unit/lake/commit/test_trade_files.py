from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2.lake.commit.trade_files import Part, rows_within_days, write_files
from k2.lake.iceberg.catalog import local_path
from k2.market.events import DAY_US, Label, to_arrow
from k2.market.schema import TRADE, arrow_schema
from tests.support.trades import NOW_US, columns, label

WORD = 2**64


def words(*mantissas):
    """Decimal mantissas as (low, high) words."""
    low = [m % WORD - WORD if m % WORD >= WORD // 2 else m % WORD for m in mantissas]
    return np.array(list(zip(low, [m // WORD for m in mantissas], strict=True)), dtype=np.int64)


def read(file):
    return pq.ParquetFile(local_path(file.file_path)).read()


def write(lake, *parts):
    return write_files([Part(p, c) for p, c in parts], 0, lake.table, "x-1")


def test_the_extremes_a_venue_can_print_are_exact(lake):
    batch = columns([1, 2, 3, 2**63 - 1])
    least, most = 1, 1_900_000_000 * 10**8
    batch.price[:] = [least, most, 10**18 - 1, 5]
    quantities = [1, 92_000_000_000_000 * 10**8, 10**38 - 1, 2**63]
    batch = replace(batch, quantity=words(*quantities))
    table = read(write(lake, (0, batch))[0])
    by_id = {row["trade_id"]: row for row in table.to_pylist()}
    got = [by_id[one] for one in (1, 2, 3, 2**63 - 1)]
    assert [int(row["price"].scaleb(8)) for row in got] == [least, most, 10**18 - 1, 5]
    assert [int(row["quantity"] * 10**8) for row in got[:2]] == quantities[:2]
    assert [str(row["quantity"]) for row in got[2:]] == [
        "9" * 30 + "." + "9" * 8,
        "92233720368.54775808",
    ]


def test_what_is_written_is_what_the_tail_answers(lake):
    batch = columns([3, 1, 2], symbols=["B", "A", "B"], times=[NOW_US, NOW_US + 5, NOW_US - 5])
    batch.side[:] = [0, 1, 1]
    vendor = pa.array(
        [[("M", "true")], [], [("a", "é"), ("b", "")]], pa.map_(pa.string(), pa.string())
    )
    batch = replace(batch, vendor_data=vendor)
    want = pa.Table.from_batches([to_arrow(batch, 0, 2)]).take([1, 2, 0])
    got = read(write(lake, (2, batch))[0])
    assert got.cast(arrow_schema(TRADE)).equals(want.cast(arrow_schema(TRADE)))


def test_rows_are_sorted_by_symbol_time_and_id_over_all_partitions(lake):
    first = columns([7, 5], symbols="BTCUSDT", times=[NOW_US, NOW_US])
    second = columns([9, 8, 1], symbols="AAA", times=[NOW_US, NOW_US - 1, NOW_US])
    file = write(lake, (0, first), (1, second), (0, columns([6], first_offset=2)))[0]
    rows = read(file).select(["symbol", "trade_id", "tape_partition"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("AAA", 8, 1),
        ("AAA", 1, 1),
        ("AAA", 9, 1),
        ("BTCUSDT", 5, 0),
        ("BTCUSDT", 6, 0),
        ("BTCUSDT", 7, 0),
    ]
    assert file.sort_order_id == lake.table.sort_order().order_id


def test_one_file_per_day_and_exchange(lake):
    midnight = NOW_US // DAY_US * DAY_US
    batch = columns([1, 2, 3, 4], times=[midnight - 1, midnight, midnight - 1, midnight])
    futures = label(exchange="BINANCE_UM")
    batch = replace(
        batch,
        labels=(*batch.labels, futures),
        label=np.array([0, 0, 1, 1], dtype=np.int32),
    )
    files = write(lake, (0, batch))
    day = midnight // DAY_US
    assert [(f.partition[0], f.partition[1], f.record_count) for f in files] == [
        (day - 1, "BINANCE", 1),
        (day - 1, "BINANCE_UM", 1),
        (day, "BINANCE", 1),
        (day, "BINANCE_UM", 1),
    ]
    written = date(1970, 1, 1).fromordinal(date(1970, 1, 1).toordinal() + day)
    assert f"event_day={written}/exchange=BINANCE/" in files[2].file_path


def test_field_ids_encodings_and_bounds_are_as_designed(lake):
    batch = columns(list(range(100)), symbols=["BTCUSDT", "ETHUSDT"] * 50)
    file = write(lake, (1, batch))[0]
    parquet = pq.ParquetFile(local_path(file.file_path))
    schema = lake.table.schema()
    ids = {f.name: int(f.metadata[b"PARQUET:field_id"]) for f in parquet.schema_arrow}
    assert ids == {name: schema.find_field(name).field_id for name in TRADE.columns}
    group = parquet.metadata.row_group(0)
    by_name = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    for name in ("trade_id", "event_time", "receive_time", "price", "quantity"):
        assert "DELTA_BINARY_PACKED" in by_name[name].encodings
    assert by_name["symbol"].has_dictionary_page
    for name in ("price", "quantity"):
        assert by_name[name].physical_type == "INT64"
    assert by_name["price"].compression == "ZSTD"
    assert by_name["price"].has_column_index
    symbol = schema.find_field("symbol").field_id
    assert (file.lower_bounds[symbol], file.upper_bounds[symbol]) == (b"BTCUSDT", b"ETHUSDT")
    quantity = schema.find_field("quantity").field_id
    assert (file.lower_bounds[quantity], file.upper_bounds[quantity]) == (b"\x05", b"\x05")
    offset = schema.find_field("tape_offset").field_id
    assert int.from_bytes(file.upper_bounds[offset], "little") == 99
    assert file.file_size_in_bytes == Path(local_path(file.file_path)).stat().st_size


def test_bounds_of_a_row_group_hold_only_its_symbols(lake, monkeypatch):
    monkeypatch.setattr("k2.limits.ROW_GROUP_ROWS", 10)
    file = write(lake, (0, columns(list(range(20)), symbols=["A"] * 10 + ["B"] * 10)))[0]
    metadata = pq.read_metadata(local_path(file.file_path))
    bounds = [metadata.row_group(i).column(1).statistics for i in range(2)]
    assert [(one.min, one.max) for one in bounds] == [("A", "A"), ("B", "B")]


def test_no_rows_make_no_file(lake):
    assert write(lake) == []
    assert write(lake, (0, columns([]))) == []


def test_other_engines_read_the_rows(lake):
    duckdb = pytest.importorskip("duckdb")
    file = write(lake, (0, columns([1, 2], symbols=["A", "B"])))[0]
    path = local_path(file.file_path)
    got = duckdb.sql(f"select symbol, price, quantity, side from '{path}' order by 1").fetchall()
    exact = Decimal("0.00000100"), Decimal("0.00000005"), "BUY"
    assert got == [("A", *exact), ("B", *exact)]


def test_labels_that_differ_only_in_source_stay_apart(lake):
    batch = columns([1, 2])
    other = Label(*batch.labels[0][:-1], "backfill")
    batch = replace(batch, labels=(*batch.labels, other), label=np.array([0, 1], dtype=np.int32))
    assert read(write(lake, (0, batch))[0])["source"].to_pylist() == ["simulated", "backfill"]


@pytest.mark.parametrize("days_max", [1, 2, 3, 9])
def test_rows_are_counted_up_to_the_day_that_is_one_too_many(days_max):
    days = [5, 5, 4, 5, 3, 4, 9]
    rows = columns(range(7), times=[day * DAY_US + at for at, day in enumerate(days)])
    within = rows_within_days(rows, days_max)
    assert len(set(days[:within])) <= days_max
    assert within == len(days) or len(set(days[: within + 1])) > days_max
