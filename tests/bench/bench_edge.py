"""The HTTP edge on a whole stack: three requests, a thousand times each, while trades arrive.

The practice venue prints 1,000 trades/s, and an hour of the asked symbol is in the lake, fetched by
backfill. Each request is made on a connection of its own, as curl does, and none is answered from a
cache: the newest rows are others each time. Beside them stands the same question by `k2client`, of
which the edge is one.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np

import k2client
from k2.clock import SystemClock
from tests.chaos.stack import Stack, until

CLOCK = SystemClock()
RATE = 1000
HISTORY_RATE = 130
HISTORY_IDS = 150_000  # an hour of the symbol at that rate
REQUESTS = 1000
SYMBOL = "BTCUSDT"
KEY = {"X-API-Key": "k2-dev-api-key-2026", "Accept": "*/*", "User-Agent": "curl"}
PATHS = {
    "snapshots": "/v1/snapshots",
    "newest trades": f"/v1/trades?symbol={SYMBOL}&limit=5",
    "recent trades": f"/v1/trades/recent?symbol={SYMBOL}&limit=10",
}


def measure() -> list[tuple[str, float, str]]:
    """Name, value, unit of each figure."""
    with tempfile.TemporaryDirectory() as folder:
        options = (Path(folder) / "data", "--venue", "synthetic", "--rate", str(HISTORY_RATE))
        with Stack(*options) as stack, k2client.connect(str(stack.addresses["control"])) as k2:
            minutes = _load(k2)
            _set_rate(stack, RATE)
            return [("HTTP: history of the symbol", minutes, "min"), *_measured(stack, k2)]


def _load(k2: k2client.Client) -> float:
    """Fetch the symbol's past; the minutes that it spans."""
    oldest = until(lambda: _ends(k2, "asc"), "there are trades")
    k2.backfill(SYMBOL, oldest[0] - HISTORY_IDS, oldest[0] - 1)

    def filled() -> bool:
        states = {gap.state for gap in k2.gaps(SYMBOL)}
        return states == {"FILLED"}

    until(filled, "the past is here", 600)
    (_, first_us), (_, last_us) = _ends(k2, "asc"), _ends(k2, "desc")
    return (last_us - first_us) / 60e6


def _ends(k2: k2client.Client, order: str) -> tuple[int, int] | None:
    """Id and time of the first trade in an order; None without one."""
    rows = k2.trades(SYMBOL, limit=1, order=order).to_arrow()
    if not rows.num_rows:
        return None
    row = rows.to_pylist()[0]
    return row["trade_id"], int(row["event_time"].timestamp() * 1e6)


def _set_rate(stack: Stack, rate: int) -> None:
    venue = str(stack.recorded()["venue"]["addresses"]["venue"])
    urllib.request.urlopen(f"http://{venue}/k2/rate?trades_per_s={rate}", timeout=10).close()
    CLOCK.sleep(5.0)


def _measured(stack: Stack, k2: k2client.Client) -> list[tuple[str, float, str]]:
    figures = []
    for name, path in PATHS.items():
        taken = _times(lambda path=path: _get(str(stack.addresses["edge"]), path))
        figures += _quantiles(f"HTTP: {name}", taken)
    asked = {"limit": 5, "order": "desc"}
    taken = _times(lambda: k2.trades(SYMBOL, **asked).to_arrow())
    return [*figures, *_quantiles("newest trades by k2client", taken)]


def _quantiles(name: str, taken: list[float]) -> list[tuple[str, float, str]]:
    return [(f"{name}, p{share}", float(np.percentile(taken, share)), "ms") for share in (50, 99)]


def _times(ask: Callable[[], object]) -> list[float]:
    """The milliseconds of each of many questions."""
    taken = []
    for _ in range(REQUESTS):
        started_s = CLOCK.monotonic_s()
        ask()
        taken.append((CLOCK.monotonic_s() - started_s) * 1e3)
    return taken


def _get(address: str, path: str) -> None:
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", path, headers=KEY)
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    assert json.loads(answer.read())["data"]
    connection.close()
