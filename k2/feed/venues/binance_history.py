"""Binance's past: `GET /api/v3/historicalTrades`, weight 25, at most 1000 trades an answer.

An answer is an array of `{id, price, qty, quoteQty, time, isBuyerMaker, isBestMatch}`, ids
ascending, from the first trade with an id of at least `fromId`. Each says how much weight the
address has used; 429 and 418 say when to come back. Whatever else comes is no answer: it is not
believed in part, because what is wrong in one place is not right by chance in another.
"""

from __future__ import annotations

from itertools import pairwise
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from k2 import limits
from k2.clock import Clock
from k2.errors import Invalid, NotFound, Reason, Unavailable
from k2.feed.venues.binance import Printed, label_for, trade_of
from k2.feed.venues.history import Fetch, HistoryPage, RateLimited, Reply
from k2.feed.venues.rate_limit import WeightBudget
from k2.feed.venues.source import Malformed, Void
from k2.market.events import Trade
from k2.market.instrument import Instrument

WEIGHT = 25
_PATH = "/api/v3/historicalTrades"
_REST_OF = {
    "stream.binance.com": "https://api.binance.com",
    "data-stream.binance.vision": "https://data-api.binance.vision",
}
_UNKNOWN_SYMBOL = -1121
_LATER = frozenset({418, 429})
_BUSY_S = 60.0  # when a venue says "later" and not when: the next minute
_SHOWN = 200  # characters of an answer in a message of ours


class _Row(msgspec.Struct, gc=False):
    id: int
    price: str
    qty: str
    time: int
    isBuyerMaker: bool


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""


_decode_rows = msgspec.json.Decoder(list[_Row]).decode
_decode_error = msgspec.json.Decoder(_Error).decode


class BinanceHistory:
    """A `History` of Binance's spot market, or of another that speaks its protocol.

    Args:
        url: REST base, such as `https://api.binance.com`; see `rest_url`.
        get: asks; usually `history.HttpFetch`.
        budget: charged for each request, and corrected by the venue's own count.
        clock: receive times.
    """

    page_max = limits.HISTORICAL_TRADES_MAX
    weight = WEIGHT

    def __init__(self, url: str, get: Fetch, budget: WeightBudget, clock: Clock) -> None:
        self._url = url.rstrip("/") + _PATH
        self._budget = budget
        self._clock = clock
        self._get = get

    def trades(self, instrument: Instrument, from_id: int, count: int) -> HistoryPage:
        """Ask for trades from an id on; an answer with other ids is not believed."""
        limit = min(max(count, 1), self.page_max)
        rows = self._ask(instrument, f"&fromId={from_id}&limit={limit}")
        ids = [row.id for row in rows]
        ascending = all(one < other for one, other in pairwise(ids))
        if not ascending or len(ids) > limit or (ids and ids[0] < from_id):
            raise _unbelievable(f"{len(ids)} ids that are not those from {from_id} on")
        return self._answer(instrument, rows, from_id + limit)

    def newest(self, instrument: Instrument) -> HistoryPage:
        """Ask for the newest trade."""
        rows = self._ask(instrument, "&limit=1")
        if len(rows) > 1:
            raise _unbelievable(f"{len(rows)} trades where one was asked for")
        return self._answer(instrument, rows, limits.TRADE_ID_MAX + 1)

    def _ask(self, instrument: Instrument, more: str) -> list[_Row]:
        self._budget.spend(self.weight, self._clock.now_us())
        url = f"{self._url}?symbol={quote(instrument.symbol, safe='')}{more}"
        reply = self._get(url, {"X-MBX-TIME-UNIT": "MICROSECOND"})
        now_us = self._clock.now_us()
        used = reply.headers.get("x-mbx-used-weight-1m", "")
        if used.isascii() and used.isdigit() and len(used) < 10:
            self._budget.correct(int(used), now_us)
        if reply.status in _LATER:
            wait_s = _retry_after_s(reply)
            self._budget.block(wait_s, now_us)
            raise RateLimited(
                Reason.VENUE_UNAVAILABLE,
                f"the venue answers {reply.status}: ask again in {wait_s:.0f} s",
                retry_after_s=wait_s,
            )
        if reply.status != 200:
            raise _refused(instrument, reply)
        return _rows(reply.body)

    def _answer(self, instrument: Instrument, rows: list[_Row], end_id: int) -> HistoryPage:
        label = label_for(instrument, "backfill")
        now_us = self._clock.now_us()
        trades: list[Trade] = []
        malformed: dict[int, Malformed] = {}
        void: set[int] = set()
        for row in rows:
            if row.id >= end_id:  # beyond what was asked for: it only says how far the venue is
                break
            printed = Printed(label.symbol, row.id, row.price, row.qty, row.time, row.isBuyerMaker)
            made = trade_of(label, printed, now_us, {})
            if isinstance(made, Malformed):
                malformed[row.id] = made
            elif isinstance(made, Void):
                void.add(row.id)
            else:
                trades += made
        newest_id = rows[-1].id if rows else None
        return HistoryPage(tuple(trades), malformed, newest_id, frozenset(void))


def rest_url(venue_url: str) -> str:
    """Return the REST base that belongs to a WebSocket base.

    Raises:
        Invalid: BAD_SETTING when the address is none of a WebSocket.
    """
    parts = urlsplit(venue_url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise Invalid(Reason.BAD_SETTING, f"feed.venue_url {venue_url!r} is not ws:// or wss://")
    return _REST_OF.get(parts.hostname) or urlunsplit((scheme, parts.netloc, "", "", ""))


def _rows(body: bytes) -> list[_Row]:
    if len(body) > limits.FEED_REST_BYTES_MAX:
        raise _unbelievable(f"more than {limits.FEED_REST_BYTES_MAX} bytes")
    try:
        rows = _decode_rows(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unbelievable(str(error)) from error
    if any(not 0 <= row.id <= limits.TRADE_ID_MAX for row in rows):
        raise _unbelievable("an id out of range")
    return rows


def _refused(instrument: Instrument, reply: Reply) -> NotFound | Unavailable:
    try:
        error = _decode_error(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        error = _Error()
    said = f"{reply.status} {error.code} {error.msg[:_SHOWN]}".strip()
    if reply.status == 400 and error.code == _UNKNOWN_SYMBOL:
        return NotFound(
            Reason.UNKNOWN_SYMBOL, f"the venue does not know {instrument.symbol}: {said}"
        )
    return Unavailable(
        Reason.VENUE_UNAVAILABLE,
        f"the venue answers {said}",
        retry_after_s=limits.FEED_REST_BACKOFF_MIN_S,
    )


def _retry_after_s(reply: Reply) -> float:
    text = reply.headers.get("retry-after", "")
    known = text.isascii() and text.isdigit() and len(text) < 10
    return min(float(text), limits.FEED_REST_BLOCKED_MAX_S) if known else _BUSY_S


def _unbelievable(what: str) -> Unavailable:
    return Unavailable(
        Reason.VENUE_UNAVAILABLE,
        f"the venue's answer cannot be believed: {what}",
        retry_after_s=limits.FEED_REST_BACKOFF_MIN_S,
    )
