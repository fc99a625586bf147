import csv
import io
import json
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2client import arrow_text

PRICE = pa.decimal128(18, 8)
QUANTITY = pa.decimal128(38, 8)
LABELS = pa.map_(pa.string(), pa.string())


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("0.00000001", PRICE, "0.00000001"),
        ("1900000000", PRICE, "1900000000.00000000"),
        ("92000000000000", QUANTITY, "92000000000000.00000000"),
        ("0", PRICE, "0.00000000"),
        ("-0.0000001", PRICE, "-0.00000010"),
    ],
)
def test_decimals_are_plain_and_exact(value, kind, expected):
    assert arrow_text.texts(pa.array([Decimal(value), None], kind)).to_pylist() == [expected, None]


@given(st.lists(st.integers(-(10**17), 10**17), max_size=20))
def test_every_decimal_reads_back_equal(mantissas):
    values = [Decimal(each).scaleb(-8) for each in mantissas]
    written = arrow_text.texts(pa.array(values, PRICE)).to_pylist()
    assert [Decimal(text) for text in written] == values
    assert not any("E" in text for text in written)


def test_times_have_microseconds_and_a_zone():
    times = pa.array([1_610_064_000_000_007, None], pa.timestamp("us", tz="UTC"))
    assert arrow_text.texts(times).to_pylist() == ["2021-01-08T00:00:00.000007Z", None]
    assert arrow_text.texts(times.slice(1)).to_pylist() == [None]


def test_json_keeps_every_digit():
    batch = pa.record_batch(
        {
            "trade_id": pa.array([2**62 + 1]),
            "tape_partition": pa.array([3], pa.int32()),
            "price": pa.array([Decimal("0.1")], PRICE),
            "vendor_data": pa.array([[("M", "é")]], LABELS),
            "side": pa.array([None], pa.string()),
            "date": pa.array([18_635], pa.date32()),
        }
    )
    (line,) = arrow_text.json_rows(batch)
    assert json.loads(line) == {
        "trade_id": "4611686018427387905",
        "tape_partition": 3,
        "price": "0.10000000",
        "vendor_data": {"M": "é"},
        "side": None,
        "date": "2021-01-08",
    }


AWKWARD = st.text(alphabet=st.sampled_from('aé",\n\r \x00'), max_size=6)


@given(st.lists(st.tuples(AWKWARD, AWKWARD), min_size=1, max_size=10))
def test_csv_reads_back(rows):
    first, second = zip(*rows, strict=True)
    batch = pa.record_batch({"a": pa.array(first), "b": pa.array(second)})
    lines = "\n".join(arrow_text.csv_lines(batch)) + "\n"
    assert [tuple(row) for row in csv.reader(io.StringIO(lines, newline=""))] == rows


def test_empty_maps_and_batches():
    batch = pa.record_batch({"vendor_data": pa.array([[], []], LABELS)})
    assert arrow_text.csv_lines(batch) == ["{}", "{}"]
    assert arrow_text.json_rows(batch.slice(0, 0)) == []
    assert arrow_text.csv_lines(pa.record_batch({})) == []
