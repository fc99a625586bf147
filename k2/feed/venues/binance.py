"""Binance: combined `@trade` streams, as the spot and the USD-M futures markets send them.

The good path is one typed decode that refuses every field it does not know, so a new field of the
venue, a frame of another kind and a malformed frame all leave it together and are distinguished on
the slow path. Numbers stay text until they are integers in units of 1e-8: no float exists anywhere.

A combined frame is `{"stream": "btcusdt@trade", "data": {...}}`; a frame without that envelope is
read too. Trade: `e` event, `E` event time, `s` symbol, `t` id, `p` price, `q` quantity, `T` trade
time (milliseconds, or microseconds where asked for), `m` whether the buyer was the maker (then the
seller was the aggressor), `M` nothing any more. Any other field lands in `vendor_data`. The futures
market prints ids without a trade, too: price and quantity 0, order type `X` NA.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal
from urllib.parse import quote, urlsplit

import msgspec

from k2 import limits
from k2.errors import Invalid, Reason
from k2.feed.venues.source import Decoded, Malformed, ShutdownAnnounced, Skipped, Void
from k2.market.events import EVENT_TIME_MIN_US, TIME_MAX_US, Fault, Label, Trade
from k2.market.instrument import Instrument, is_symbol, split_symbol

_MICROSECONDS_FROM = 100_000_000_000_000  # a larger time is in microseconds, else milliseconds
_PRICE_END = 10**limits.PRICE_DIGITS
_QUANTITY_END = 10**limits.QUANTITY_DIGITS
_SCALE = limits.PRICE_SCALE
_DIGITS_MAX = 2 * limits.QUANTITY_DIGITS  # of one number, before it is looked at closer
_SHOWN = 80  # characters of a venue's text in a message of ours
_KNOWN = frozenset({"e", "E", "s", "t", "p", "q", "T", "m", "M"})
_BUY, _SELL = 0, 1
_STREAM = "@trade"
_NO_TRADE = "NA"  # the order type of an id without a trade; REST and files name no type
# Kinds that have a counter of their own; every other one counts as "other".
_KINDS = frozenset(
    {
        "24hrMiniTicker", "24hrTicker", "aggTrade", "avgPrice", "blockTrade", "bookTicker",
        "depthUpdate", "forceOrder", "kline", "markPriceUpdate",
    }
)  # fmt: skip

assert limits.PRICE_SCALE == limits.QUANTITY_SCALE == 8, "one parser reads both"


class _Data(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A trade of today; each field is typed, none is converted."""

    e: Literal["trade"]
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool
    E: int = 0
    M: bool = False


class _Frame(msgspec.Struct, gc=False):
    stream: str
    data: _Data


class Printed(msgspec.Struct):
    """A trade as the venue prints it, whatever else is printed beside it."""

    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool


_Fields = dict[str, msgspec.Raw]

_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_loose = msgspec.json.Decoder(Printed).decode
_decode_fields = msgspec.json.Decoder(_Fields).decode
_decode_text = msgspec.json.Decoder(str).decode


