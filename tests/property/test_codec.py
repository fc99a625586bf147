"""The decoder reads what the format says, compared with fastavro and with the encoder."""

import copy
import io

import fastavro
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from k2.clock import ManualClock
from k2.market import schema
from k2.market.events import Fault
from k2.tape.acceptance import Acceptance
from k2.tape.avro.record_codec import RecordCodec
from k2.tape.avro.trade_codec import HEADER_BYTES, Decoder, encode_trade
from tests.support import tomorrow
from tests.support.messages import (
    SCHEMA,
    SCHEMA_ID,
    TEXT,
    Schemas,
    header,
    raw,
    record,
    trade,
    trade_at,
    trades,
    written,
)

GAP = schema.avro_schema(schema.GAP)
# Times and decimals as they are on the wire, without the library's conversions.
PLAIN = copy.deepcopy(SCHEMA)
for _field in PLAIN["fields"]:
    if isinstance(_field["type"], dict):
        _field["type"].pop("logicalType", None)
PLAIN = fastavro.parse_schema(PLAIN)


def long(value):
    """A zigzag varint, bit by bit."""
    rest = (value << 1) ^ (value >> 63)
    content = bytearray()
    while rest >= 0x80:
        content.append(rest & 0x7F | 0x80)
        rest >>= 7
    content.append(rest)
    return bytes(content)


@given(st.lists(trades(), min_size=1, max_size=30))
def test_what_was_encoded_is_decoded(made):
    columns = Decoder(Schemas()).decode(raw([encode_trade(one, SCHEMA_ID) for one in made]))
    assert not columns.fault.any()
    assert [trade_at(columns, row) for row in range(len(made))] == made


PLAIN_TRADES = st.lists(trades().map(lambda one: one._replace(vendor_data={})), min_size=1)


@given(st.lists(PLAIN_TRADES, min_size=1, max_size=5))
def test_batches_decoded_together_are_as_decoded_one_by_one(made):
    batches = [
        raw([encode_trade(one, SCHEMA_ID) for one in some], first_offset=7, partition=partition)
        for partition, some in enumerate(made)
    ]
    together = Acceptance(Decoder(Schemas()), None, ManualClock()).decode_together(batches)
    alone = Decoder(Schemas())
    for batch in batches:
        alone.decode(batch)  # labels get their codes in the same order
    assert list(together) == list(range(len(batches)))
    for batch in batches:
        one, other = together[batch.partition], alone.decode(batch)
        for name, value in vars(other).items():
            found = getattr(one, name)
            assert type(found) is type(value), name
            if isinstance(value, np.ndarray):
                assert (found.dtype, found.tolist()) == (value.dtype, value.tolist()), name
            else:
                assert found == value, name


@given(st.lists(trades(), min_size=1, max_size=10))
def test_fastavro_reads_what_was_encoded(made):
    for one in made:
        message = encode_trade(one, SCHEMA_ID)
        stream = io.BytesIO(message[HEADER_BYTES:])
        read = fastavro.schemaless_reader(stream, PLAIN, None)
        assert stream.tell() == len(message) - HEADER_BYTES
        assert message[:HEADER_BYTES] == header()
        assert {name: read[name] for name in one.label._fields} == one.label._asdict()
        assert (read["trade_id"], read["event_time"]) == (one.trade_id, one.event_time_us)
        assert read["receive_time"] == one.receive_time_us
        assert int.from_bytes(read["price"], "big", signed=True) == one.price
        assert int.from_bytes(read["quantity"], "big", signed=True) == one.quantity
        assert read["side"] == ("BUY", "SELL")[one.side]
        assert read["vendor_data"] == one.vendor_data


@given(st.lists(trades(), min_size=1, max_size=10))
def test_what_fastavro_writes_is_decoded(made):
    columns = Decoder(Schemas()).decode(raw([written(record(one)) for one in made]))
    assert not columns.fault.any()
    assert [trade_at(columns, row) for row in range(len(made))] == made


@given(trades(), st.lists(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), max_size=4),
       st.data())  # fmt: skip
