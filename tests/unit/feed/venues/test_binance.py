"""Binance's frames to trades: exact, or skipped, or malformed; never anything in between."""

import json
from decimal import Decimal

import pytest

from k2 import limits
from k2.errors import Invalid
from k2.feed.venues.binance import BinanceSource, mantissa
from k2.feed.venues.source import Malformed, ShutdownAnnounced, Skipped, Void
from k2.market.events import Fault, Label
from k2.market.instrument import Instrument
from k2.tape.avro.trade_codec import encode_trade

NOW_US = 1_760_000_000_123_456
TIME_MS = 1_760_000_000_100
TRADE = {
    "e": "trade", "E": TIME_MS + 1, "s": "BTCUSDT", "t": 123, "p": "39432.48000000",
    "q": "0.00026300", "T": TIME_MS, "m": True, "M": True,
}  # fmt: skip


def source(*symbols, exchange="BINANCE"):
    return BinanceSource(
        url="ws://127.0.0.1:1/",
        exchange=exchange,
        symbols=symbols or ("BTCUSDT", "ETHUSDT"),
        source="recorded",
    )


def frame(stream="btcusdt@trade", without=(), **changes):
    data = {name: value for name, value in (TRADE | changes).items() if name not in without}
    return json.dumps({"stream": stream, "data": data} if stream else data).encode()


def decode(raw):
    return source().decode(raw, NOW_US)


def only(raw):
    (trade,) = decode(raw)
    return trade


def test_a_trade_is_exact():
    trade = only(frame())
    assert trade.label == Label("BINANCE", "BTCUSDT", "BTC", "USDT", "crypto", "recorded")
    assert (trade.trade_id, trade.price, trade.quantity) == (123, 3_943_248_000_000, 26_300)
    assert (trade.event_time_us, trade.receive_time_us) == (TIME_MS * 1000, NOW_US)
    assert trade.vendor_data == {}


@pytest.mark.parametrize(("buyer_is_maker", "side"), [(True, 1), (False, 0)])
def test_the_side_is_the_aggressors(buyer_is_maker, side):
    assert only(frame(m=buyer_is_maker)).side == side  # SIDES = BUY, SELL


@pytest.mark.parametrize("days", [2, 20_000])
def test_a_time_ahead_of_a_slow_clock_is_the_tapes_to_judge(days):
    ahead_ms = TIME_MS + days * 86_400_000
    trade = only(frame(T=ahead_ms))
    assert (trade.event_time_us, trade.receive_time_us) == (ahead_ms * 1000, NOW_US)


def test_only_a_time_that_is_wrong_is_of_time():
    assert decode(frame(T=0)).of_time
    assert not decode(frame(T=0, t=-1)).of_time
    assert not decode(frame(T=0, p="0")).of_time


def test_microseconds_stay_microseconds():
    assert only(frame(T=NOW_US - 5, E=NOW_US)).event_time_us == NOW_US - 5


def test_a_frame_without_its_envelope_is_read_too():
    assert only(frame(stream=None)).trade_id == 123


def test_another_id_space_is_another_exchange():
    (trade,) = source(exchange="BINANCE_UM").decode(frame(), NOW_US)
    assert trade.label.instrument == Instrument("BINANCE_UM", "BTCUSDT")


@pytest.mark.parametrize("without", ["E", "M"])
def test_fields_that_k2_does_not_keep_may_be_absent(without):
    assert only(frame(without=[without])).trade_id == 123


def test_unknown_fields_land_in_vendor_data_as_the_venue_wrote_them():
    raw = frame()[:-2] + b',"X":"MARKET","n":0.10,"o":{"a":[1, 2]},"z":null,"b":true}}'
    trade = only(raw)
    assert trade.trade_id == 123
    assert trade.vendor_data == {
        "X": "MARKET", "n": "0.10", "o": '{"a":[1, 2]}', "z": "null", "b": "true",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (b'"tradeGroupId":-1', {"tradeGroupId": "-1"}),  # as its order streams have it
        (b'"b":88,"a":50', {"b": "88", "a": "50"}),  # buyer's and seller's order, as until 2023
        (b'"ot":"LIMIT_MAKER"', {"ot": "LIMIT_MAKER"}),
        (b'"f":1e-8', {"f": "1e-8"}),  # never a float
        (b'"n":12345678901234567890123', {"n": "12345678901234567890123"}),
        (b'"pP":0.100000000000000000001', {"pP": "0.100000000000000000001"}),
        (b'"pegged":{"of":"BEST", "by":[{"t":1},null]}', {
            "pegged": '{"of":"BEST", "by":[{"t":1},null]}'
        }),
        ('"hinweis":"Größe \\u2265 1"'.encode(), {"hinweis": "Größe ≥ 1"}),
        (b'"":"","empty":[]', {"": "", "empty": "[]"}),
    ],
)  # fmt: skip
def test_fields_the_venue_may_add_are_kept_to_the_last_digit(written, kept):
    for stream, end in (("btcusdt@trade", b"}}"), (None, b"}")):
        trade = only(frame(stream).removesuffix(end) + b"," + written + end)
        assert trade.vendor_data == kept
        assert trade._replace(vendor_data={}) == only(frame(stream))


