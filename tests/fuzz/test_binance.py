"""Binance's frames are untrusted: whatever the bytes, decoding answers and never fails."""

import json
from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from k2.feed.venues.binance import BinanceSource, mantissa
from k2.feed.venues.source import Malformed, ShutdownAnnounced, Skipped
from k2.market.events import Trade

NOW_US = 1_760_000_000_000_000
SOURCE = BinanceSource(url="ws://x", exchange="BINANCE", symbols=["BTCUSDT"], source="live")
GOOD = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1760000000001,"s":"BTCUSDT","t":12,'
    b'"p":"39432.48000000","q":"0.00026300","T":1760000000000,"m":true,"M":true}}'
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


def decode(raw):
    """Decode, and check what every answer promises."""
    decoded = SOURCE.decode(raw, NOW_US)
    assert isinstance(decoded, tuple | Skipped | Malformed | ShutdownAnnounced)
    if isinstance(decoded, tuple):
        (trade,) = decoded
        assert isinstance(trade, Trade)
        assert trade.label.symbol == "BTCUSDT"
        assert 0 <= trade.trade_id < 2**63
        assert 0 < trade.price < 10**18
        assert 0 < trade.quantity < 10**38
        assert type(trade.price) is type(trade.quantity) is int
        for name, text in trade.vendor_data.items():
            (name + text).encode()
    if isinstance(decoded, Malformed):
        decoded.error.encode()
    return decoded


@given(st.binary(max_size=400))
def test_any_bytes(raw):
    decode(raw)


@given(VALUES)
def test_any_json(value):
    decode(json.dumps(value).encode())


@given(st.dictionaries(st.sampled_from("eEstpqTmMxX") | st.text(), VALUES), st.booleans())
def test_any_fields_on_a_stream_of_trades(fields, envelope):
    event = {"e": "trade", "s": "BTCUSDT"} | fields
    raw = {"stream": "btcusdt@trade", "data": event} if envelope else event
    decode(json.dumps(raw).encode())


@given(st.integers(min_value=0, max_value=len(GOOD) - 1), st.binary(max_size=6), st.integers(0, 6))
@example(at=0, put=b"", cut=0)
def test_any_damage_to_a_good_frame(at, put, cut):
    decode(GOOD[:at] + put + GOOD[at + cut :])


@given(st.integers(min_value=0, max_value=len(GOOD) * 8 - 1))
def test_any_flipped_bit(bit):
    damaged = bytearray(GOOD)
    damaged[bit // 8] ^= 1 << bit % 8
    decode(bytes(damaged))


@given(st.text(alphabet='\\uud8dc0012345fF"nrtb/ ', max_size=24))
def test_any_escape_in_names_and_values(text):
    decode(GOOD[:-2] + f',"{text}":"{text}"'.encode() + b"}}")


@given(st.decimals(min_value=0, max_value=10**30, places=8, allow_nan=False))
def test_every_number_with_eight_decimals_is_read_exactly(number):
    text = f"{number:f}"
    assert Fraction(mantissa(text), 10**8) == Fraction(text)


@given(st.text(max_size=40))
def test_a_mantissa_is_a_number_or_refused(text):
    value = mantissa(text)
    assert value == -1 or Fraction(value, 10**8) == Fraction(text)
