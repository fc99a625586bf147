"""Values are read from every message at once, within its bounds."""

import numpy as np

from k2.market.events import Fault
from k2.tape.avro.cursors import (
    ALL,
    Cursors,
    big_endian,
    for_each_item,
    gather,
    hash_words,
    join,
    masked_words,
    not_text,
    text_array,
)


def cursors(*messages):
    joined = join(messages)
    return Cursors(joined, joined.start, joined.end)


def faults(made):
    return [Fault(each) for each in made.fault.tolist()]


def test_joining_keeps_bounds():
    joined = join([b"ab", b"", b"c"])
    assert [joined.bytes_at(s, e - s) for s, e in zip(joined.start, joined.end, strict=True)] == [
        b"ab",
        b"",
        b"c",
    ]


def test_longs_of_every_length():
    made = cursors(b"\x01", b"\xfe\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\x80\x00")
    assert made.longs().tolist() == [-1, 2**31 - 1, -(2**63), 0]
    assert faults(made) == [Fault.NONE] * 4
    assert (made.position == made.end).all()


def test_longs_that_end_early():
    made = cursors(b"", b"\x80", b"\xff" * 9, b"\x02")
    assert made.longs()[3] == 1
    assert faults(made) == [Fault.TRUNCATED] * 3 + [Fault.NONE]


def test_small_ones_may_be_large():
    assert cursors(b"\x02", b"\x04").small().tolist() == [1, 2]
    assert cursors(b"\x02", b"\x80\x01").small().tolist() == [1, 64]


def test_spans_within_bounds():
    made = cursors(
        b"\x04ab", b"\x04a", b"\x01", b"\x00", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    )
    start, length = made.spans()
    assert length.tolist() == [2, 0, 0, 0, 0]
    assert made.joined.bytes_at(int(start[0]), 2) == b"ab"
    assert faults(made) == [
        Fault.NONE,
        Fault.TRUNCATED,
        Fault.BAD_VALUE,
        Fault.NONE,
        Fault.TRUNCATED,
    ]


def test_the_first_fault_stays():
    made = cursors(b"\x01", b"\x00")
    made.spans()
    made.skip(5)
    made.finish()
    assert faults(made) == [Fault.BAD_VALUE, Fault.TRUNCATED]


def test_some_rows_only():
    made = cursors(b"\x02\x04", b"\x06", b"\x08\x0a")
    rows = np.array([0, 2])
    assert made.longs(rows).tolist() == [1, 4]
    assert made.longs(rows).tolist() == [2, 5]
    made.finish()
    assert faults(made) == [Fault.NONE, Fault.TRAILING, Fault.NONE]


def test_items_in_blocks():
    made = cursors(b"\x04\x02\x04\x00", b"\x00", b"\x01\x02\x06\x02\x08\x00", b"\x04\x02")
    seen = []
    for_each_item(
        made,
        ALL,
        8,
        lambda rows: seen.append((rows.tolist(), made.longs(rows).tolist())),
    )
    assert seen[:2] == [([0, 2, 3], [1, 3, 1]), ([0, 3], [2, 0])]
    assert seen[2:] == [([2], [4])]
    assert faults(made) == [Fault.NONE, Fault.NONE, Fault.NONE, Fault.TRUNCATED]


def test_numbers_are_signed_and_big_endian():
    joined = join([b"\xff", b"\x01\x00", b"", b"\x80" + bytes(7)])
    numbers = big_endian(joined, joined.end, joined.end - joined.start)
    assert numbers.tolist() == [-1, 256, 0, -(2**63)]


def test_hashes_tell_spans_apart():
    joined = join([b"abcdefghij", b"abcdefghik", b"abcdefgh", b"abcdefgh\x00", b"abcdefghij"])
    length = joined.end - joined.start
    hashed = hash_words(length, masked_words(joined, joined.start, length, 64)).tolist()
    assert hashed[0] == hashed[4]
    assert len(set(hashed)) == 4


def spans(*texts):
    joined = join(texts)
    return gather(joined, joined.start, joined.end - joined.start)


def test_gathered_spans_are_texts():
    assert text_array(*spans(b"ab", b"", "ü".encode())).to_pylist() == ["ab", "", "ü"]


def test_spans_are_gathered_in_any_order_and_more_than_once():
    joined = join([b"abc", b"xy"])
    start = joined.start[[1, 0, 1]]
    assert text_array(*gather(joined, start, np.array([2, 1, 1]))).to_pylist() == ["xy", "a", "x"]


def test_what_is_not_text_is_found():
    assert not_text(*spans(b"ab", b"cd")).tolist() == []
    assert not_text(*spans("ü".encode(), b"\xc3", b"ok", b"\xff", "€".encode())).tolist() == [1, 3]
    # Two halves of one character, each in a span of its own, are two faults.
    assert not_text(*spans(b"\xc3", b"\xbc")).tolist() == [0, 1]
