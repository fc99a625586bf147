"""Asks servers that have no heartbeat whether they answer."""

from __future__ import annotations

import http
import http.client
import socket
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

_PROBE_S: Final = 0.5


def answers_tcp(addresses: str) -> bool:
    """Whether something listens at the first of `host:port,...`."""
    host, _, port = addresses.split(",", maxsplit=1)[0].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_PROBE_S):
            return True
    except (OSError, ValueError):
        return False


def answers_http(url: str) -> bool:
    """Whether the schema registry at `url` answers that it is well."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=_PROBE_S)
        try:
            connection.request("GET", f"{parts.path}/subjects")
            return connection.getresponse().status < 500
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException):
        return False


def answers_ok(
    port: int, path: str, timeout_s: float = _PROBE_S, headers: Mapping[str, str] | None = None
) -> bool:
    """Whether the HTTP server at a port of this machine answers a path with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers=headers or {})
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
