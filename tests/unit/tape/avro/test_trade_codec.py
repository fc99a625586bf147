"""Encoding and decoding at the edges of what a record may hold."""

import numpy as np
import pyarrow as pa
import pytest

from k2 import limits
from k2.errors import Reason, Unavailable
from k2.market import events, schema
from k2.market.events import Fault, Label
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
    written,
)

GOOD = encode_trade(trade(), SCHEMA_ID)


def faults(*messages, schemas=None):
    """What becomes of each message, with a good one on both sides of it."""
    batch = [GOOD]
    for message in messages:
        batch += [message, GOOD]
    found = Decoder(schemas or Schemas()).decode(raw(batch)).fault.tolist()
    assert set(found[::2]) == {Fault.NONE}, "a neighbour noticed"
    return [Fault(each) for each in found[1::2]]


def test_an_empty_batch():
    columns = Decoder(Schemas()).decode(raw([]))
    assert len(columns) == 0
    assert columns.labels == ()


def test_offsets_and_labels_are_those_of_the_batch():
    other = trade(label=Label("BINANCE", "ETHUSDT", "ETH", "USDT", "crypto", "live"))
    messages = [encode_trade(one, SCHEMA_ID) for one in (trade(), other, trade())]
    columns = Decoder(Schemas()).decode(raw(messages, first_offset=100))
    assert columns.offset.tolist() == [100, 101, 102]
    assert columns.labels == (trade().label, other.label)
    assert columns.label.tolist() == [0, 1, 0]


def test_labels_of_earlier_batches_do_not_show():
    decoder = Decoder(Schemas())
    other = trade(label=Label("BINANCE", "ETHUSDT", "ETH", "USDT", "crypto", "live"))
    decoder.decode(raw([GOOD]))
    columns = decoder.decode(raw([encode_trade(other, SCHEMA_ID)]))
    assert columns.labels == (other.label,)


@pytest.mark.parametrize("price", [1, 1_900_000_000 * 10**8, 10**18 - 1])
@pytest.mark.parametrize("quantity", [1, 92_000_000_000_000 * 10**8, 10**38 - 1])
def test_every_number_that_a_venue_can_print_is_exact(price, quantity):
    made = trade(price=price, quantity=quantity)
    columns = Decoder(Schemas()).decode(raw([encode_trade(made, SCHEMA_ID)]))
    assert trade_at(columns, 0) == made
    row = events.to_arrow(columns, 0, 3).to_pylist()[0]
    assert row["price"].scaleb(8) == price
    assert int(row["quantity"].scaleb(8).to_integral_exact()) == quantity or quantity > 10**28


def test_numbers_beyond_what_is_stored_are_out_of_range():
    too_much = [trade(price=10**18), trade(price=-(10**18)), trade(quantity=10**38)]
    too_much += [trade(quantity=-(10**38)), trade(quantity=10**60), trade(price=2**64)]
    assert set(faults(*(encode_trade(one, SCHEMA_ID) for one in too_much))) == {Fault.OUT_OF_RANGE}


def test_an_empty_decimal_is_zero():
    message = written(record(trade(price=0)))
    zero = message.index(b"\x02\x00" + encode_trade(trade(), SCHEMA_ID)[-7:-6])
    shorter = message[:zero] + b"\x00" + message[zero + 2 :]
    assert faults(shorter) == [Fault.NONE]


def test_what_is_no_message_of_ours():
    assert faults(None, b"", b"\x01" + GOOD[1:], b"{}", GOOD[:3], b"\x00") == [
        Fault.NULL_VALUE,
        Fault.BAD_MAGIC,
        Fault.BAD_MAGIC,
        Fault.BAD_MAGIC,
        Fault.TRUNCATED,
        Fault.TRUNCATED,
    ]


def test_a_message_that_is_too_large():
    assert faults(GOOD + bytes(limits.RECORD_BYTES_MAX)) == [Fault.OVERSIZE]


def test_cut_and_extended_messages():
    cuts = [GOOD[:size] for size in range(5, len(GOOD))]
    assert set(faults(*cuts)) == {Fault.TRUNCATED}
    assert faults(GOOD + b"\x00", GOOD + GOOD) == [Fault.TRAILING] * 2


def test_texts_that_are_not_utf8():
    bad_label = GOOD.replace(b"BTCUSDT", b"BTC\xffSDT")
    bad_key = encode_trade(trade(vendor_data={"kkk": "v"}), SCHEMA_ID).replace(b"kkk", b"k\xc3k")
    bad_value = encode_trade(trade(vendor_data={"k": "vvv"}), SCHEMA_ID).replace(
        b"vvv", b"\xed\xa0\x80"
    )
    assert faults(bad_label, bad_key, bad_value) == [Fault.BAD_VALUE] * 3


def test_texts_that_are_utf8():
    made = trade(
        label=Label("BINANCE", "币安人生USDT", "币安人生", "USDT", "crypto", "live"),
        vendor_data={"ü": "€", "a": "", "": "𝄞"},
    )
    columns = Decoder(Schemas()).decode(raw([GOOD, encode_trade(made, SCHEMA_ID), GOOD]))
    assert trade_at(columns, 1) == made


