"""What no column takes is passed over within bounds of its own, and neighbours never notice."""

import copy

import pytest

from k2 import limits
from k2.market.events import Fault
from k2.tape.avro.resolution import resolve
from k2.tape.avro.trade_codec import Decoder
from tests.support.messages import SCHEMA, Schemas, raw, record, trade, trade_at, written

MOST = limits.SKIPPED_VALUES_MAX
GOOD = written(record(trade()))


def extra(*types):
    """The trade's schema with unknown fields of these types at its end."""
    made = copy.deepcopy(SCHEMA)
    made["fields"] += [{"name": f"x{at}", "type": kind} for at, kind in enumerate(types)]
    return made


def array(items):
    return {"type": "array", "items": items}


def faults(schema, *bodies):
    """What becomes of trades that are followed by these bytes, among good ones."""
    base = b"\x00\x00\x00\x00\x08" + GOOD[5:]
    messages = [GOOD]
    for body in bodies:
        messages += [base + body, GOOD]
    columns = Decoder(Schemas({8: schema})).decode(raw(messages))
    assert not columns.fault[::2].any(), "a neighbour noticed"
    for row in range(1, len(messages), 2):
        assert columns.fault[row] or trade_at(columns, row) == trade()
    return [Fault(each) for each in columns.fault[1::2].tolist()]


def long(value):
    rest, content = (value << 1) ^ (value >> 63), bytearray()
    while rest >= 0x80:
        content.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes(content) + bytes([rest])


def block(count, items=b""):
    return long(count) + items


def test_nested_items_count_in_total_of_a_record():
    nested = extra(array(array(array("null"))))
    inner = block(1024) + b"\x00"
    few = block(2, (block(1, inner) + b"\x00") * 2) + b"\x00"
    many = block(4, (block(900, inner * 900) + b"\x00") * 4) + b"\x00"
    assert len(many) > 10_000
    assert faults(nested, few, many, many) == [Fault.NONE, Fault.BAD_VALUE, Fault.BAD_VALUE]


def test_items_of_several_fields_count_together():
    two = extra(array("long"), {"type": "map", "values": "null"})
    whole = block(MOST - 2, b"\x02" * (MOST - 2)) + b"\x00"
    one, another = block(1, b"\x02a") + b"\x00", block(2, b"\x02a\x02b") + b"\x00"
    found = faults(two, block(MOST - 4, b"\x02" * (MOST - 4)) + b"\x00" + one, whole + another)
    assert found == [Fault.NONE, Fault.BAD_VALUE]


@pytest.mark.parametrize("size", [{"type": "fixed", "name": "F", "size": 0}, "null"])
def test_items_of_no_size_count_too(size):
    counts = [block(MOST), block(MOST + 1), block(2**62), block(MOST) + block(1)]
    assert faults(extra(array(size)), *(each + b"\x00" for each in counts)) == [
        Fault.NONE,
        Fault.BAD_VALUE,
        Fault.BAD_VALUE,
        Fault.BAD_VALUE,
    ]


def test_blocks_that_say_their_size():
    longs = extra(array("long"))
    said = long(-2) + long(2) + b"\x02\x04\x00"
    wrong = [long(-2) + long(size) + b"\x02\x04\x00" for size in (1, 3, -1, 2**40)]
    most_negative = long(-(2**63)) + long(0) + b"\x00"
    assert faults(longs, said, *wrong, most_negative) == [
        Fault.NONE,
        Fault.BAD_VALUE,
        Fault.BAD_VALUE,
        Fault.TRUNCATED,
        Fault.TRUNCATED,
        Fault.BAD_VALUE,
    ]


def test_items_that_do_not_fit():
    items = extra(array(["null", "string", "double", "int"]))
    bodies = [
        block(1, b"\x02\x04ab") + b"\x00",
        block(1, b"\x02\x01") + b"\x00",
        block(1, b"\x02\x08ab"),
        block(1, b"\x04\x00"),
        block(1, b"\x08\x00") + b"\x00",
        block(1, b"\x01\x00") + b"\x00",
        block(1, b"\x06" + b"\xff" * 9 + b"\x01") + b"\x00",
        block(1, b"\x06" + b"\xff" * 9 + b"\x02") + b"\x00",
        block(1, b"\x06" + b"\xff" * 10 + b"\x01") + b"\x00",
        block(1, b"\x00"),
        b"",
    ]
    assert faults(items, *bodies) == [
        Fault.NONE,
        Fault.BAD_VALUE,
        Fault.TRUNCATED,
        Fault.TRUNCATED,
        Fault.BAD_VALUE,
        Fault.BAD_VALUE,
        Fault.NONE,
        Fault.BAD_VALUE,
        Fault.BAD_VALUE,
        Fault.TRUNCATED,
        Fault.TRUNCATED,
    ]


def test_fields_of_items_count_too():
    wide = {
        "type": "record",
        "name": "Wide",
        "fields": [{"name": f"f{n}", "type": "null"} for n in range(500)]
        + [{"name": "last", "type": "string"}],
    }
    few, many = block(8, b"\x00" * 8) + b"\x00", block(9, b"\x00" * 9) + b"\x00"
    assert faults(extra(array(wide)), few, many) == [Fault.NONE, Fault.BAD_VALUE]


def test_schemas_beyond_the_bounds_give_no_trade():
    deep = "null"
    for _ in range(limits.SCHEMA_DEPTH_MAX):
        deep = array(deep)
    assert resolve(extra(deep)) is not None
    assert resolve(extra(array(deep))) is None
    doubling = [
        {
            "type": "record",
            "name": f"R{n}",
            "fields": [{"name": side, "type": f"R{n + 1}"} for side in "ab"],
        }
        for n in range(40)
    ]
    doubling.append({"type": "record", "name": "R40", "fields": []})
    assert resolve(extra(*reversed(doubling))) is None


@pytest.mark.parametrize("size", [-1, 2**63, limits.RECORD_BYTES_MAX + 1, "3", True, None])
def test_sizes_that_no_record_has(size):
    assert resolve(extra({"type": "fixed", "name": "F", "size": size})) is None


def test_a_deep_message_is_walked_to_its_end():
    deep, body = "long", b"\x02"
    for _ in range(limits.SCHEMA_DEPTH_MAX):
        deep, body = array(deep), block(1, body) + b"\x00"
    assert faults(extra(deep), body, body[:-1], body + b"\x00") == [
        Fault.NONE,
        Fault.TRUNCATED,
        Fault.TRAILING,
    ]