def test_a_known_field_never_lands_in_vendor_data():
    assert only(frame(E="now", M="?", x=1)).vendor_data == {"x": "1"}


def test_the_widest_vendor_data_fits_a_message():
    wide = {f"{each:03}" + "k" * 500: "v" * 500 for each in range(limits.VENDOR_ENTRIES_MAX)}
    trade = only(frame(**wide))
    assert trade.vendor_data == wide
    assert len(encode_trade(trade, 1)) < limits.RECORD_BYTES_MAX


def test_unknown_fields_are_bounded():
    many = {f"x{each}": 1 for each in range(limits.VENDOR_ENTRIES_MAX + 1)}
    assert decode(frame(**many)).fault is Fault.BAD_VALUE
    assert decode(frame(x="y" * limits.VENDOR_BYTES_MAX)).fault is Fault.BAD_VALUE
    assert len(only(frame(x="y" * (limits.VENDOR_BYTES_MAX - 1))).vendor_data["x"]) > 60_000


@pytest.mark.parametrize(
    ("price", "quantity"),
    [("0.00000001", "0.00000001"), ("1900000000.00000000", "92000000000000.00000000")],
)
def test_everything_that_binance_can_print_fits(price, quantity):
    trade = only(frame(p=price, q=quantity))
    assert (Decimal(trade.price).scaleb(-8), Decimal(trade.quantity).scaleb(-8)) == (
        Decimal(price),
        Decimal(quantity),
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 100_000_000),
        ("1.5", 150_000_000),
        ("0.00000001", 1),
        ("00.10", 10_000_000),
        ("1.000000010000", 100_000_001),
        ("123456789012345678901234567890.12345678", 12345678901234567890123456789012345678),
        ("1.000000001", -1),
        ("1.", -1),
        (".5", -1),
        (".12345678", -1),
        ("", -1),
        (".", -1),
        ("-1", -1),
        ("+1.00000000", -1),
        ("1e5", -1),
        ("1_0.00000000", -1),
        (" 1", -1),
        ("1.5 ", -1),
        ("1,5", -1),
        ("1.2.3", -1),
        ("\u0661.00000000", -1),
        ("\u00b2", -1),
        ("NaN", -1),
        ("Infinity", -1),
        ("9" * 5000, -1),
        ("1." + "0" * 5000, -1),
    ],
)
def test_a_mantissa_is_exact_or_refused(text, value):
    assert mantissa(text) == value


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"p": "1.000000001"}, Fault.BAD_VALUE),
        ({"q": "-1.0"}, Fault.BAD_VALUE),
        ({"p": "0.00000000"}, Fault.OUT_OF_RANGE),
        ({"q": "0"}, Fault.OUT_OF_RANGE),
        ({"p": "10000000000.00000000"}, Fault.OUT_OF_RANGE),
        ({"q": "1" + "0" * 30}, Fault.OUT_OF_RANGE),
        ({"t": -1}, Fault.OUT_OF_RANGE),
        ({"t": 2**63}, Fault.OUT_OF_RANGE),
        ({"T": 0}, Fault.OUT_OF_RANGE),
        ({"T": -5}, Fault.OUT_OF_RANGE),
        ({"T": 253_402_300_800_000_000}, Fault.OUT_OF_RANGE),
        ({"T": 10**30}, None),
        ({"p": 39432.48}, None),
        ({"q": None}, None),
        ({"t": "123"}, None),
        ({"t": 1.5}, None),
        ({"t": True}, None),
        ({"m": 1}, None),
        ({"m": "true"}, None),
        ({"s": "ETHUSDT"}, Fault.BAD_VALUE),
        ({"s": 5}, None),
        ({"e": "aggTrade"}, Fault.BAD_VALUE),
        ({"e": None}, Fault.BAD_VALUE),
        ({"without": ["p"]}, None),
        ({"without": ["s"]}, None),
        ({"without": ["t"]}, None),
        ({"without": ["e"]}, Fault.BAD_VALUE),
    ],
)
def test_a_trade_that_is_wrong_is_malformed(changes, fault):
    decoded = decode(frame(**changes))
    assert isinstance(decoded, Malformed)
    assert decoded.error
    assert fault is None or decoded.fault is fault