def test_a_label_that_is_too_long():
    fits = Label("E" * 200, "S" * 40, "", "", "", "")
    large = Label("E" * 200, "S" * 60, "", "", "", "")
    messages = [encode_trade(trade(label=each), SCHEMA_ID) for each in (fits, large)]
    assert faults(*messages) == [Fault.NONE, Fault.OVERSIZE]


def test_a_side_that_does_not_exist():
    side = len(GOOD) - 2
    assert (
        faults(GOOD[:side] + b"\x04" + GOOD[side + 1 :], GOOD[:side] + b"\x01\x00")
        == [Fault.BAD_VALUE] * 2
    )


def test_a_varint_of_more_than_64_bits():
    label_end = GOOD.index(b"simulated") + len(b"simulated")
    rest = encode_trade(trade(trade_id=0), SCHEMA_ID)[label_end + 1 :]
    endless, large = b"\x80" * 10 + b"\x01", b"\xff" * 9 + b"\x02"
    largest = b"\xff" * 9 + b"\x01"
    messages = [GOOD[:label_end] + each + rest for each in (endless, large, largest)]
    assert faults(*messages) == [Fault.BAD_VALUE, Fault.BAD_VALUE, Fault.NONE]


def test_maps_within_bounds():
    most = {str(number): "" for number in range(limits.VENDOR_ENTRIES_MAX)}
    messages = [
        encode_trade(trade(vendor_data=each), SCHEMA_ID) for each in (most, most | {"x": ""})
    ]
    assert faults(*messages) == [Fault.NONE, Fault.OVERSIZE]
    lies = [GOOD[:-1] + b"\x01\x06\x02a\x02b\x00", GOOD[:-1] + b"\x01\x0a\x02a\x02b\x00"]
    assert faults(GOOD[:-1] + b"\x01\x08\x02a\x02b\x00", *lies) == [
        Fault.NONE,
        Fault.BAD_VALUE,
        Fault.BAD_VALUE,
    ]
    smallest = b"\xff" * 9 + b"\x01"
    assert faults(GOOD[:-1] + smallest + b"\x00\x00") == [Fault.OVERSIZE]


def test_a_key_named_twice():
    assert faults(GOOD[:-1] + b"\x04\x02a\x02b\x02a\x02c\x00") == [Fault.BAD_VALUE]


def test_schemas_that_nobody_knows_are_asked_for_again():
    schemas = Schemas()
    message = header(70) + GOOD[5:]
    decoder = Decoder(schemas)
    assert decoder.decode(raw([message])).fault.tolist() == [Fault.UNKNOWN_SCHEMA]
    schemas.schemas[70] = SCHEMA
    assert decoder.decode(raw([message])).fault.tolist() == [Fault.NONE]


def test_a_registry_that_is_away_marks_nothing():
    class Away:
        def schema(self, schema_id):
            raise Unavailable(Reason.REGISTRY_UNAVAILABLE, "away")

        def remembers(self, schema_id):
            return False

    with pytest.raises(Unavailable):
        Decoder(Away()).decode(raw([GOOD]))


def test_several_schemas_in_a_batch():
    newer = SCHEMA | {"fields": [*SCHEMA["fields"], {"name": "note", "type": ["null", "string"]}]}
    schemas = Schemas({8: newer})
    with_note = trade(trade_id=5, vendor_data={"z": "1"})
    noted = written(record(with_note) | {"note": "hello"}, newer, 8)
    unnoted = written(record(with_note) | {"note": None}, newer, 8)
    first = encode_trade(trade(vendor_data={"a": "b"}), SCHEMA_ID)
    columns = Decoder(schemas).decode(raw([noted, first, GOOD, unnoted]))
    assert not columns.fault.any()
    assert [trade_at(columns, row) for row in (0, 3)] == [with_note, with_note]
    assert columns.vendor_data.to_pylist() == [[("z", "1")], [("a", "b")], [], [("z", "1")]]


def test_decoded_columns_become_rows():
    columns = Decoder(Schemas()).decode(
        raw([encode_trade(trade(vendor_data={"a": "b"}), SCHEMA_ID)])
    )
    rows = events.to_arrow(columns, 0, 3)
    rows.validate(full=True)
    assert rows.schema == schema.arrow_schema(schema.TRADE)
    assert rows.column("vendor_data").to_pylist() == [[("a", "b")]]


def test_maps_are_absent_when_all_are_empty():
    assert Decoder(Schemas()).decode(raw([GOOD, GOOD])).vendor_data is None
    bad = encode_trade(trade(vendor_data={"a": "b"}), SCHEMA_ID) + b"!"
    assert Decoder(Schemas()).decode(raw([GOOD, bad])).vendor_data is None


