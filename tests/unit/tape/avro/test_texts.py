"""Spans of a batch as Arrow texts."""

import numpy as np

from k2.tape.avro.cursors import join
from k2.tape.avro.texts import gather, not_text, text_array


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
