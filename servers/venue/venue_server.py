"""The practice venue as a server: WebSocket and REST on one port, in one event loop.

The library `websockets` does handshake, pings (each 20 s; a connection without a pong for a minute
is cut) and closing; a path that is not a stream's is answered as plain HTTP before the handshake.
Frames of the market do not pass through it (see `hub`). A `MarketSource` sends what is due and
returns when to call it again; it never waits itself.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from k2 import limits
from k2.clock import Clock
from k2.errors import Invalid, Reason, Unavailable
from servers.network import Networks, is_trusted_host
from servers.venue.archive import Archive
from servers.venue.frames import framed
from servers.venue.hub import Hub, Listener
from servers.venue.rest import Answer, RateControl, Rest
from servers.venue.stream_list import is_stream_path, parse_path

_GOING_AWAY = 1001
_POLICY = 1008
_REQUEST_BYTES_MAX = 64 * limits.KIB

_log = logging.getLogger(__name__)


class MarketSource(Protocol):
    """Sends trades: a synthetic market or a recording."""

    def tick(self) -> float:
        """Send what is due; return the seconds until the next tick is due."""

    def finish(self) -> None:
        """Keep what the next run needs."""


@dataclass(frozen=True)
class VenueOptions:
    """The rules of the venue for its connections; times in seconds.

    Attributes:
        trusted: the networks of peers that are taken beside this machine's.
    """

    ping_s: float = limits.VENUE_PING_S
    pong_s: float = limits.VENUE_PONG_S
    cut_s: float = limits.VENUE_CUT_S
    close_s: float = 2.0
    trusted: Networks = ()


class Venue:
    """A venue that serves from `start` to `close`.

    Args:
        source: what is sent.
        archive: what REST tells of the past.
        hub: the connections, shared with the source.
        clock: the venue's time.
        terms: rules for connections.
        rate: of the market; None where it has none.
    """

    def __init__(
        self,
        *,
        source: MarketSource,
        archive: Archive,
        hub: Hub,
        clock: Clock,
        terms: VenueOptions | None = None,
        rate: RateControl | None = None,
    ) -> None:
        self._source = source
        self._hub = hub
        self._clock = clock
        self._terms = terms or VenueOptions()
        self._rest = Rest(
            archive=archive,
            hub=hub,
            clock=clock,
            status=lambda: dict(hub.counters()),
            shut_down=self._shut_down,
            rate=rate,
        )
        self._server: Server | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._woken: asyncio.Future[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port.

        Raises:
            Unavailable: PORT_IN_USE.
        """
        library_log = logging.getLogger("servers.venue.websockets")
        library_log.setLevel(logging.WARNING)  # below, it tells of every request
        try:
            self._server = await serve(
                self._attend,
                host,
                port,
                process_request=self._answer,
                compression=None,
                server_header="k2-practice-venue",
                ping_interval=self._terms.ping_s,
                ping_timeout=self._terms.pong_s,
                close_timeout=self._terms.close_s,
                max_size=_REQUEST_BYTES_MAX,
                logger=library_log,
            )
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise Unavailable(
                Reason.PORT_IN_USE,
                f"cannot listen on {host}:{port}: {error.strerror}",
                metadata={"port": str(port)},
            ) from error
        self._ticker = asyncio.create_task(self._tick())
        return int(next(iter(self._server.sockets)).getsockname()[1])

    async def failed(self) -> None:
        """Wait until the source fails; raises what it failed with."""
        assert self._ticker is not None, "start first"
        await asyncio.shield(self._ticker)

    async def close(self) -> None:
        """Announce the shutdown, keep what the next run needs, close all connections."""
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.wait([self._ticker])
        self._announce()
        self._source.finish()
        if self._server is not None:
            self._server.close(code=_GOING_AWAY, reason="shutting down")
            await self._server.wait_closed()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            pause_s = self._source.tick()
            self._woken = loop.create_future()
            loop.call_later(pause_s, _wake, self._woken)
            await self._woken

    async def _attend(self, connection: ServerConnection) -> None:
        """Attend to one connection from its handshake to its end."""
        assert connection.request is not None, "the library calls this after the handshake"
        listener = self._hub.add(connection, parse_path(connection.request.path))
        self._wake()
        try:
            async with asyncio.timeout(self._terms.cut_s):
                await self._obey(listener)
        except TimeoutError:
            _log.info("connection reached its age", extra={"connection": listener.number})
            await connection.close(_GOING_AWAY, "the life of a connection is over")
        except ConnectionClosed:
            pass
        finally:
            self._hub.remove(listener)

    async def _obey(self, listener: Listener) -> None:
        recent: deque[float] = deque(maxlen=limits.VENUE_REQUESTS_PER_S_MAX)
        async for message in listener.connection:
            now_s = self._clock.monotonic_s()
            if len(recent) == recent.maxlen and now_s - recent[0] < 1.0:
                await listener.connection.close(_POLICY, "Too many requests")
                return
            recent.append(now_s)
            listener.write(framed(listener.subscription.answer(message)))
            self._wake()

    async def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a plain HTTP request; None continues the handshake."""
        address = str((connection.remote_address or ("",))[0])
        if not is_trusted_host(address, self._terms.trusted):
            return _response(_error(HTTPStatus.FORBIDDEN, "not a trusted network"))
        if is_stream_path(request.path) and "Upgrade" in request.headers:
            return self._refusal(request.path)
        return _response(
            await self._rest.answer(request.path, dict(request.headers.raw_items()), address)
        )

    def _refusal(self, path: str) -> Response | None:
        try:
            parse_path(path)
        except Invalid as error:
            return _response(_error(HTTPStatus.BAD_REQUEST, error.message))
        if len(self._hub) >= limits.VENUE_CONNECTIONS_MAX:
            return _response(_error(HTTPStatus.TOO_MANY_REQUESTS, "too many connections"))
        return None

    def _wake(self) -> None:
        if self._woken is not None:
            _wake(self._woken)

    def _announce(self) -> None:
        event = framed(json.dumps({"e": "serverShutdown", "E": self._clock.now_us() // 1000}))
        for listener in self._hub:
            listener.write(event)

    def _shut_down(self, lead_s: float) -> None:
        """Announce a shutdown to all who are connected, and cut them `lead_s` later."""
        self._announce()
        for listener in self._hub:
            asyncio.get_running_loop().call_later(
                lead_s, listener.abort, "a shutdown was asked for"
            )


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _error(status: HTTPStatus, message: str) -> Answer:
    return Answer(status, json.dumps({"code": -1100, "msg": message}), {})


def _response(answer: Answer) -> Response:
    body = answer.body.encode()
    headers = Headers(
        {
            "Content-Type": "application/json;charset=UTF-8",
            "Content-Length": str(len(body)),
            "Connection": "close",
            **answer.headers,
        }
    )
    return Response(answer.status.value, answer.status.phrase, headers, body)
