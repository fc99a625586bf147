"""Which schemas can give a trade, and how."""

import copy

import pytest

from k2.market.events import Fault
from k2.tape.avro.resolution import LABELS, resolve
from k2.tape.avro.trade_codec import Decoder
from tests.support.messages import SCHEMA, Schemas, raw, record, trade, trade_at, written


def changed(name, **changes):
    """The trade's schema with a field changed; with `type=None` without it."""
    made = copy.deepcopy(SCHEMA)
    for field in made["fields"]:
        field.update(changes if field["name"] == name else {})
    made["fields"] = [field for field in made["fields"] if field["type"] is not None]
    return made


def added(*fields, at=None):
    made = copy.deepcopy(SCHEMA)
    at = len(made["fields"]) if at is None else at
    made["fields"][at:at] = fields
    return made


def decoded(written_schema, **more):
    """A trade through a message of another schema."""
    message = written(record(trade()) | more, written_schema, 8)
    columns = Decoder(Schemas({8: written_schema})).decode(raw([message]))
    assert columns.fault.tolist() == [Fault.NONE]
    return trade_at(columns, 0)


def test_our_own_schema_leads_with_labels():
    steps = resolve(SCHEMA)
    assert steps[0].column == LABELS
    assert [step.column for step in steps[1:]] == [
        "trade_id", "event_time", "receive_time", "price", "quantity", "side", "vendor_data",
    ]  # fmt: skip


def test_added_fields_of_every_type_are_passed_over():
    node = {"type": "record", "name": "Node", "fields": [{"name": "x", "type": "int"}]}
    fields = {
        "f_null": ("null", None),
        "f_bool": ("boolean", True),
        "f_int": ("int", -5),
        "f_float": ("float", 1.5),
        "f_double": ("double", 1.5),
        "f_bytes": ("bytes", b"xyz"),
        "f_string": ("string", "xyz"),
        "f_fixed": ({"type": "fixed", "name": "Fix", "size": 3}, b"abc"),
        "f_enum": ({"type": "enum", "name": "En", "symbols": ["A", "B"]}, "B"),
        "f_again": ("k2.market.En", "A"),
        "f_array": ({"type": "array", "items": "string"}, ["a", "b", "c"]),
        "f_map": ({"type": "map", "values": "long"}, {"a": 1, "b": 2}),
        "f_record": (node, {"x": 1}),
        "f_named": ("Node", {"x": 2}),
        "f_union": (["null", "string", {"type": "array", "items": "Node"}], [{"x": 3}, {"x": 4}]),
        "f_nothing": (["null", "string"], None),
    }
    declared = [{"name": name, "type": kind} for name, (kind, _) in fields.items()]
    values = {name: value for name, (_, value) in fields.items()}
    assert decoded(added(*declared), **values) == trade()
    assert decoded(added(*declared, at=3), **values) == trade()


def test_fields_in_another_order():
    made = copy.deepcopy(SCHEMA)
    made["fields"].reverse()
    assert decoded(made) == trade()


def test_an_enum_in_another_order():
    side = {"type": "enum", "name": "Side", "symbols": ["UNKNOWN", "SELL", "BUY"]}
    assert decoded(changed("side", type=side)) == trade()
    unknown = written(record(trade()) | {"side": "UNKNOWN"}, changed("side", type=side), 8)
    columns = Decoder(Schemas({8: changed("side", type=side)})).decode(raw([unknown]))
    assert columns.fault.tolist() == [Fault.BAD_VALUE]


def test_an_int_is_read_as_a_long():
    made = changed("trade_id", type="int")
    message = written(record(trade(trade_id=5)), made, 8)
    assert Decoder(Schemas({8: made})).decode(raw([message])).trade_id.tolist() == [5]
    beyond = Decoder(Schemas({8: made})).decode(
        raw([b"\x00\x00\x00\x00\x08" + written(record(trade()))[5:]])
    )
    assert beyond.fault.tolist() == [Fault.BAD_VALUE]


@pytest.mark.parametrize(
    "unreadable",
    [
        changed("price", type=None),
        changed("price", type="double"),
        changed("price", type="bytes"),
        changed("price", type={"type": "bytes", "logicalType": "decimal", "scale": 6}),
        changed("event_time", type={"type": "long", "logicalType": "timestamp-millis"}),
        changed("event_time", type="long"),
        changed("symbol", type=["null", "string"]),
        changed("side", type="string"),
        changed("vendor_data", type={"type": "map", "values": "long"}),
        added({"name": "x", "type": "nobody"}),
        added({"name": "x", "type": {"type": "record", "name": "R", "fields": [
            {"name": "next", "type": ["null", "R"]}]}}),
        {"type": "string"},
        {"type": "record", "name": "R"},
        {},
    ],
)  # fmt: skip
def test_schemas_that_cannot_give_a_trade(unreadable):
    assert resolve(unreadable) is None
    columns = Decoder(Schemas({8: unreadable})).decode(raw([b"\x00\x00\x00\x00\x08" + bytes(50)]))
    assert columns.fault.tolist() == [Fault.UNKNOWN_SCHEMA]