def test_maps_of_one_message_stay_there():
    messages = [GOOD, encode_trade(trade(vendor_data={"a": "b"}), SCHEMA_ID), GOOD]
    vendor = Decoder(Schemas()).decode(raw(messages)).vendor_data
    assert isinstance(vendor, pa.MapArray)
    assert np.diff(vendor.offsets.to_numpy()).tolist() == [0, 1, 0]


def test_a_flood_of_labels_is_forgotten_again():
    decoder = Decoder(Schemas())
    for first in range(0, limits.LABELS_KNOWN_MAX + 2000, 2000):
        flood = [
            encode_trade(trade(label=Label("X", f"S{first + n}", "", "", "", "")), SCHEMA_ID)
            for n in range(2000)
        ]
        flood += [message.replace(b"S", b"\xff") for message in flood[:10]]
        columns = decoder.decode(raw(flood))
        assert columns.labels[-1].symbol == f"S{first + 1999}"
    assert len(decoder.labels) <= limits.LABELS_KNOWN_MAX + 2010
    assert decoder.decode(raw([GOOD])).labels == (trade().label,)
    assert len(decoder.labels) <= 2011


class Counting:
    """A registry that counts what it is asked; `away` from an id on."""

    def __init__(self, known, away=()):
        self.known = known
        self.away = away
        self.missed = set()
        self.asked = []

    def schema(self, schema_id):
        if schema_id in self.missed:
            raise KeyError(schema_id)
        self.asked.append(schema_id)
        if schema_id in self.away:
            raise Unavailable(Reason.REGISTRY_UNAVAILABLE, "away")
        if schema_id not in self.known:
            self.missed.add(schema_id)
        return self.known[schema_id]

    def remembers(self, schema_id):
        return schema_id in self.missed


def in_steps(decoder, messages):
    """The faults of messages that are decoded as far as each step goes, and the steps' sizes."""
    found, sizes = [], []
    while len(found) < len(messages):
        columns = decoder.decode(raw(messages[len(found) :], first_offset=len(found)))
        assert columns.offset.tolist() == list(range(len(found), len(found) + len(columns)))
        assert len(columns) > 0
        found += columns.fault.tolist()
        sizes.append(len(columns))
    return found, sizes


def test_a_flood_of_schema_ids_is_asked_for_in_steps():
    most = limits.SCHEMA_LOOKUPS_PER_BATCH
    schemas = Counting({SCHEMA_ID: SCHEMA})
    garbage = [header(1000 + number) + b"garbage" for number in range(3 * most)]
    messages = [GOOD, *garbage, GOOD, b"{}", *garbage[:5]]
    found, sizes = in_steps(Decoder(schemas), messages)
    unknown, none = Fault.UNKNOWN_SCHEMA, Fault.NONE
    assert found == [none] + [unknown] * 3 * most + [none, Fault.BAD_MAGIC] + [unknown] * 5
    assert sizes == [most, most, most, len(messages) - 3 * most]
    assert schemas.asked == [SCHEMA_ID, *range(1000, 1000 + 3 * most)], "each once, in their order"


def test_what_comes_before_an_id_that_cannot_be_asked_for_is_decoded():
    schemas = Counting({SCHEMA_ID: SCHEMA}, away={70})
    decoder = Decoder(schemas)
    strange = header(70) + GOOD[5:]
    columns = decoder.decode(raw([GOOD, header(60), b"{}", strange, GOOD]))
    assert columns.fault.tolist() == [Fault.NONE, Fault.UNKNOWN_SCHEMA, Fault.BAD_MAGIC]
    with pytest.raises(Unavailable):
        decoder.decode(raw([strange, GOOD]))
    schemas.away = ()
    assert decoder.decode(raw([strange, GOOD])).fault.tolist() == [Fault.UNKNOWN_SCHEMA, 0]


def test_a_decoder_is_warm_once_it_found_the_schema_of_a_trade():
    other = {"type": "record", "name": "Other", "fields": []}
    decoder = Decoder(Counting({SCHEMA_ID: SCHEMA, 9: other}))
    decoder.decode(raw([header(60), header(9), b"{}"]))
    assert not decoder.warm
    decoder.decode(raw([GOOD]))
    assert decoder.warm
    decoder.decode(raw([header(61)]))
    assert decoder.warm


@pytest.mark.parametrize("count", [1, 2, 15])
def test_any_prefix_is_as_the_whole_batch(count):
    """What is decoded in steps is what is decoded at once."""
    newer = SCHEMA | {"fields": [*SCHEMA["fields"], {"name": "note", "type": ["null", "string"]}]}
    made = [trade(trade_id=number, vendor_data={"n": str(number)}) for number in range(15)]
    messages = [
        encode_trade(one, SCHEMA_ID)
        if one.trade_id % 3
        else written(record(one) | {"note": "x"}, newer, 8)
        for one in made
    ]
    messages.insert(count, header(70))
    decoder = Decoder(Counting({SCHEMA_ID: SCHEMA, 8: newer}, away={70}))
    columns = decoder.decode(raw(messages))
    assert [trade_at(columns, row) for row in range(len(columns))] == made[:count]
