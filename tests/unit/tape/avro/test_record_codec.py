"""Whatever the bytes are, decoding gives the record or a fault."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2 import limits
from k2.market.events import Fault
from k2.market.schema import DEAD_LETTER, GAP, avro_schema
from k2.tape.avro.record_codec import RecordCodec
from tests.support.messages import header, written
from tests.unit.market.test_ledger import FILLED, OPEN, UNFILLABLE

ID = 3
VALUES = OPEN.values()


class Registry:
    def __init__(self, schemas):
        self.schemas = schemas

    def schema(self, schema_id):
        return self.schemas[schema_id]


def codec(event=GAP, **schemas):
    known = {ID: avro_schema(event)} | {int(name[1:]): one for name, one in schemas.items()}
    return RecordCodec(event, Registry(known))


GOOD = codec().encode(VALUES, ID)


@pytest.mark.parametrize("event", [OPEN, FILLED, UNFILLABLE])
def test_a_record_comes_back_with_times_in_microseconds(event):
    subject = codec()
    assert subject.decode(subject.encode(event.values(), ID)) == event.values()


def test_bytes_that_may_be_null_come_back():
    values = {
        "origin": "t", "origin_epoch": 0, "origin_partition": 1, "origin_offset": 2**62,
        "schema_id": None, "fault": "TRUNCATED", "error": "ü", "judged": 5, "value": b"\x00\xff",
    }  # fmt: skip
    subject = codec(DEAD_LETTER)
    assert subject.decode(subject.encode(values, ID)) == values
    assert subject.decode(subject.encode(values | {"value": None}, ID))["value"] is None


def test_an_int_that_is_too_large_is_bad():
    values = {
        "origin": "t", "origin_epoch": 2**31, "origin_partition": 1, "origin_offset": 0,
        "schema_id": None, "fault": "TRUNCATED", "error": "", "judged": 5, "value": None,
    }  # fmt: skip
    wide = avro_schema(DEAD_LETTER)
    wide["fields"] = [
        field | {"type": "long"} if field["type"] == "int" else field for field in wide["fields"]
    ]
    plain = copy.deepcopy(wide)
    plain["fields"][7]["type"] = "long"
    assert codec(DEAD_LETTER).decode(written(values, plain, ID)) is Fault.BAD_VALUE


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (None, Fault.NULL_VALUE),
        (b"", Fault.BAD_MAGIC),
        (b"\x01" + GOOD[1:], Fault.BAD_MAGIC),
        (GOOD[:3], Fault.TRUNCATED),
        (GOOD[:-1], Fault.TRUNCATED),
        (GOOD[:5], Fault.TRUNCATED),
        (GOOD + b"\x00", Fault.TRAILING),
        (header(99) + GOOD[5:], Fault.UNKNOWN_SCHEMA),
        (GOOD.replace(b"BTCUSDT", b"BTC\xff\xfeDT"), Fault.BAD_VALUE),
        (GOOD + bytes(limits.RECORD_BYTES_MAX), Fault.OVERSIZE),
    ],
)
def test_what_is_no_record_is_a_fault(value, fault):
    assert codec().decode(value) is fault


def test_a_schema_that_adds_a_flat_field_is_read_and_the_field_passed_over():
    more = avro_schema(GAP)
    more["fields"] = [{"name": "note", "type": ["null", "string"]}, *more["fields"]]
    plain = copy.deepcopy(more)
    _without_logical_types(plain)
    assert codec(_4=more).decode(written(VALUES | {"note": "x"}, plain, 4)) == VALUES


def test_a_schema_that_lacks_a_nullable_column_reads_as_null():
    less = avro_schema(GAP)
    less["fields"] = [each for each in less["fields"] if each["name"] != "reason"]
    plain = copy.deepcopy(less)
    _without_logical_types(plain)
    assert codec(_4=less).decode(written(VALUES, plain, 4)) == VALUES


def test_a_schema_that_cannot_give_the_event_is_unknown():
    lacking, other, nested = avro_schema(GAP), avro_schema(GAP), avro_schema(GAP)
    lacking["fields"] = [each for each in lacking["fields"] if each["name"] != "feed"]
    other["fields"] = [
        each | {"type": {"type": "long", "logicalType": "timestamp-millis"}}
        if each["name"] == "detected"
        else each
        for each in other["fields"]
    ]
    nested["fields"] = [
        *nested["fields"],
        {"name": "x", "type": {"type": "array", "items": "null"}},
    ]
    subject = codec(_4=lacking, _5=other, _6=nested, _7={"type": "string"}, _8={})
    for schema_id in (4, 5, 6, 7, 8):
        assert subject.decode(header(schema_id) + GOOD[5:]) is Fault.UNKNOWN_SCHEMA


def test_a_schema_that_was_unknown_is_asked_for_again():
    registry = Registry({})
    subject = RecordCodec(GAP, registry)
    assert subject.decode(GOOD) is Fault.UNKNOWN_SCHEMA
    registry.schemas[ID] = avro_schema(GAP)
    assert subject.decode(GOOD) == VALUES


@given(st.binary(max_size=200))
def test_no_bytes_raise(tail):
    assert isinstance(codec().decode(header(ID) + tail), Fault | dict)


@given(st.data())
def test_no_damaged_record_raises(data):
    content = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(5, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    assert isinstance(codec().decode(bytes(content)), Fault | dict)


def _without_logical_types(schema):
    for field in schema["fields"]:
        if isinstance(field["type"], dict):
            field["type"] = field["type"]["type"]
        if isinstance(field["type"], list) and isinstance(field["type"][1], dict):
            field["type"] = ["null", "long"]
