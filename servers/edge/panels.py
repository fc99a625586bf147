"""Asks the Prometheus of the stack for the panels of the board System Health, for the page.

Only the queries of the committed board are asked, by their place on it; the page brings no query.
"""

from __future__ import annotations

import http.client
import json
import urllib.parse
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any, Final

from k2 import limits
from k2client.errors import NotFound, Unavailable

FILE: Final = Path(__file__).parent / "assets/page/panels.json"
_RATE: Final = "$__rate_interval"
_RATE_S: Final = 60
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@cache
def panels() -> list[dict[str, Any]]:
    """Read the panels: title, kind, unit and queries; none where no page is shipped."""
    found: list[dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else []
    return found


def query_of(panel: int, target: int) -> str:
    """Return a query in PromQL.

    Raises:
        NotFound: OUT_OF_RANGE when there is no such panel or query.
    """
    try:
        text: str = panels()[panel]["targets"][target]["expr"]
    except IndexError:
        raise NotFound("OUT_OF_RANGE", f"the board has no query {target} of {panel}") from None
    return text.replace(_RATE, f"{_RATE_S}s")


def ranged(url: str, query: str, end_s: float, last_s: int, step_s: int) -> list[dict[str, Any]]:
    """Ask Prometheus for the series of a query over a range that ends at `end_s`, Unix seconds.

    Raises:
        Unavailable: PEER_UNAVAILABLE.
    """
    asked = {"query": query, "start": end_s - last_s, "end": end_s, "step": step_s}
    path = f"{url}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
    try:
        with _DIRECT.open(path, timeout=limits.EDGE_STATUS_S) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        raise Unavailable("PEER_UNAVAILABLE", f"Prometheus does not answer: {error}") from error
    return found
