"""The venue's REST answers: Binance's, as far as a feed needs them, and `/k2/...` for its user.

    GET  /api/v3/ping  /api/v3/time  /api/v3/exchangeInfo[?symbol=]
    GET  /api/v3/historicalTrades?symbol=&fromId=&limit=     (and /api/v3/trades?symbol=&limit=)
    GET  /k2/faults[?drop=0.01&disconnect=1...&clear]        show or change the faults
    GET  /k2/rate[?trades_per_s=5000&symbols=SOLUSDT]        show or change the rate of the market
    GET  /k2/shutdown[?lead_s=5]                             announce a shutdown, then cut all
    GET  /k2/status                                          counters

A change asks for POST by right, and POST is accepted; GET, too, so that a browser can do it. An
address has a budget of weight a minute, as at Binance, and sees in each answer what it has used.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl

from k2 import limits
from k2.clock import Clock
from k2.errors import Invalid, K2Error, NotFound, Reason
from k2.metrics import counter
from servers.venue.archive import Archive, as_json, exchange_info
from servers.venue.faults import parse_faults
from servers.venue.hub import Hub

_DEFAULT_TRADES = 500
_WEIGHTS = {
    "/api/v3/ping": 1,
    "/api/v3/time": 1,
    "/api/v3/exchangeInfo": 20,
    "/api/v3/trades": 25,
    "/api/v3/historicalTrades": 25,
}
_ADDRESSES_MAX = 1000
_REQUESTS = counter("k2_venue_rest_requests_total", "HTTP requests answered, refused ones too.")


class Answer(NamedTuple):
    """An HTTP answer."""

    status: HTTPStatus
    body: str
    headers: Mapping[str, str]


class _RequestError(Exception):
    """An answer of Binance's own form of error."""

    def __init__(self, status: HTTPStatus, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class RateControl(Protocol):
    """The rate of a market that has one."""

    @property
    def trades_per_s(self) -> float:
        """The rate now."""

    def change(self, trades_per_s: float, symbols: Sequence[str] = ()) -> None:
        """Trade at another rate from now on; without symbols, all of the market.

        Raises:
            K2Error: it cannot.
        """


class Rest:
    """Answers requests.

    Args:
        archive: the past.
        hub: the connections.
        clock: the venue's time.
        status: counters of the venue.
        shut_down: announces a shutdown and cuts all connections after so many seconds.
        rate: of the market; None where it has none.
    """

    def __init__(
        self,
        *,
        archive: Archive,
        hub: Hub,
        clock: Clock,
        status: Callable[[], dict[str, Any]],
        shut_down: Callable[[float], None],
        rate: RateControl | None = None,
    ) -> None:
        self._archive = archive
        self._hub = hub
        self._clock = clock
        self._status = status
        self._shut_down = shut_down
        self._rate = rate
        self._weights: dict[str, tuple[int, int]] = {}

    async def answer(self, path: str, headers: Mapping[str, str], address: str) -> Answer:
        """Answer a request; never raises.

        Args:
            path: with its query.
            headers: of the request.
            address: of the client; its weight is counted.
        """
        _REQUESTS.inc()
        where, _, asked = path.partition("?")
        query = dict(parse_qsl(asked, keep_blank_values=True))
        shown: dict[str, str] = {}
        try:
            self._charge(where, address, shown)
            body = await self._body(where, query, _in_microseconds(headers))
        except _RequestError as refused:
            error = {"code": refused.code, "msg": refused.message}
            return Answer(refused.status, json.dumps(error), shown)
        except Invalid as error:
            text = json.dumps({"code": -1100, "msg": error.message})
            return Answer(HTTPStatus.BAD_REQUEST, text, shown)
        except K2Error as error:
            text = json.dumps({"code": -1000, "msg": error.message})
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, text, shown)
        return Answer(HTTPStatus.OK, json.dumps(body, separators=(",", ":")), shown)

    async def _body(self, path: str, query: Mapping[str, str], microseconds: bool) -> object:
        if path == "/api/v3/ping":
            return {}
        if path == "/api/v3/time":
            return {"serverTime": self._time(microseconds)}
        if path == "/api/v3/exchangeInfo":
            return self._exchange_info(query)
        if path in ("/api/v3/historicalTrades", "/api/v3/trades"):
            return await self._trades(query, microseconds)
        if path == "/k2/faults":
            if query:
                self._hub.change_faults(parse_faults(self._hub.faults, query))
            return {"faults": asdict(self._hub.faults), "happened": self._hub.fault_counts()}
        if path == "/k2/rate":
            return self._change_rate(query)
        if path == "/k2/shutdown":
            lead_s = _whole(query, "lead_s") or 0
            self._shut_down(float(lead_s))
            return {"lead_s": lead_s}
        if path == "/k2/status":
            return self._status()
        raise _RequestError(HTTPStatus.NOT_FOUND, -1000, f"there is no {path} here")

    def _change_rate(self, query: Mapping[str, str]) -> dict[str, float]:
        if self._rate is None:
            raise Invalid(Reason.BAD_REQUEST, "a recording has no rate: set venue.speed instead")
        if query:
            symbols = [each.upper() for each in query.get("symbols", "").split(",") if each]
            self._rate.change(_decimal(query, "trades_per_s"), symbols)
        return {"trades_per_s": self._rate.trades_per_s}

    async def _trades(self, query: Mapping[str, str], microseconds: bool) -> list[dict[str, Any]]:
        symbol = query.get("symbol", "")
        if not symbol:
            raise _mandatory("symbol")
        limit = _whole(query, "limit")
        limit = _DEFAULT_TRADES if limit is None else limit
        if not 1 <= limit <= limits.HISTORICAL_TRADES_MAX:
            raise _RequestError(
                HTTPStatus.BAD_REQUEST, -1130, "Data sent for parameter 'limit' is not valid."
            )
        from_id = _whole(query, "fromId")
        try:
            found = await asyncio.to_thread(self._archive.trades, symbol, from_id, limit)
        except NotFound as error:
            raise _invalid_symbol() from error
        return [as_json(trade, microseconds=microseconds) for trade in found]

    def _exchange_info(self, query: Mapping[str, str]) -> dict[str, Any]:
        symbols = self._archive.symbols()
        if "symbol" in query:
            if query["symbol"] not in symbols:
                raise _invalid_symbol()
            symbols = {query["symbol"]: symbols[query["symbol"]]}
        limit = {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": limits.VENUE_WEIGHT_PER_MINUTE_MAX,
        }
        return {
            "timezone": "UTC",
            "serverTime": self._time(False),
            "rateLimits": [limit],
            "exchangeFilters": [],
            "symbols": [exchange_info(symbol, steps) for symbol, steps in symbols.items()],
        }

    def _time(self, microseconds: bool) -> int:
        return self._clock.now_us() if microseconds else self._clock.now_us() // 1000

    def _charge(self, path: str, address: str, shown: dict[str, str]) -> None:
        weight = _WEIGHTS.get(path, 0)
        minute = self._clock.now_us() // 60_000_000
        charged_minute, used = self._weights.get(address, (minute, 0))
        used = weight + (used if charged_minute == minute else 0)
        if len(self._weights) >= _ADDRESSES_MAX:
            self._weights.clear()
        self._weights[address] = (minute, used)
        shown["X-MBX-USED-WEIGHT-1M"] = str(used)
        if used > limits.VENUE_WEIGHT_PER_MINUTE_MAX:
            left_s = 60 - self._clock.now_us() // 1_000_000 % 60
            shown["Retry-After"] = str(left_s)
            raise _RequestError(
                HTTPStatus.TOO_MANY_REQUESTS, -1003, "Too much request weight used; wait."
            )


def _in_microseconds(headers: Mapping[str, str]) -> bool:
    units = [value for name, value in headers.items() if name.upper() == "X-MBX-TIME-UNIT"]
    return bool(units) and units[0].upper() == "MICROSECOND"


def _whole(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        message = (
            f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,18}}$'."
        )
        raise _RequestError(HTTPStatus.BAD_REQUEST, -1100, message)
    return int(text)


def _decimal(query: Mapping[str, str], name: str) -> float:
    text = query.get(name, "")
    if not text:
        raise _mandatory(name)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Invalid(Reason.BAD_REQUEST, f"{name} is a number, not {text[:40]!r}")
    return value


def _mandatory(name: str) -> _RequestError:
    message = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
    return _RequestError(HTTPStatus.BAD_REQUEST, -1102, message)


def _invalid_symbol() -> _RequestError:
    return _RequestError(HTTPStatus.BAD_REQUEST, -1121, "Invalid symbol.")
