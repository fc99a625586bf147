"""Labels are found again by their bytes, whatever their hashes."""

import numpy as np

from k2 import limits
from k2.market.events import Label
from k2.tape.avro.cursors import join
from k2.tape.avro.tag_table import BAD, LabelTable, label_of, parse_label


def span(*texts):
    return b"".join(bytes([len(text.encode()) << 1]) + text.encode() for text in texts)


A = span("BINANCE", "BTCUSDT", "BTC", "USDT", "crypto", "live")
B = span("BINANCE", "ETHUSDT", "ETH", "USDT", "crypto", "live")
NOT_TEXT = A.replace(b"BTCUSDT", b"\xff\xff\xff\xff\xff\xff\xff")


def codes(table, *spans):
    joined = join(spans)
    return table.codes(joined, joined.start, joined.end - joined.start).tolist()


def test_a_label_is_its_six_texts():
    assert parse_label(A) == Label("BINANCE", "BTCUSDT", "BTC", "USDT", "crypto", "live")
    long = "x" * 100
    assert parse_label(b"\xc8\x01" + long.encode() + bytes(5)) == Label(long, "", "", "", "", "")
    assert label_of([b"\xff"] * 6) is None


def test_codes_are_kept():
    table = LabelTable()
    assert codes(table, A, B, A) == [0, 1, 0]
    assert codes(table, B, A) == [1, 0]
    assert [label.symbol for label in table.labels] == ["BTCUSDT", "ETHUSDT"]


def test_new_ones_among_known_ones():
    table = LabelTable()
    codes(table, A)
    assert codes(table, A, B, NOT_TEXT, A) == [0, 1, BAD, 0]
    assert codes(table, NOT_TEXT, B) == [BAD, 1]


def test_spans_that_share_a_beginning():
    table = LabelTable()
    longer = span("BINANCE", "BTCUSDT", "BTC", "USDT", "crypto", "liveliveliveliveliv")
    assert codes(table, A, longer) == [0, 1]
    assert codes(table, longer, A) == [1, 0]


def test_a_hash_that_collides_costs_no_label():
    table = LabelTable()
    codes(table, A, B)
    table._hash[:] = table._hash[0]  # as if both had one hash
    joined = join([A, B])
    assert table.codes(joined, joined.start, joined.end - joined.start).tolist() == [0, 1]


def test_very_many_labels():
    table = LabelTable()
    spans = [span("X", f"S{number}", "", "", "", "") for number in range(2000)]
    assert codes(table, *spans) == list(range(2000))
    assert codes(table, *reversed(spans)) == list(reversed(range(2000)))


def test_clearing_begins_again():
    table = LabelTable()
    codes(table, A, B)
    table.clear()
    assert codes(table, B) == [0]


def test_the_longest_label():
    table = LabelTable()
    size = limits.LABEL_BYTES_MAX - 7
    longest = b"\xf2\x03" + b"x" * size + bytes(5)
    assert len(longest) == limits.LABEL_BYTES_MAX
    assert codes(table, longest, A) == [0, 1]
    assert codes(table, A, longest) == [1, 0]
    assert np.array(codes(table, longest)).tolist() == [0]
