from decimal import Decimal

import pyarrow as pa
import pytest

from k2 import limits
from k2.market import schema
from k2.market.events import TIME_MAX_US
from k2.market.schema import TRADE, arrow_schema
from k2.query.batches import bounded, canonical_order, conformed, narrowed, rows_of


def batch(times, exchanges, symbols, ids):
    return pa.RecordBatch.from_pydict(
        {
            "event_time": pa.array(times, pa.timestamp("us", "UTC")),
            "exchange": exchanges,
            "symbol": symbols,
            "trade_id": pa.array(ids, pa.int64()),
        }
    )


def test_the_order_is_time_exchange_symbol_id():
    rows = batch([2, 1, 1, 1, 1], list("XXYXX"), list("AABBA"), [1, 9, 1, 1, 3])
    assert canonical_order(rows).tolist() == [4, 1, 3, 2, 0]


def test_ascending_times_need_no_sort():
    assert canonical_order(batch([1, 2], list("XX"), list("BA"), [1, 2])).tolist() == [0, 1]
    assert canonical_order(batch([], [], [], [])).tolist() == []


def test_types_that_differ_in_name_only_are_made_equal():
    wanted = pa.schema([pa.field("t", pa.timestamp("us", "UTC"), nullable=False)])
    rows = pa.RecordBatch.from_pydict({"t": pa.array([5], pa.timestamp("us", "Etc/UTC"))})
    assert conformed(rows, wanted).schema == wanted
    with pytest.raises(ValueError, match="zip"):
        conformed(rows, pa.schema([]))


def test_a_column_of_nulls_has_whatever_type_is_wanted():
    wanted = pa.schema([pa.field("m", pa.map_(pa.string(), pa.string()))])
    rows = pa.RecordBatch.from_pydict({"m": pa.nulls(2, pa.int32())})
    made = conformed(rows, wanted)
    assert (made.schema, made.column("m").null_count) == (wanted, 2)


def test_a_narrow_quantity_is_widened_exactly():
    wanted = pa.schema([schema.arrow_schema(TRADE).field("quantity")])
    values = [Decimal("9999999999.99999999"), Decimal("0.00000001"), Decimal(-1)]
    rows = pa.RecordBatch.from_pydict({"quantity": pa.array(values, schema.NARROW_QUANTITY)})
    made = conformed(rows.slice(1), wanted)
    assert made.schema == wanted
    assert made.column("quantity").to_pylist() == values[1:]
    made.validate(full=True)


@pytest.mark.parametrize(
    ("values", "narrow"),
    [
        (["1", "9999999999.99999999"], True),
        (["1", "10000000000"], False),
        (["-10000000000"], False),
        ([], True),
    ],
)
def test_quantities_that_fit_are_narrowed(values, narrow):
    kind = arrow_schema(TRADE).field("quantity").type
    values = [Decimal(value) for value in values]
    rows = pa.RecordBatch.from_pydict({"quantity": pa.array(values, kind)})
    made = narrowed(rows)
    assert made.column("quantity").type == (schema.NARROW_QUANTITY if narrow else kind)
    assert made.column("quantity").to_pylist() == values
    other = rows.rename_columns(["volume"])
    assert narrowed(other) is other


def test_large_batches_are_halved_until_they_fit_or_are_one_row():
    text = "x" * (limits.FLIGHT_BATCH_BYTES_MAX // 4)
    rows = pa.RecordBatch.from_pydict({"text": [text] * 10})
    parts = list(bounded(rows))
    assert sum(part.num_rows for part in parts) == 10
    assert all(part.nbytes <= limits.FLIGHT_BATCH_BYTES_MAX for part in parts)
    huge = pa.RecordBatch.from_pydict({"text": [text * 5]})
    assert [part.num_rows for part in bounded(huge)] == [1]


def test_rows_that_fit_are_estimated_within_bounds():
    assert rows_of(limits.FLIGHT_BATCH_BYTES_MAX, arrow_schema(TRADE)) >= 16_384
    assert rows_of(1, arrow_schema(TRADE)) == 1024
    assert rows_of(2**40, pa.schema([pa.field("side", pa.string())])) == 65_536


def test_times_beyond_the_year_9999_come_as_its_last_microsecond():
    wanted = pa.schema([pa.field("t", pa.timestamp("us", "UTC"))])
    late = pa.array([5, None, TIME_MAX_US + 1], pa.int64()).view(pa.timestamp("us", "UTC"))
    given = conformed(pa.RecordBatch.from_arrays([late], schema=wanted), wanted)
    assert given.column("t").view(pa.int64()).to_pylist() == [5, None, TIME_MAX_US]
    assert given.to_pylist()[2]["t"].year == 9999
