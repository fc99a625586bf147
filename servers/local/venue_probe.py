"""Whether a live venue can be reached from here: by subscribing as the feed does."""

from __future__ import annotations

import logging

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from k2 import limits
from k2.errors import Reason, Unavailable
from k2.feed.connection.socket import NO_SOCKS, is_loopback

_log = logging.getLogger(__name__)


def answers(venue_url: str, timeout_s: float = limits.LIVE_PROBE_S) -> bool:
    """Whether the venue at `venue_url` (wss://host:port) accepts a subscription within the time."""
    return refusal(venue_url, timeout_s) is None


def refusal(venue_url: str, timeout_s: float = limits.LIVE_PROBE_S) -> Unavailable | None:
    """Why it does not; None when it does."""
    url = f"{venue_url.rstrip('/')}/stream?streams=btcusdt@trade"
    try:
        with connect(
            url,
            open_timeout=timeout_s,
            close_timeout=1.0,
            max_size=limits.MIB,
            proxy=None if is_loopback(url) else True,
        ):
            return None
    except ImportError:  # what the library lacks for the proxy that is set
        why = NO_SOCKS
    except (OSError, EOFError, ValueError, WebSocketException) as error:
        why = str(error) or type(error).__name__
    _log.info("the live venue cannot be reached", extra={"url": url, "error": why})
    return Unavailable(Reason.VENUE_UNAVAILABLE, f"{venue_url} cannot be reached: {why}")
