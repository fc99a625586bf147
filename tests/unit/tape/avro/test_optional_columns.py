"""Optional columns are read from whoever writes them, and null from whoever does not."""

import copy
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.market import schema
from k2.market.events import Fault, to_arrow
from k2.tape.avro.resolution import resolve
from k2.tape.avro.trade_codec import Decoder, encode_trade
from tests.support.messages import SCHEMA, SCHEMA_ID, TEXT, Schemas, raw, record, trade, written
from tests.support.tomorrow import AVRO, NEWER_ID, OPTIONAL, comes

NAMES = [field.name for field in OPTIONAL]
FULL = {"note": "größer", "buyer_order": -(2**62), "settles": 1_700_000_000_000_001}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EMPTY = dict.fromkeys(NAMES)


@pytest.fixture
def tomorrow(monkeypatch):
    comes(monkeypatch)


def changed(name, kind):
    made = copy.deepcopy(AVRO)
    for field in made["fields"]:
        if field["name"] == name:
            field["type"] = kind
            field.pop("default")
    return made


def decoded(*messages, schemas=None):
    decoder = Decoder(Schemas({NEWER_ID: AVRO} | (schemas or {})))
    return decoder.decode(raw(list(messages)))


def values(columns):
    """The optional columns of each row, times as integers."""
    structs = columns.optional.to_pylist() if columns.optional else [None] * len(columns)
    return [_with_integer_time(one or EMPTY) for one in structs]


def _with_integer_time(row):
    time = row["settles"]
    return row | {"settles": time and (time - EPOCH) // timedelta(microseconds=1)}


def newer(**more):
    return written(record(trade()) | EMPTY | more, AVRO, NEWER_ID)


def test_old_and_new_records_in_one_batch(tomorrow):
    old = encode_trade(trade(), SCHEMA_ID)
    columns = decoded(old, newer(**FULL), old, newer(note="x"), newer(), newer(settles=5))
    assert columns.fault.tolist() == [Fault.NONE] * 6
    assert values(columns) == [
        EMPTY, FULL, EMPTY, EMPTY | {"note": "x"}, EMPTY, EMPTY | {"settles": 5},
    ]  # fmt: skip
    assert set(columns.trade_id.tolist()) == {trade().trade_id}
    rows = to_arrow(columns, 0, 3)
    assert rows.schema == schema.arrow_schema(schema.TRADE)
    assert rows.column("note").to_pylist() == [None, "größer", None, "x", None, None]
    assert columns.take(np.array([1, 0])).optional.to_pylist()[0]["note"] == "größer"
    assert values(columns.take(columns.offset == 3)) == [EMPTY | {"note": "x"}]


def test_a_batch_of_old_records_costs_nothing(tomorrow):
    columns = decoded(encode_trade(trade(), SCHEMA_ID))
    assert columns.optional is None
    assert to_arrow(columns, 0, 0).column("buyer_order").to_pylist() == [None]
    assert decoded(newer()).optional is None


def test_a_k2_that_does_not_know_them_passes_over_them():
    columns = decoded(newer(**FULL), encode_trade(trade(), SCHEMA_ID))
    assert columns.fault.tolist() == [Fault.NONE] * 2
    assert columns.optional is None


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("note", "string", "always"),
        ("note", ["string", "null"], "value first"),
        ("buyer_order", ["null", "int"], -5),
        ("buyer_order", "int", 2**31 - 1),
        ("settles", {"type": "long", "logicalType": "timestamp-micros"}, 7),
    ],
)
def test_other_writers_of_the_same_meaning(tomorrow, name, kind, value):
    other = changed(name, kind)
    message = written(record(trade()) | EMPTY | {name: value}, other, 9)
    columns = decoded(message, schemas={9: other})
    assert columns.fault.tolist() == [Fault.NONE]
    assert values(columns) == [EMPTY | {name: value}]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("note", ["null", "long"]),
        ("note", ["null", "string", "long"]),
        ("note", ["string"]),
        ("note", "null"),
        ("buyer_order", ["null", "string"]),
        ("settles", ["null", {"type": "long", "logicalType": "timestamp-millis"}]),
        ("settles", ["null", "long"]),
        ("note", ["null", "bytes", "string"]),
    ],
)
def test_writers_of_another_meaning_are_not_understood(tomorrow, name, kind):
    assert resolve(changed(name, kind)) is None
    assert resolve(AVRO) is not None


def test_a_required_column_may_still_not_be_missing(tomorrow):
    made = copy.deepcopy(SCHEMA)
    made["fields"] = [field for field in made["fields"] if field["name"] != "price"]
    assert resolve(made) is None
    assert resolve(SCHEMA) is not None


def test_a_bad_value_is_a_fault_by_itself(tomorrow):
    good, bad = newer(note="fine"), newer(note="ab").replace(b"\x04ab", b"\x04\xff\xfe")
    branch = newer(note="ab").replace(b"\x02\x04ab", b"\x06\x04ab")
    columns = decoded(good, bad, branch, good)
    assert columns.fault.tolist() == [Fault.NONE, Fault.BAD_VALUE, Fault.BAD_VALUE, Fault.NONE]
    assert [row["note"] for row in values(columns)] == ["fine", None, None, "fine"]
    beyond = changed("buyer_order", ["null", "int"])
    message = newer(buyer_order=2**40)
    wide = message[:4] + b"\x09" + message[5:]
    assert decoded(wide, schemas={9: beyond}).fault.tolist() == [Fault.BAD_VALUE]


whole = st.fixed_dictionaries(
    {},
    optional={
        "note": TEXT,
        "buyer_order": st.integers(-(2**63), 2**63 - 1),
        "settles": st.integers(0, 2**52),
    },
)


@given(st.lists(st.none() | whole, max_size=12), st.data())
def test_any_mixture_of_writers_is_read_as_it_was_written(rows, data):
    with pytest.MonkeyPatch.context() as patch:
        comes(patch)
        old = encode_trade(trade(), SCHEMA_ID)
        messages = [old if row is None else newer(**row) for row in rows]
        cut = data.draw(st.none() | st.integers(0, len(rows) - 1)) if rows else None
        if cut is not None:
            messages[cut] = messages[cut][:-1]
        columns = decoded(*messages)
        assert [at for at, fault in enumerate(columns.fault.tolist()) if fault] == (
            [] if cut is None else [cut]
        )
        want = [EMPTY | (row or {}) for row in rows]
        if cut is not None:
            want[cut] = EMPTY
        assert values(columns) == want
