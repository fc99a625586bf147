"""Converts a request for trades from the caller's types to the message of the wire.

It refuses only what has no form on the wire. The platform judges the rest: whether a symbol is
known, a range is reversed or a limit is too high.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration as WireDuration
from google.protobuf.timestamp_pb2 import Timestamp

from k2.v1 import market_pb2, query_service_pb2
from k2client.convert import timestamp
from k2client.errors import Invalid, NotFound
from k2client.times import Duration, Time, duration_us, plain_of, to_us, whole

_CONSISTENCIES = {
    "union": query_service_pb2.CONSISTENCY_UNION,
    "committed": query_service_pb2.CONSISTENCY_COMMITTED,
    "as_of": query_service_pb2.CONSISTENCY_AS_OF,
}
_ORDERS = {"asc": query_service_pb2.ORDER_ASC, "desc": query_service_pb2.ORDER_DESC}
_TOKEN = re.compile(r"k2t\d+\.")
_SNAPSHOT = re.compile(r"\d{1,7}|\d{9,99}", re.ASCII)
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_SECONDS_MIN, _SECONDS_MAX = -62_135_596_800, 253_402_300_799  # years 1 to 9999, as the wire has it

V = TypeVar("V")
Names = str | Iterable[str]


@dataclass(frozen=True)
class TradesQuestion:
    """Trades of instruments in a half-open range of event times.

    Attributes:
        symbols: one or several, as the venue prints them, in any iterable; None: all.
        exchanges: the exchanges to read; None: every exchange that knows the symbol.
        start, end: the first time inside and the first outside; None: unbounded.
        last: the length of a range that ends now, such as `15m`, instead of both.
        limit: the largest number of rows, the first in `order`.
        order: `asc` (oldest first) or `desc`.
        columns: the columns to return, in this order; None: all.
        consistency: `union` (lake and tail), `committed` (lake only); None: by `as_of`.
        as_of: a snapshot's id (an int, or only digits), a time, or the read token of an answer.
        allow_partial: whether to answer although a side is missing.
    """

    symbols: Names | None
    exchanges: Names | None = None
    start: Time | None = None
    end: Time | None = None
    last: Duration | None = None
    limit: int | None = None
    order: str = "asc"
    columns: Names | None = None
    consistency: str | None = None
    as_of: Time | None = None
    allow_partial: bool = False

    def __post_init__(self) -> None:
        for field in ("symbols", "exchanges", "columns"):
            given = getattr(self, field)
            if given is not None:  # an iterator yields once, a question may be asked twice
                object.__setattr__(self, field, names_of(field, given))

    def request(self) -> query_service_pb2.PlanQueryRequest:
        """Convert the question to its message.

        Raises:
            Invalid: the question has no form on the wire.
        """
        trades = query_service_pb2.TradesRequest(
            symbols=self.symbols or (),
            exchanges=self.exchanges or (),
            columns=self.columns or (),
            order=choice("order", self.order, _ORDERS),
            allow_partial=bool(self.allow_partial),
        )
        if self.consistency is not None:
            trades.consistency = choice("consistency", self.consistency, _CONSISTENCIES)
        if self.limit is not None:
            trades.limit = _int64(self.limit)
        self._set_range(trades)
        self._set_as_of(trades)
        return query_service_pb2.PlanQueryRequest(trades=trades)

    def _set_range(self, trades: query_service_pb2.TradesRequest) -> None:
        if self.last is not None:
            trades.last.CopyFrom(wire_duration(duration_us(self.last)))
        if self.start is not None or self.end is not None:
            trades.range.CopyFrom(market_pb2.TimeRange())
        if self.start is not None:
            trades.range.start_time.CopyFrom(moment(self.start))
        if self.end is not None:
            trades.range.end_time.CopyFrom(moment(self.end))

    def _set_as_of(self, trades: query_service_pb2.TradesRequest) -> None:
        if self.as_of is None:
            return
        if is_token(self.as_of):
            trades.as_of_token = str(self.as_of).strip()
        elif (snapshot_id := snapshot_id_of(self.as_of)) is not None:
            trades.as_of_snapshot_id = snapshot_id
        else:
            trades.as_of_time.CopyFrom(moment(self.as_of))


def is_token(as_of: Time) -> bool:
    """Return whether `as_of` is a read token of any version: `k2t1.` or later."""
    return isinstance(as_of, str) and _TOKEN.match(as_of.strip()) is not None


def snapshot_id_of(as_of: Time) -> int | None:
    """Return the snapshot id in `as_of`, an int or a text of digits alone; None for anything else.

    A text of eight digits is a date.

    Raises:
        NotFound: UNKNOWN_SNAPSHOT for a number that no snapshot can have.
    """
    text = as_of.strip() if isinstance(as_of, str) else ""
    number = int(text) if _SNAPSHOT.fullmatch(text) else whole(plain_of(as_of))
    if number is None:
        return None
    if not 0 <= number <= _INT64_MAX:
        raise NotFound("UNKNOWN_SNAPSHOT", f"{number} cannot be a snapshot's id")
    return number


def wire_duration(micros: int) -> WireDuration:
    """Convert microseconds to a Duration."""
    return WireDuration(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def moment(value: Time) -> Timestamp:
    """Convert a time to a Timestamp.

    Raises:
        Invalid: BAD_REQUEST when it is not a time, or lies outside the years 1 to 9999.
    """
    micros = to_us(value)
    if not _SECONDS_MIN <= micros // 1_000_000 <= _SECONDS_MAX:
        raise Invalid("BAD_REQUEST", f"{value} lies beyond the years 1 to 9999")
    return timestamp(micros)


def names_of(what: str, given: Names) -> tuple[str, ...]:
    """Return the distinct names of any iterable of texts, or of one text, in order.

    Raises:
        Invalid: BAD_REQUEST when an item is not a name, or there is none: that would mean all.
    """
    try:
        items = [given] if isinstance(given, str) else [plain_of(item) for item in given]
    except TypeError as error:
        raise Invalid("BAD_REQUEST", f"{what}: {given!r} is not a name or several") from error
    for item in items:
        if not (isinstance(item, str) and item and item.isprintable()):
            raise Invalid("BAD_REQUEST", f"{what}: {item!r} is not a name")
    if not items:
        raise Invalid("BAD_REQUEST", f"{what}: there is no name in it; None asks for all")
    return tuple(dict.fromkeys(map(str, items)))


def name_of(what: str, given: str | None) -> str:
    """Return one name; the empty text for None.

    Raises:
        Invalid: BAD_REQUEST when the value is anything else, such as several names.
    """
    if given is None or given == "":
        return ""
    names = names_of(what, given) if isinstance(given, str) else ()
    if not names:
        raise Invalid("BAD_REQUEST", f"{what}: {given!r} is not one name")
    return names[0]


def choice(what: str, given: str, known: Mapping[str, V]) -> V:
    """Return the value of a name, in any case.

    Raises:
        Invalid: BAD_REQUEST when there is no such name.
    """
    if not isinstance(given, str) or given.lower() not in known:
        raise Invalid("BAD_REQUEST", f"{what}: {given!r} is not one of {', '.join(known)}")
    return known[given.lower()]


def _int64(limit: int) -> int:
    number = whole(plain_of(limit))
    if number is None:
        raise Invalid("LIMIT_OUT_OF_BOUNDS", f"limit: {limit!r} is not a whole number")
    if not _INT64_MIN <= number <= _INT64_MAX:
        raise Invalid("LIMIT_OUT_OF_BOUNDS", f"limit: {number} is out of bounds")
    return number
