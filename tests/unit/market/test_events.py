from dataclasses import replace
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from k2.market.events import (
    DAY_US,
    EVENT_TIME_MIN_US,
    RECORD_TIME_MAX_US,
    Fault,
    check,
    no_vendor,
    to_arrow,
)
from k2.market.instrument import Instrument
from k2.market.schema import TRADE, arrow_schema
from tests.support.trades import NOW_US, columns, label

HOME = {Instrument("BINANCE", "BTCUSDT"): 1}


def faults(batch, partition=1, homes=HOME):
    return [Fault(fault).name for fault in check(batch, homes, partition).fault]


def words(unscaled):
    return np.frombuffer(unscaled.to_bytes(16, "little", signed=True), np.int64).reshape(1, 2)


def test_good_records_stay_good():
    assert faults(columns([0, 1])) == ["NONE", "NONE"]


def test_a_record_in_a_wrong_or_unknown_partition_is_marked():
    assert faults(columns([1]), partition=2) == ["WRONG_PARTITION"]
    assert faults(columns([1], symbols="ETHUSDT")) == ["WRONG_PARTITION"]


@pytest.mark.parametrize(
    "change",
    [
        {"trade_id": np.array([-1])},
        {"event_time": np.array([EVENT_TIME_MIN_US - 1])},
        {"receive_time": np.array([EVENT_TIME_MIN_US - 1])},
        {"event_time": np.array([RECORD_TIME_MAX_US])},
        {"receive_time": np.array([RECORD_TIME_MAX_US])},
        {"event_time": np.array([np.iinfo(np.int64).max])},
        {"price": np.array([0])},
        {"price": np.array([-1])},
        {"quantity": np.array([[0, 0]])},
        {"quantity": np.array([[5, -1]])},
    ],
)
def test_each_rule_marks_its_record_and_no_neighbour(change):
    bad = replace(columns([1]), **change)
    assert faults(bad) == ["OUT_OF_RANGE"]
    both = columns([1, 2])
    for name, value in change.items():
        values = getattr(both, name).copy()
        values[0] = value[0]
        both = replace(both, **{name: values})
    assert faults(both) == ["OUT_OF_RANGE", "NONE"]


def test_an_event_is_at_most_a_day_ahead_of_when_the_broker_appended_it():
    batch = columns([1, 2], times=[NOW_US + DAY_US, NOW_US + DAY_US + 1])
    appended = np.array([NOW_US, NOW_US])
    homes = dict.fromkeys(HOME, 0)
    found = check(batch, homes, 0, appended).fault.tolist()
    assert found == [Fault.NONE, Fault.OUT_OF_RANGE]
    assert faults(batch) == ["NONE", "NONE"], "a producer's stamp proves nothing"


@pytest.mark.parametrize(
    "change",
    [
        {"source": "guessed"},
        {"base": "B" * 33},
        {"quote": "US\x00DT"},
        {"asset_class": "crypto\n"},
    ],
)
def test_texts_that_are_constant_are_short_and_printable(change):
    batch = columns([1])
    assert faults(replace(batch, labels=(batch.labels[0]._replace(**change),))) == ["BAD_VALUE"]
    good = batch.labels[0]._replace(base="", quote="", source="live")
    assert faults(replace(batch, labels=(good,))) == ["NONE"]


def test_an_earlier_fault_stays():
    assert faults(columns([1], faults=[Fault.TRAILING]), partition=2) == ["TRAILING"]


def test_a_batch_without_a_label_is_all_faults():
    batch = replace(
        columns([1], faults=[Fault.TRUNCATED]), labels=(), label=np.array([-1], np.int32)
    )
    assert faults(batch) == ["TRUNCATED"]


def test_rows_carry_every_column_exactly():
    batch = replace(
        columns([7], first_offset=41),
        price=np.array([190_000_000_000_000_000]),
        quantity=words(9_200_000_000_000_000_000_001),
        side=np.array([1], np.uint8),
        vendor_data=pa.array([[("X", "MARKET")]], pa.map_(pa.string(), pa.string())),
    )
    row = to_arrow(batch, epoch=2, partition=1).to_pylist()[0]
    assert row["price"] == Decimal("1900000000.00000000")
    assert row["quantity"] == Decimal("92000000000000.00000001")
    assert (row["exchange"], row["symbol"], row["base"], row["quote"]) == (
        "BINANCE", "BTCUSDT", "BTC", "USDT",
    )  # fmt: skip
    assert row["side"] == "SELL"
    assert row["vendor_data"] == [("X", "MARKET")]
    assert (row["tape_epoch"], row["tape_partition"], row["tape_offset"]) == (2, 1, 41)


def test_rows_have_the_schema_of_the_event_even_when_empty():
    batch = to_arrow(columns([]), 0, 0)
    assert batch.schema == arrow_schema(TRADE)
    assert batch.num_rows == 0
    assert no_vendor(2).to_pylist() == [[], []]


def test_take_by_mask_and_by_index_agree():
    vendor = pa.array([[("a", "1")], [], [("b", "2")]], pa.map_(pa.string(), pa.string()))
    batch = replace(columns([1, 2, 3]), vendor_data=vendor)
    by_mask = batch.take(np.array([True, False, True]))
    by_index = batch.take(np.array([0, 2]))
    assert by_mask.trade_id.tolist() == by_index.trade_id.tolist() == [1, 3]
    assert by_mask.vendor_data.to_pylist() == by_index.vendor_data.to_pylist()
    assert len(columns([1, 2]).take(np.array([1]))) == 1


def test_the_label_names_its_instrument():
    assert label("ETHUSDT", "BINANCE_UM").instrument == Instrument("BINANCE_UM", "ETHUSDT")
