"""The ledger of gaps as a server answers from it, and requests to backfill missing ids."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from k2 import limits
from k2.clock import Clock
from k2.errors import Invalid, NotFound, Overloaded, Reason
from k2.feed.gaps.backfill_request import FillRequest, checked
from k2.market.instrument import Instrument
from k2.market.ledger import GapEvent, Ledger
from k2.tape.ports import DocumentTopic, GapEventLog
from servers.heartbeat import Beat


class GapView:
    """The present state of the ledger. Thread-safe.

    Args:
        log: of gaps; used by this view alone.
    """

    def __init__(self, log: GapEventLog) -> None:
        self._log = log
        self._ledger = Ledger()
        self._lock = threading.Lock()

    def gaps(self) -> list[GapEvent]:
        """Return every interval, by instrument and id, as recorded before the call.

        Raises:
            Unavailable: TAPE_UNAVAILABLE, REGISTRY_UNAVAILABLE.
        """
        with self._lock:
            for event in self._log.advance():
                self._ledger.apply(event)
            return list(self._ledger.gaps())


class BackfillEstimate(NamedTuple):
    """The cost of a backfill request: calls to the venue, and the least time until it is done."""

    request: FillRequest
    requests: int
    eta_s: float


class BackfillRequests:
    """Takes requests to fetch trade ids.

    Args:
        requests: where they wait for a feed.
        clock: wall time of requests.
    """

    def __init__(self, requests: DocumentTopic, clock: Clock) -> None:
        self._requests = requests
        self._clock = clock

    def ask(
        self, feeds: Iterable[Beat], exchange: str, symbol: str, ids: tuple[int, int]
    ) -> BackfillEstimate:
        """Record a request for a feed to take up.

        Args:
            feeds: heartbeats of all feeds.
            exchange: of the symbol; empty: of the feed that listens to it.
            symbol: of the ids.
            ids: the first and the last to fetch, both inclusive.

        Raises:
            Invalid: BAD_REQUEST, RANGE_REVERSED, LIMIT_OUT_OF_BOUNDS.
            NotFound: UNKNOWN_SYMBOL when no feed listens to it.
            Overloaded: QUEUE_FULL when too many requests wait.
            Unavailable: TAPE_UNAVAILABLE.
        """
        feed = _feed_of(feeds, exchange, symbol)
        instrument = Instrument(str(feed.counters["exchange"]), symbol)
        request = checked(FillRequest(instrument, *ids, self._clock.now_us()))
        newest = feed.counters["symbols"][symbol].get("acknowledged_trade_id")
        if newest is not None and request.last_id > newest:
            raise Invalid(
                Reason.BAD_REQUEST,
                f"{symbol} was only heard up to id {newest}: later ids are not missing",
                metadata={"field": "last_trade_id"},
            )
        waiting = self._requests.current()
        if request.key not in waiting and len(waiting) >= limits.BACKFILL_REQUESTS_MAX:
            raise Overloaded(
                Reason.QUEUE_FULL,
                f"{len(waiting)} requests wait for a feed to take them up",
                retry_after_s=limits.HEARTBEAT_STALE_S,
            )
        self._requests.put(request.key, request.document(), limits.BOARD_WAIT_S)
        return _plan(request, feed.counters.get("backfill") or {})


def _feed_of(feeds: Iterable[Beat], exchange: str, symbol: str) -> Beat:
    """Return the feed that listens to a symbol; any of several redundant ones."""
    if not symbol:
        raise Invalid(Reason.BAD_REQUEST, "say which symbol to fetch", metadata={"field": "symbol"})
    listening = {
        str(beat.counters.get("exchange")): beat
        for beat in feeds
        if symbol in (beat.counters.get("symbols") or {})
        and exchange in ("", beat.counters.get("exchange"))
    }
    if not listening:
        raise NotFound(
            Reason.UNKNOWN_SYMBOL,
            f"no feed listens to {symbol}" + (f" of {exchange}" if exchange else ""),
            metadata={"symbol": symbol},
        )
    if len(listening) > 1:
        raise Invalid(
            Reason.BAD_REQUEST,
            f"{symbol} is listened to at {', '.join(sorted(listening))}: say which exchange",
            metadata={"field": "exchange"},
        )
    return next(iter(listening.values()))


def _plan(request: FillRequest, counters: Mapping[str, Any]) -> BackfillEstimate:
    """Estimate the cost of a request from the counters of its feed."""
    page = max(1, int(counters.get("ids_per_request", limits.HISTORICAL_TRADES_MAX)))
    requests = -(-request.ids // page)
    weight = int(counters.get("weight_per_request", 0))
    a_minute = max(1, int(counters.get("weight_per_minute", 1)))
    before_s = float(counters.get("eta_s", 0.0))
    return BackfillEstimate(request, requests, before_s + 60.0 * requests * weight / a_minute)
