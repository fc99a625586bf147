"""A recording is foreign bytes: it is read, or refused by a line; never anything else."""

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from k2.errors import Invalid
from k2.feed.recording import Frame, read_frames, symbols, traded_symbol

LINE = b'{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":1,"T":1610064000278}}\n'
SESSION = b'{"t":"recv","conn":"c","ts":1633998512.06,"data":"{\\"e\\":\\"trade\\"}"}\n'


def read(path):
    try:
        frames = list(read_frames(path))
    except Invalid:
        with pytest.raises(Invalid, match="line "):
            symbols(path)
        return
    traded = symbols(path)
    assert all(isinstance(frame, Frame) for frame in frames)
    assert all(symbol == symbol.upper() for symbol in traded)


@given(st.binary(max_size=300))
@example(b'{"t":"recv","ts":NaN,"data":"x"}\n')
@example(b'{"t":"recv","ts":1e308,"data":"x"}\n')
@example(b'{"t":"recv","ts":1,"data":"\\ud800"}\n')
@example(b'{"e":1,"T":99999999999999999999999}\n')
@example(b"\xff\xfe\n")
@example(b'{"stream":"a@trade","data":' + b"[" * 5000 + b"\n")
@example(b'{"t":"recv","ts":1,"data":"' + b"[" * 5000 + b'"}\n')
def test_any_bytes(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "a.jsonl"
    path.write_bytes(data)
    read(path)


@given(st.integers(0, 250), st.integers(0, 255), st.booleans())
def test_one_byte_changed(tmp_path_factory, at, byte, compressed):
    data = bytearray(LINE + SESSION + LINE)
    if compressed:
        data = bytearray(zstandard.compress(bytes(data)))
    data[at % len(data)] = byte
    path = tmp_path_factory.mktemp("fuzz") / ("a.zst" if compressed else "a.jsonl")
    path.write_bytes(bytes(data))
    read(path)


@given(st.text(max_size=200))
def test_any_text_is_a_frame_of_trades_or_not(text):
    assert traded_symbol(text) is None or traded_symbol(text)
