"""Foreign bytes reach the decoder: it marks, it never fails, and neighbours never notice."""

import io

import fastavro
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from k2.market.events import Fault
from k2.tape.avro.trade_codec import Decoder, encode_trade
from tests.support.messages import (
    SCHEMA,
    SCHEMA_ID,
    Schemas,
    header,
    raw,
    record,
    trade,
    trade_at,
    trades,
    written,
)

EXTENDED = SCHEMA | {
    "fields": [
        {"name": "venue_seq", "type": ["null", "long", {"type": "array", "items": "string"}]},
        *SCHEMA["fields"],
        {"name": "extra", "type": {"type": "map", "values": {"type": "array", "items": "bytes"}}},
        {
            "name": "nested",
            "type": {
                "type": "record",
                "name": "Nested",
                "fields": [
                    {"name": "f", "type": {"type": "fixed", "name": "F", "size": 3}},
                    {"name": "d", "type": "double"},
                    {"name": "b", "type": "boolean"},
                ],
            },
        },
    ]
}
TREE = {
    "type": "array",
    "items": {
        "type": "map",
        "values": [
            "null",
            {"type": "array", "items": "null"},
            {
                "type": "record",
                "name": "Leaf",
                "fields": [
                    {"name": "flag", "type": "boolean"},
                    {"name": "names", "type": {"type": "array", "items": "string"}},
                    {"name": "deep", "type": {"type": "array", "items": {
                        "type": "array", "items": "null"}}},
                ],
            },
        ],
    },
}  # fmt: skip
PARSED_TREE = fastavro.parse_schema(TREE)
NESTED = SCHEMA | {"fields": [*SCHEMA["fields"], {"name": "tree", "type": TREE}]}
SCHEMAS = Schemas({8: EXTENDED, 11: NESTED, 9: {"type": "record", "name": "Other", "fields": []}})
GOOD = encode_trade(trade(vendor_data={"a": "b"}), SCHEMA_ID)

garbage = st.one_of(
    st.none(),
    st.binary(max_size=200),
    st.builds(lambda schema_id, body: header(schema_id) + body,
              st.sampled_from([SCHEMA_ID, 8, 9, 10, 11]), st.binary(max_size=200)),
)  # fmt: skip


@st.composite
def mangled(draw):
    """A good message with some bytes changed, removed or added."""
    content = bytearray(encode_trade(draw(trades()), SCHEMA_ID))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        match draw(st.sampled_from(["change", "remove", "add", "cut"])):
            case "change" if at < len(content):
                content[at] = draw(st.integers(0, 255))
            case "remove":
                del content[at : at + draw(st.integers(1, 9))]
            case "add":
                content[at:at] = draw(st.binary(min_size=1, max_size=9))
            case "cut":
                del content[at:]
    return bytes(content)


@given(st.lists(st.one_of(garbage, mangled()), max_size=20))
def test_whatever_the_bytes_are_neighbours_are_read(strange):
    messages = [GOOD]
    for each in strange:
        messages += [each, GOOD]
    columns = Decoder(SCHEMAS).decode(raw(messages))
    assert not columns.fault[::2].any()
    for row in range(0, len(messages), 2):
        assert trade_at(columns, row) == trade(vendor_data={"a": "b"})
    bad = columns.fault != Fault.NONE
    assert (columns.label[bad] == -1).all()
    assert not columns.trade_id[bad].any()
    assert not columns.quantity[bad].any()
    if columns.vendor_data is not None:
        columns.vendor_data.validate(full=True)
        sizes = np.diff(columns.vendor_data.offsets.to_numpy())
        assert not sizes[bad].any()


@given(trades(), st.data())
def test_every_cut_and_every_tail_is_found(made, data):
    whole = encode_trade(made, SCHEMA_ID)
    size = data.draw(st.integers(5, len(whole) - 1))
    tail = data.draw(st.binary(min_size=1, max_size=30))
    columns = Decoder(SCHEMAS).decode(raw([whole[:size], whole, whole + tail, whole]))
    assert columns.fault.tolist() == [Fault.TRUNCATED, Fault.NONE, Fault.TRAILING, Fault.NONE]


@given(st.lists(st.binary(max_size=60), max_size=12))
def test_skipped_fields_of_any_shape_do_not_fail(bodies):
    messages = [header(8) + body for body in bodies]
    columns = Decoder(SCHEMAS).decode(raw([*messages, GOOD]))
    assert columns.fault[-1] == Fault.NONE


leaves = st.fixed_dictionaries(
    {
        "flag": st.booleans(),
        "names": st.lists(st.text("ab", max_size=3), max_size=3),
        "deep": st.lists(st.lists(st.none(), max_size=3), max_size=3),
    }
)
trees = st.lists(
    st.dictionaries(
        st.text("ab", max_size=3),
        st.one_of(st.none(), st.lists(st.none(), max_size=3), leaves),
        max_size=3,
    ),
    max_size=4,
)


@given(st.lists(trees, max_size=6))
def test_nested_items_are_passed_over_as_another_library_reads_them(made):
    messages = [written(record(trade()) | {"tree": tree}, NESTED, 11) for tree in made]
    columns = Decoder(SCHEMAS).decode(raw([*messages, GOOD]))
    assert not columns.fault.any()
    assert all(trade_at(columns, row) == trade() for row in range(len(made)))


bodies = st.lists(
    st.one_of(
        st.binary(max_size=6),
        st.sampled_from([b"\x02", b"\x04", b"\x00", b"\x01", b"\x03\x02", b"\x80\x40", b"\x02a"]),
    ),
    max_size=40,
).map(b"".join)


@given(st.lists(bodies, max_size=8))
def test_nested_items_of_any_bytes_are_judged_as_another_library_reads_them(drawn):
    """Bytes that it reads as one record, with no more values than the bound, are a trade."""
    base = header(11) + encode_trade(trade(), SCHEMA_ID)[5:]
    columns = Decoder(SCHEMAS).decode(raw([*(base + body for body in drawn), GOOD]))
    assert columns.fault[-1] == Fault.NONE
    for row, body in enumerate(drawn):
        if columns.fault[row] == Fault.NONE:
            assert read_to_its_end(body)
            assert trade_at(columns, row) == trade()
        elif columns.fault[row] == Fault.TRAILING:
            assert not read_to_its_end(body)


def read_to_its_end(body):
    source = io.BytesIO(body)
    fastavro.schemaless_reader(source, PARSED_TREE)
    return source.tell() == len(body)
