"""A venue's past trades by id: the other half of a `Source`.

An answer is as untrusted as a frame: ids that were not asked for are ignored.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from k2 import limits
from k2.clock import Clock
from k2.errors import Reason, Unavailable
from k2.feed.connection.socket import is_loopback
from k2.feed.venues.source import Malformed
from k2.market.events import Trade
from k2.market.instrument import Instrument


@dataclass(frozen=True)
class HistoryPage:
    """One answer of a venue.

    Attributes:
        trades: by id, ascending, each once.
        malformed: ids that the answer has, with what is wrong with each.
        void: ids that the answer has without a trade.
        newest_id: the highest id it names at all; None when it names none.
    """

    trades: tuple[Trade, ...]
    malformed: Mapping[int, Malformed]
    newest_id: int | None
    void: frozenset[int] = frozenset()


class History(Protocol):
    """The past of one venue. Calls block; one thread asks."""

    @property
    def page_max(self) -> int:
        """Trades of one answer, at most."""

    @property
    def weight(self) -> int:
        """Weight of one request in the venue's budget."""

    def trades(self, instrument: Instrument, from_id: int, count: int) -> HistoryPage:
        """Ask for trades from an id on.

        Args:
            instrument: of the trades.
            from_id: the first id wanted.
            count: how many ids from there on are wanted, at most `page_max`.

        Raises:
            NotFound: UNKNOWN_SYMBOL: the venue does not know the instrument.
            Unavailable: VENUE_UNAVAILABLE: no answer, or none that can be believed; `RateLimited`
                when the venue says to ask later.
        """

    def newest(self, instrument: Instrument) -> HistoryPage:
        """Ask for the newest trade; raises as `trades` does."""


class RateLimited(Unavailable):
    """The venue answers, and asks to be left alone for `retry_after_s`."""


class Reply(NamedTuple):
    """An HTTP answer.

    Attributes:
        status: of HTTP.
        headers: by name in lower case.
        body: at most `limits.FEED_REST_BYTES_MAX` bytes and one.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


Fetch = Callable[[str, Mapping[str, str]], Reply]


class HttpFetch:
    """GETs addresses; any status is an answer, at most `limits.FEED_REST_S` late.

    Args:
        clock: monotonic time; a venue may send its answer byte by byte.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __call__(self, url: str, headers: Mapping[str, str]) -> Reply:
        """Ask.

        Raises:
            Unavailable: VENUE_UNAVAILABLE when nothing answers in time.
        """
        deadline_s = self._clock.monotonic_s() + limits.FEED_REST_S
        try:
            with _open(urllib.request.Request(url, headers=dict(headers))) as response:
                lowered = {name.lower(): value for name, value in response.headers.items()}
                return Reply(response.status or 0, lowered, self._body(response, deadline_s))
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unavailable(
                Reason.VENUE_UNAVAILABLE,
                f"{url.partition('?')[0]} cannot be asked: {error}",
                retry_after_s=limits.FEED_REST_BACKOFF_MIN_S,
            ) from error

    def _body(self, response: _Response, deadline_s: float) -> bytes:
        body = b""
        while len(body) <= limits.FEED_REST_BYTES_MAX:
            part = response.read1(limits.FEED_REST_BYTES_MAX + 1 - len(body))
            if not part:
                return body
            body += part
            if self._clock.monotonic_s() > deadline_s:
                raise TimeoutError("the answer does not end")
        return body


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_Response = http.client.HTTPResponse | urllib.error.HTTPError


def _open(request: urllib.request.Request) -> _Response:
    try:
        ask = _DIRECT.open if is_loopback(request.full_url) else urllib.request.urlopen
        answer: http.client.HTTPResponse = ask(request, timeout=limits.FEED_REST_S)
    except urllib.error.HTTPError as error:
        return error
    return answer
