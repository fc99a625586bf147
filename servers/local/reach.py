"""Whether a live venue can be reached from here: by subscribing as the feed does."""

from __future__ import annotations

import logging

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from k2 import limits

_log = logging.getLogger(__name__)


def answers(venue_url: str, timeout_s: float = limits.LIVE_PROBE_S) -> bool:
    """Whether the venue at `venue_url` (wss://host:port) accepts a subscription within the time."""
    url = f"{venue_url.rstrip('/')}/stream?streams=btcusdt@trade"
    try:
        with connect(url, open_timeout=timeout_s, close_timeout=1.0, max_size=limits.MIB):
            return True
    except (OSError, EOFError, ValueError, WebSocketException) as error:
        _log.info("the live venue cannot be reached", extra={"url": url, "error": str(error)})
        return False
