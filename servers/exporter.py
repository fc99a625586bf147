"""Serves the metrics of a process over HTTP, for Prometheus and for people.

`GET /metrics` answers in the text format, or as OpenMetrics, with exemplars, where the Accept
header asks for that. It comes from this machine or a trusted network, and names this machine as its
host, so that a page in a browser cannot read it by a name of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from servers.network import (
    Networks,
    is_trusted_host,
    names_this_machine,
    reached_at,
    split_address,
)

PATH: Final = "/metrics"
_IDLE_S: Final = 10.0  # for a request that does not arrive

_log = logging.getLogger(__name__)


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class Exporter:
    """Serves what some collectors collect, from its creation until `close`.

    Args:
        listen: `host:port` of this machine, or any while networks are trusted; a port that is
            taken, or 0, takes a free one.
        collectors: read at each scrape, in a thread of the scrape.
        trusted: the networks of peers that are taken beside this machine's.

    Attributes:
        address: `host:port` where it listens.

    Raises:
        Invalid: BAD_SETTING when `listen` is not such an address.
    """

    def __init__(
        self, listen: str, collectors: Iterable[Collector], trusted: Networks = ()
    ) -> None:
        registry = CollectorRegistry(auto_describe=False)
        for collector in collectors:
            registry.register(collector)
        host, port = split_address(listen, trusted)
        self._server = _listening(host, port, _handler(registry, trusted))
        self.address = f"{reached_at(host)}:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="exporter", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _listening(host: str, port: int, handler: Callable[..., BaseHTTPRequestHandler]) -> _Server:
    try:
        return _Server((host, port), handler)
    except OSError as error:
        if port == 0:
            raise
        _log.warning("metrics are served on another port: %s:%d: %s", host, port, error)
        return _Server((host, 0), handler)


def _handler(registry: CollectorRegistry, trusted: Networks) -> type[BaseHTTPRequestHandler]:
    """Make the class that answers requests of trusted peers from a registry."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _IDLE_S
        server_version = "k2"
        sys_version = ""

        def do_GET(self) -> None:
            """Answer a scrape."""
            if not self._is_trusted():
                self._answer(HTTPStatus.FORBIDDEN, b"this machine only\n")
            elif urlsplit(self.path).path != PATH:
                self._answer(HTTPStatus.NOT_FOUND, f"only {PATH} is here\n".encode())
            else:
                self._scraped()

        def _is_trusted(self) -> bool:
            named = names_this_machine(self.headers.get("Host", ""), trusted)
            return named and is_trusted_host(str(self.client_address[0]), trusted)

        def _scraped(self) -> None:
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            try:
                content = encode(registry)
            except Exception:  # noqa: BLE001 a broken gauge must not end the exporter
                _log.exception("metrics could not be collected")
                self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"see the log\n")
            else:
                self._answer(HTTPStatus.OK, content, kind)

        def _answer(
            self, status: HTTPStatus, content: bytes, kind: str = "text/plain; charset=utf-8"
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: ANN401 as http.server
            """Log no request."""

    return Handler