class BinanceSource:
    """A `Source` of Binance's spot market, or of another that speaks its protocol.

    Args:
        url: WebSocket base, such as `wss://stream.binance.com:9443`.
        exchange: names the id space: BINANCE, BINANCE_UM.
        symbols: upper case, as the venue prints them.
        source: live, recorded or simulated.

    Raises:
        Invalid: BAD_SETTING when a symbol or the address cannot be one.
    """

    def __init__(self, *, url: str, exchange: str, symbols: Iterable[str], source: str) -> None:
        distinct = tuple(dict.fromkeys(symbols))
        _check(url, distinct)
        self.name = exchange
        self.instruments = tuple(Instrument(exchange, symbol) for symbol in distinct)
        self._url = url.rstrip("/")
        self._symbols = {each.symbol: label_for(each, source) for each in self.instruments}
        self._streams = {symbol.lower() + _STREAM: label for symbol, label in self._symbols.items()}

    def addresses(self, only: Iterable[Instrument] | None = None) -> tuple[str, ...]:
        """List addresses with as many streams each as the venue and a URL allow."""
        groups: list[list[str]] = [[]]
        size = 0
        for instrument in self.instruments if only is None else only:
            stream = instrument.symbol.lower() + _STREAM
            text = quote(stream, safe="@")
            full = len(groups[-1]) >= limits.STREAMS_PER_CONNECTION_MAX
            if groups[-1] and (full or size + len(text) + 1 > limits.FEED_URL_BYTES_MAX):
                groups.append([])
                size = 0
            groups[-1].append(text)
            size += len(text) + 1
        return tuple(
            f"{self._url}/stream?streams={'/'.join(group)}&timeUnit=MICROSECOND" for group in groups
        )

    def decode(self, frame: bytes, receive_time_us: int) -> Decoded:
        """Decode one frame; as `Source.decode`."""
        try:
            decoded = _decode_frame(frame)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._decode_slowly(frame, receive_time_us)
        label = self._streams.get(decoded.stream)
        if label is None:
            return self._decode_slowly(frame, receive_time_us)
        return trade_of(label, decoded.data, receive_time_us, {})

    # --- whatever is not a trade as K2 knows it ---------------------------------------------------

    def _decode_slowly(self, frame: bytes, receive_time_us: int) -> Decoded:
        try:
            fields = _decode_fields(frame)
            stream, event = _opened(fields)
            kind = _text(event.get("e"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Malformed(Fault.BAD_VALUE, f"not an event: {error}")
        if kind == "serverShutdown":
            return ShutdownAnnounced()
        if stream is None:
            if kind != "trade":
                return Skipped(_skipped_kind(fields, kind))
            label = self._symbols.get(_text(event.get("s")) or "")
            return self._loose(label, event, receive_time_us)
        if not stream.endswith(_STREAM):
            return Skipped(_skipped_kind(fields, kind))
        return self._loose(self._streams.get(stream), event, receive_time_us)

    def _loose(self, label: Label | None, event: _Fields, receive_time_us: int) -> Decoded:
        """Decode a frame of a trade stream that has unknown fields or faults."""
        if label is None:
            return Skipped("not_subscribed")
        if _text(event.get("e")) != "trade":
            return Malformed(Fault.BAD_VALUE, "not a trade, on a stream of trades")
        try:
            vendor_data = _vendor_data(event)
            data = _decode_loose(msgspec.json.encode(event))
        except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
            return Malformed(Fault.BAD_VALUE, str(error))
        return trade_of(label, data, receive_time_us, vendor_data)


def _check(url: str, symbols: tuple[str, ...]) -> None:
    if not _is_websocket(url):
        raise Invalid(Reason.BAD_SETTING, f"feed.venue_url {url!r} is not ws:// or wss:// and host")
    if not symbols:
        raise Invalid(Reason.BAD_SETTING, "feed.symbols names no symbol")
    for symbol in symbols:
        if not is_symbol(symbol):
            raise Invalid(Reason.BAD_SETTING, f"feed.symbols: {symbol!r} is not a symbol")


def _is_websocket(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _opened(fields: _Fields) -> tuple[str | None, _Fields]:
    """Stream and event of a frame, out of its envelope if it has one."""
    if "data" in fields:
        return _text(fields.get("stream")) or "", _decode_fields(fields["data"])
    if "event" in fields:
        return None, _decode_fields(fields["event"])
    return None, fields


def _text(raw: msgspec.Raw | None) -> str | None:
    """Decode a JSON string; None for anything else."""
    if raw is None or bytes(raw)[:1] != b'"':
        return None
    return _decode_text(raw)


def _skipped_kind(fields: _Fields, kind: str | None) -> str:
    if "error" in fields:
        return "error"
    if "result" in fields:
        return "response"
    return kind if kind in _KINDS and kind is not None else "other"


def _vendor_data(event: _Fields) -> dict[str, str]:
    """Fields that K2 does not know: strings as they are, all else as the JSON the venue wrote.

    Raises:
        ValueError: they are more than a record may hold.
    """
    unknown = {
        name: _text(raw) if bytes(raw)[:1] == b'"' else bytes(raw).decode()
        for name, raw in event.items()
        if name not in _KNOWN
    }
    vendor_data = {name: text for name, text in unknown.items() if text is not None}
    size = sum(len(name.encode()) + len(text.encode()) for name, text in vendor_data.items())
    if len(vendor_data) > limits.VENDOR_ENTRIES_MAX or size > limits.VENDOR_BYTES_MAX:
        raise ValueError(f"{len(vendor_data)} unknown fields of {size} bytes are too much")
    return vendor_data


# --- values ---------------------------------------------------------------------------------------


def label_for(instrument: Instrument, source: str) -> Label:
    """Make the label of an instrument's trades from a source."""
    base, quoted = split_symbol(instrument.symbol)
    return Label(*instrument, base, quoted, "crypto", source)


def trade_of(
    label: Label, data: _Data | Printed, receive_time_us: int, vendor_data: dict[str, str]
) -> tuple[Trade] | Void | Malformed:
    """Make a trade with exact numbers, an id without a trade, or what is wrong with it.

    Its time may lie ahead of this process's clock, which may be slow: the tape judges that.
    """
    if data.s != label.symbol:
        return Malformed(Fault.BAD_VALUE, f"symbol {data.s[:_SHOWN]!r} on {label.symbol}'s stream")
    price, quantity = mantissa(data.p), mantissa(data.q)
    time = data.T
    event_time_us = time if time >= _MICROSECONDS_FROM else time * 1000
    if (
        0 < price < _PRICE_END
        and 0 < quantity < _QUANTITY_END
        and 0 <= data.t <= limits.TRADE_ID_MAX
        and EVENT_TIME_MIN_US <= event_time_us <= TIME_MAX_US
    ):
        side = _SELL if data.m else _BUY
        return (
            Trade(
                label, data.t, event_time_us, receive_time_us, price, quantity, side, vendor_data
            ),
        )
    none = price == quantity == 0 and vendor_data.get("X", _NO_TRADE) == _NO_TRADE
    if none and 0 <= data.t <= limits.TRADE_ID_MAX:
        return Void(label.instrument, data.t)
    return _fault(data, price, quantity)


def _fault(data: _Data | Printed, price: int, quantity: int) -> Malformed:
    for name, text, value, end in (
        ("price", data.p, price, _PRICE_END),
        ("quantity", data.q, quantity, _QUANTITY_END),
    ):
        if value < 0:
            return Malformed(Fault.BAD_VALUE, f"{name} {text[:_SHOWN]!r} is not exact to 1e-8")
        if not 0 < value < end:
            return Malformed(Fault.OUT_OF_RANGE, f"{name} {text} is out of range")
    if not 0 <= data.t <= limits.TRADE_ID_MAX:
        return Malformed(Fault.OUT_OF_RANGE, f"id {data.t} is out of range")
    return Malformed(Fault.OUT_OF_RANGE, f"time {data.T} is out of range", of_time=True)


def mantissa(text: str) -> int:
    """Read a decimal as an integer in units of 1e-8; -1 when it is not one, or not exactly.

    Takes what venues print: digits, a point, digits. No sign, no exponent, nothing else.
    """
    whole, point, part = text.partition(".")
    digits = whole + part
    if not (whole and digits.isdigit() and digits.isascii()) or len(text) > _DIGITS_MAX:
        return -1
    if len(part) == _SCALE:
        return int(digits)
    if point and not part:
        return -1
    if len(part) > _SCALE and part[_SCALE:].strip("0"):
        return -1
    return int(whole + part[:_SCALE].ljust(_SCALE, "0"))
