"""Asks servers that have no heartbeat whether they answer."""

from __future__ import annotations

import http.client
import socket
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
