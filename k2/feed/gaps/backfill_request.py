"""A request to fetch ids again, which waits on a compacted topic until a feed takes it.

The feed writes the request to the ledger, as an open gap like any other that survives restarts, and
removes it from the topic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from k2 import limits
from k2.errors import Invalid, Reason
from k2.market.events import EVENT_TIME_MIN_US
from k2.market.instrument import Instrument


class FillRequest(NamedTuple):
    """Ids to fetch, both ends inclusive; `requested_us` is wall microseconds."""

    instrument: Instrument
    first_id: int
    last_id: int
    requested_us: int

    @property
    def key(self) -> str:
        """Of its document; the same request twice is one."""
        return f"{self.instrument.key}/{self.first_id}-{self.last_id}"

    @property
    def ids(self) -> int:
        """How many ids it names."""
        return self.last_id - self.first_id + 1

    def document(self) -> dict[str, Any]:
        """Return the document that `read_request` reads."""
        return {
            "exchange": self.instrument.exchange,
            "symbol": self.instrument.symbol,
            "first_id": self.first_id,
            "last_id": self.last_id,
            "requested_us": self.requested_us,
        }


def checked(request: FillRequest) -> FillRequest:
    """Return the request if its range is valid.

    Raises:
        Invalid: RANGE_REVERSED, LIMIT_OUT_OF_BOUNDS.
    """
    if not 0 <= request.first_id <= request.last_id <= limits.TRADE_ID_MAX:
        raise Invalid(
            Reason.RANGE_REVERSED,
            f"ids {request.first_id} to {request.last_id} are not a range of trade ids",
            metadata={"field": "last_trade_id"},
        )
    if request.ids > limits.BACKFILL_IDS_MAX:
        raise Invalid(
            Reason.LIMIT_OUT_OF_BOUNDS,
            f"{request.ids:,} ids; at most {limits.BACKFILL_IDS_MAX:,} in one request",
            metadata={"field": "last_trade_id"},
        )
    return request


def read_request(document: Mapping[str, Any]) -> FillRequest:
    """Read a request from its document.

    Raises:
        Invalid: BAD_REQUEST or as `checked` says: it is none.
    """
    names = [document.get(name) for name in ("exchange", "symbol")]
    numbers = [document.get(name) for name in ("first_id", "last_id", "requested_us")]
    if not all(isinstance(name, str) and name for name in names) or not all(
        type(number) is int for number in numbers
    ):
        raise Invalid(Reason.BAD_REQUEST, f"{str(document)[:200]} is not a request to backfill")
    first, last, at_us = (int(number) for number in numbers if number is not None)
    if not EVENT_TIME_MIN_US <= at_us <= limits.TRADE_ID_MAX:
        raise Invalid(Reason.BAD_REQUEST, f"a request of {at_us} us since 1970")
    return checked(FillRequest(Instrument(str(names[0]), str(names[1])), first, last, at_us))
