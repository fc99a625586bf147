"""Runs an ASGI application on one address, in a thread of its own, and drains it."""

from __future__ import annotations

import socket
import threading
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from k2 import limits
from k2.clock import Clock
from servers.network import Networks, port_in_use, reached_at, split_address

_START_S: Final = 10.0
_POLL_S: Final = 0.01
_BACKLOG: Final = 512
_KEEP_ALIVE_S: Final = 30


class HttpServer:
    """Listens from its creation, answers from `start` on.

    Args:
        listen: `host:port` of this machine, or any while networks are trusted; port 0 takes a free
            one.
        app: the application.
        clock: waits.
        trusted: networks whose peers are taken for this machine.
        protocol: reads requests, and refuses what is none.

    Attributes:
        address: where it listens.

    Raises:
        Invalid: BAD_SETTING when `listen` is not such an address.
        Unavailable: PORT_IN_USE when something else listens there.
    """

    def __init__(
        self,
        listen: str,
        app: ASGIApp,
        clock: Clock,
        trusted: Networks = (),
        protocol: type[H11Protocol] = H11Protocol,
    ) -> None:
        host, port = split_address(listen, trusted)
        self._socket = _bound(host.strip("[]"), port)
        self.address = f"{reached_at(host)}:{self._socket.getsockname()[1]}"
        self._clock = clock
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=protocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # the peer is who connects, not who a header names
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(limits.EDGE_DRAIN_S),
            h11_max_incomplete_event_size=limits.EDGE_REQUEST_BYTES_MAX,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether it answers."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Answer requests; returns once it does."""
        self._thread.start()
        end_s = self._clock.monotonic_s() + _START_S
        while not self._server.started and self.alive and self._clock.monotonic_s() < end_s:
            self._clock.sleep(_POLL_S)
        assert self._server.started, "the HTTP server did not start: see the log"

    def drain(self) -> None:
        """Take no new requests, let running ones finish for a while, and close."""
        self._server.should_exit = True
        if self.alive:
            self._thread.join(limits.DRAIN_S)
        self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise port_in_use(host, port) from None
    made.set_inheritable(True)
    return made
