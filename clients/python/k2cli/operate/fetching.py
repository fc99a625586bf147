"""Gets what an address of a stack serves over HTTP."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Final

_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class NotServed(Exception):
    """An address did not answer as asked; the text says what it did."""


def fetch(url: str, timeout_s: float, headers: dict[str, str] | None = None) -> str:
    """Get a page, past any proxy.

    Raises:
        NotServed: nothing answers, or with an error.
    """
    request = urllib.request.Request(url, headers=headers or {})
    try:
        with _DIRECT.open(request, timeout=timeout_s) as answer:
            return str(answer.read().decode(errors="replace"))
    except urllib.error.HTTPError as error:
        raise NotServed(f"{url} answered {error.code}") from error
    except (OSError, ValueError) as error:
        raise NotServed(f"{url} does not answer: {getattr(error, 'reason', error)}") from error