def test_maps_come_in_blocks_of_either_sign(made, blocks, data):
    entries = [entry for block in blocks for entry in block]
    doubled = len({key for key, _ in entries}) < len(entries)
    content = b""
    for block in blocks:
        body = b"".join(
            long(len(text.encode())) + text.encode() for entry in block for text in entry
        )
        sized = data.draw(st.booleans())
        content += (long(-len(block)) + long(len(body)) if sized else long(len(block))) + body
    bare = encode_trade(made._replace(vendor_data={}), SCHEMA_ID)
    columns = Decoder(Schemas()).decode(raw([bare, bare[:-1] + content + b"\x00", bare]))
    expected = Fault.BAD_VALUE if doubled else Fault.NONE
    assert columns.fault.tolist() == [Fault.NONE, expected, Fault.NONE]
    if not doubled:
        assert trade_at(columns, 1) == made._replace(vendor_data=dict(entries))


@given(st.lists(trades(), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_batches_do_not_depend_on_how_they_are_cut(made, chance):
    """Decoding is per record: any split gives the same rows, with one decoder or several."""
    messages = [encode_trade(one, SCHEMA_ID) for one in made]
    messages = [m[:-1] if chance.random() < 0.2 else m for m in messages]
    whole = Decoder(Schemas()).decode(raw(messages))
    warm = Decoder(Schemas())
    for row, message in enumerate(messages):
        alone = warm.decode(raw([message]))
        assert alone.fault[0] == whole.fault[row]
        if not alone.fault[0]:
            assert trade_at(alone, 0) == trade_at(whole, row)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.integers(0, 3))
def test_longs_may_be_written_longer_than_needed(values, padding):
    """Avro does not demand the shortest varint."""
    messages = []
    for value in values:
        short = long(value)
        longer = min(padding, 10 - len(short))
        padded = short
        if longer:
            padded = short[:-1] + bytes([short[-1] | 0x80]) + b"\x80" * (longer - 1) + b"\x00"
        bare = encode_trade(trade(trade_id=0, vendor_data={}), SCHEMA_ID)
        at = bare.index(long(1_700_000_000_000_000)) - 1
        messages.append(bare[:at] + padded + bare[at + 1 :])
    columns = Decoder(Schemas()).decode(raw(messages))
    assert not columns.fault.any()
    assert columns.trade_id.tolist() == values


@given(st.lists(st.integers(-(10**40), 10**40), min_size=1), st.integers(0, 20))
def test_decimals_of_any_length(values, padding):
    """A decimal may be sign-extended; it is out of range by its value, not by its length."""
    bare = encode_trade(trade(quantity=0), SCHEMA_ID)
    at = len(bare) - 4  # length, one byte of quantity, side, empty map
    messages = []
    for value in values:
        size = (value.bit_length() >> 3) + 1 + padding
        content = long(size) + value.to_bytes(size, "big", signed=True)
        messages.append(bare[:at] + content + bare[at + 2 :])
    columns = Decoder(Schemas()).decode(raw(messages))
    fits = np.array([abs(value) < 10**38 for value in values])
    assert (columns.fault == np.where(fits, Fault.NONE, Fault.OUT_OF_RANGE)).all()
    for row in np.flatnonzero(fits).tolist():
        assert trade_at(columns, row).quantity == values[row]


@given(trades(), st.sampled_from([GAP, tomorrow.AVRO, {"type": "string"}]))
def test_an_id_that_came_to_mean_another_schema_never_gives_a_row(one, meaning):
    message = encode_trade(one, SCHEMA_ID)
    other = Schemas({SCHEMA_ID: meaning})
    assert Decoder(other).decode(raw([message])).fault[0] != Fault.NONE
    assert isinstance(RecordCodec(schema.GAP, other).decode(message), Fault)
    later = written(
        record(trade()) | {"note": None, "buyer_order": 1, "settles": None}, tomorrow.AVRO
    )
    assert Decoder(Schemas()).decode(raw([later])).fault[0] != Fault.NONE
