"""A first question to a stack that has just come up: the proof that all of it works together."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

import k2client
from k2cli import arrow_text, console, documents, options, output
from k2client import records
from k2client.errors import K2Error

_WAIT_S = 6.0
_POLL_S = 0.25
_ROWS = 3
_COLUMNS = ("event_time", "symbol", "trade_id", "side", "price", "quantity", "source")


@dataclass(frozen=True)
class FirstAnswer:
    """The newest trades of a symbol.

    Attributes:
        symbol: which.
        rows: the trades, newest first.
        provenance: where they come from.
        took_ms: how long the question took, rows included.
    """

    symbol: str
    rows: pa.Table
    provenance: records.Provenance
    took_ms: float

    def text(self, page: console.Page = console.FILE) -> str:
        """The rows as a table."""
        written = io.BytesIO()
        output.write("table", self.rows.schema, self.rows.to_batches(), written, page)
        return written.getvalue().decode(page.encoding).rstrip("\n")

    def document(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "symbol": self.symbol,
            "rows": [
                dict(zip(self.rows.schema.names, row, strict=True))
                for batch in self.rows.to_batches()
                for row in zip(*(arrow_text.json_values(column) for column in batch), strict=True)
            ],
            "provenance": documents.document(self.provenance),
            "took_ms": round(self.took_ms, 3),
        }


def first_answer(address: str, symbol: str, stopped: Callable[[], bool]) -> FirstAnswer | None:
    """Ask until the first trades are there; None when none came in time.

    Args:
        address: of the control server.
        symbol: what to ask for.
        stopped: whether nobody waits for the answer any more.
    """
    end = time.monotonic() + _WAIT_S
    with options.connect_at(address, deadline_s=_WAIT_S) as k2:
        while time.monotonic() < end and not stopped():
            answer = _ask(k2, symbol)
            if answer is not None:
                return answer
            time.sleep(_POLL_S)
    return None


def _ask(k2: k2client.Client, symbol: str) -> FirstAnswer | None:
    began = time.monotonic()
    try:
        answer = k2.trades(symbol, limit=_ROWS, order="desc", columns=_COLUMNS)
        rows = answer.to_arrow()
    except K2Error:
        return None  # a symbol is not known before its first trade
    took_ms = (time.monotonic() - began) * 1000
    return FirstAnswer(symbol, rows, answer.provenance, took_ms) if rows.num_rows else None
