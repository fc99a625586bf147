"""Past trades by id for the venue's REST, as `historicalTrades` gives them.

An archive agrees with the source of the same venue: it has the trades printed until now, with the
same ids, and none of the later ones. Its answers are made in threads of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from k2.clock import Clock
from k2.errors import NotFound, Reason
from k2.feed.recording import read_frames, traded_symbol
from k2.market.instrument import split_symbol
from servers.venue.market.instruments import listing_of
from servers.venue.market.synthetic_market import Market

_UNIT = 10**8
_MICROSECONDS_FROM = 100_000_000_000_000
_EIGHT_PLACES = "0.00000001"


class PastTrade(NamedTuple):
    """One trade of the past; price and quantity as the venue prints them."""

    id: int
    price: str
    quantity: str
    time_us: int
    buyer_is_maker: bool


class PriceSteps(NamedTuple):
    """PriceSteps of price and quantity of a symbol, as the venue prints them."""

    tick: str
    lot: str


class Archive(Protocol):
    """The past of a venue."""

    def symbols(self) -> dict[str, PriceSteps]:
        """List all symbols with their steps."""

    def trades(self, symbol: str, from_id: int | None, limit: int) -> list[PastTrade]:
        """Return trades from an id on, or the newest ones, ids ascending, at most `limit`.

        Raises:
            NotFound: UNKNOWN_SYMBOL.
        """


class SyntheticArchive:
    """The past of a synthetic market.

    Args:
        market: used by this archive alone.
        clock: says what is past.
    """

    def __init__(self, market: Market, clock: Clock) -> None:
        self._market = market
        self._clock = clock
        self._lock = threading.Lock()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Make no answer while the block lasts; an answer that has begun ends before."""
        with self._lock:
            yield

    def play(self, market: Market) -> None:
        """Answer of another market, which has printed the same so far; while paused."""
        self._market = market

    def symbols(self) -> dict[str, PriceSteps]:
        """List all symbols with their steps."""
        found = {}
        for symbol in self._market.symbols:
            listing = listing_of(symbol)
            found[symbol] = PriceSteps(_decimal(listing.tick), _decimal(listing.lot))
        return found

    def trades(self, symbol: str, from_id: int | None, limit: int) -> list[PastTrade]:
        """Make the trades of these ids."""
        if symbol not in self._market.symbols:
            raise _unknown(symbol)
        with self._lock:
            newest = self._market.emitted(symbol, self._clock.now_us())
            first = max(newest - limit + 1 if from_id is None else from_id, 0)
            found = self._market.trades(symbol, first, min(first + limit, newest + 1))
        return [
            PastTrade(trade_id, _decimal(price), _decimal(quantity), time_us, sells)
            for trade_id, price, quantity, time_us, sells in zip(
                found.id.tolist(),
                found.price.tolist(),
                found.quantity.tolist(),
                found.time_us.tolist(),
                found.buyer_is_maker.tolist(),
                strict=True,
            )
        ]


class _PastEvent(msgspec.Struct):
    id: int = msgspec.field(name="t")
    price: str = msgspec.field(name="p")
    quantity: str = msgspec.field(name="q")
    time: int = msgspec.field(name="T")
    buyer_is_maker: bool = msgspec.field(name="m")


class _Wrapped(msgspec.Struct):
    data: _PastEvent


class RecordingArchive:
    """The past of a recording: what was played so far. Each question reads the file again.

    Args:
        path: of the recording.
        traded: its symbols.
        played: how many frames were played.
    """

    def __init__(self, path: Path, traded: tuple[str, ...], played: Callable[[], int]) -> None:
        self._path = path
        self._traded = traded
        self._played = played
        self._wrapped = msgspec.json.Decoder(_Wrapped)
        self._event = msgspec.json.Decoder(_PastEvent)

    def symbols(self) -> dict[str, PriceSteps]:
        """List the symbols of the recording, with eight decimal places each."""
        return dict.fromkeys(self._traded, PriceSteps(_EIGHT_PLACES, _EIGHT_PLACES))

    def trades(self, symbol: str, from_id: int | None, limit: int) -> list[PastTrade]:
        """Read the trades of these ids that were played so far."""
        if symbol not in self._traded:
            raise _unknown(symbol)
        found = {}
        for trade in self._all_of(symbol):
            if from_id is None or trade.id >= from_id:
                found[trade.id] = trade
            if from_id is None and len(found) > 2 * limit:
                found = {key: found[key] for key in sorted(found)[-limit:]}
        ids = sorted(found)
        return [found[key] for key in (ids[-limit:] if from_id is None else ids[:limit])]

    def _all_of(self, symbol: str) -> Iterator[PastTrade]:
        for frame in islice(read_frames(self._path), self._played()):
            if traded_symbol(frame.text) != symbol:
                continue
            try:
                if frame.text.startswith('{"stream":'):
                    event = self._wrapped.decode(frame.text).data
                else:
                    event = self._event.decode(frame.text)
            except (msgspec.DecodeError, RecursionError):
                continue
            time_us = event.time if event.time >= _MICROSECONDS_FROM else event.time * 1000
            yield PastTrade(event.id, event.price, event.quantity, time_us, event.buyer_is_maker)


def as_json(trade: PastTrade, *, microseconds: bool) -> dict[str, Any]:
    """Show a trade as `historicalTrades` does."""
    quote = _mantissa(trade.price) * _mantissa(trade.quantity) // _UNIT
    return {
        "id": trade.id,
        "price": trade.price,
        "qty": trade.quantity,
        "quoteQty": _decimal(quote),
        "time": trade.time_us if microseconds else trade.time_us // 1000,
        "isBuyerMaker": trade.buyer_is_maker,
        "isBestMatch": True,
    }


def exchange_info(symbol: str, steps: PriceSteps) -> dict[str, Any]:
    """Show a symbol as `exchangeInfo` does, as much as a feed needs."""
    base, quote = split_symbol(symbol)
    return {
        "symbol": symbol,
        "status": "TRADING",
        "baseAsset": base,
        "quoteAsset": quote,
        "filters": [
            {"filterType": "PRICE_FILTER", "tickSize": steps.tick},
            {"filterType": "LOT_SIZE", "stepSize": steps.lot},
        ],
    }


def _decimal(mantissa: int) -> str:
    return f"{mantissa // _UNIT}.{mantissa % _UNIT:08d}"


def _mantissa(text: str) -> int:
    whole, _, part = text.partition(".")
    return int(whole) * _UNIT + int(part.ljust(8, "0")[:8])


def _unknown(symbol: str) -> NotFound:
    return NotFound(Reason.UNKNOWN_SYMBOL, f"{symbol} is not traded here")