@pytest.mark.parametrize("more", [{"X": "NA"}, {"X": "NA", "stream": None}, {}])
def test_an_id_without_a_trade_is_told_apart(more):
    void = decode(frame(p="0", q="0.000", **more))
    assert void == Void(Instrument("BINANCE", "BTCUSDT"), 123)


@pytest.mark.parametrize(
    "changes", [{"X": "MARKET"}, {"X": 0}, {"t": -1}, {"q": "1"}, {"p": "1"}, {"q": "x"}]
)
def test_half_an_id_without_a_trade_is_malformed(changes):
    assert isinstance(decode(frame(**{"p": "0", "q": "0", "X": "NA"} | changes)), Malformed)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\x00\xff\xfe",
        b'{"stream":"btcusdt@trade","data":',
        b'{"stream":"btcusdt@trade","data":null}',
        b'{"stream":"btcusdt@trade","data":[]}',
        b'{"stream":"btcusdt@trade","data":{}}',
        b'{"stream":"btcusdt@trade","data":{"e":"\xff"}}',
        frame()[:-1],
        frame() + b"}",
        frame() + frame(),
        b"[" * 100_000,
        b'{"stream":"btcusdt@trade","data":{"e":"trade","x":' + b"[" * 50_000,
    ],
)
def test_what_is_not_an_event_is_malformed(raw):
    assert isinstance(decode(raw), Malformed)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","s":"BTCUSDT"}}', "aggTrade"),
        (b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate"}}', "depthUpdate"),
        (b'{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT"}}', "other"),
        (b'{"stream":"btcusdt@blockTrade","data":{"e":"blockTrade","t":1}}', "blockTrade"),
        (b'{"stream":"x","data":{"e":"made-up"}}', "other"),
        (b'{"e":"kline","s":"BTCUSDT"}', "kline"),
        (b'{"result":null,"id":1}', "response"),
        (b'{"error":{"code":2,"msg":"no"},"id":1}', "error"),
        (b"{}", "other"),
        (frame(stream="dogeusdt@trade", s="DOGEUSDT"), "not_subscribed"),
        (frame(stream=None, s="DOGEUSDT"), "not_subscribed"),
        (frame(stream=None, without=["s"]), "not_subscribed"),
    ],
)
def test_what_is_not_for_k2_is_skipped_by_kind(raw, kind):
    assert decode(raw) == Skipped(kind)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"e":"serverShutdown","E":1770123456789}',
        b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}',
        b'{"subscriptionId":0,"event":{"e":"serverShutdown","E":1}}',
    ],
)
def test_an_announced_shutdown_is_recognised(raw):
    assert decode(raw) == ShutdownAnnounced()


def test_the_subscription_is_in_the_address():
    assert source("BTCUSDT", "ETHUSDT", "BTCUSDT").addresses() == (
        "ws://127.0.0.1:1/stream?streams=btcusdt@trade/ethusdt@trade&timeUnit=MICROSECOND",
    )


def test_addresses_of_some_instruments_alone():
    found = source("BTCUSDT", "ETHUSDT")
    (address,) = found.addresses(found.instruments[1:])
    assert "ethusdt@trade" in address
    assert "btcusdt" not in address


def test_symbols_may_be_outside_ascii():
    venue = source("币安人生USDT")
    assert venue.addresses()[0].isascii()
    raw = frame(stream="币安人生usdt@trade", s="币安人生USDT")
    (trade,) = venue.decode(raw, NOW_US)
    assert (trade.label.base, trade.label.quote) == ("币安人生", "USDT")


def test_many_symbols_take_several_connections():
    names = tuple(f"COIN{each}USDT" for each in range(1500))
    addresses = source(*names).addresses()
    streams = [part for one in addresses for part in one.split("=")[1].split("&")[0].split("/")]
    assert streams == [f"{name.lower()}@trade" for name in names]
    assert all(len(address) < limits.FEED_URL_BYTES_MAX + 100 for address in addresses)


@pytest.mark.parametrize("symbols", [(), ("btcusdt",), ("",), ("A/B",), ("A" * 65,), ("A&B",)])
def test_what_cannot_be_a_symbol_is_refused(symbols):
    with pytest.raises(Invalid, match=r"feed\.symbols"):
        BinanceSource(url="ws://x", exchange="BINANCE", symbols=symbols, source="live")


@pytest.mark.parametrize("url", ["https://x", "ws://", "ws:///x", "ws://x:99999", "", "x"])
def test_what_cannot_be_an_address_is_refused(url):
    with pytest.raises(Invalid, match="venue_url"):
        BinanceSource(url=url, exchange="BINANCE", symbols=["A"], source="live")
