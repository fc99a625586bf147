"""Defines a request and who makes it: one model for gRPC, Flight, HTTP, SQL and the command line.

`validated` checks a request once, and every component behind it relies on that. `last` is a range
that starts a duration before the moment of planning and has no end; the planner resolves it with
its own clock, so a ticket always carries fixed times.

A request is for trades, or for a shape of them: what it names are always the trades.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import pyarrow as pa

from k2 import limits
from k2.errors import Invalid, Reason
from k2.market.events import TIME_MAX_US
from k2.market.instrument import Instrument
from k2.market.offsets import ReadToken, TimeRange
from k2.query.shapes.shape import Reading, Shape
from k2.query.shapes.trades import TradeRows

TIME_MIN_US = -62_135_596_800_000_000  # 0001-01-01, the least a timestamp column can be asked for
ALWAYS = TimeRange()
TRADES = TradeRows()


class Order(StrEnum):
    """Direction of the canonical order (event_time, exchange, symbol, trade_id)."""

    ASC = "asc"
    DESC = "desc"


class Consistency(StrEnum):
    """Which rows an answer may hold.

    UNION: every row acknowledged on the tape when the query was planned. COMMITTED: the rows of the
    lake's newest snapshot. AS_OF: the rows of an older snapshot, or of an older answer.
    """

    UNION = "UNION"
    COMMITTED = "COMMITTED"
    AS_OF = "AS_OF"


class RequestClass(StrEnum):
    """How urgent a request is."""

    CRITICAL = "critical"
    INTERACTIVE = "interactive"
    BATCH = "batch"


@dataclass(frozen=True)
class Principal:
    """The identity that a request is made with.

    Attributes:
        id: its name; empty for an anonymous caller.
    """

    id: str = ""


ANONYMOUS = Principal()


@dataclass(frozen=True)
class Caller:
    """Who makes a request, and how urgent it is.

    Attributes:
        principal: identity; anonymous without a key.
        request_class: how urgent.
        client: the program, as it names itself, else its connection.
    """

    principal: Principal = ANONYMOUS
    request_class: RequestClass = RequestClass.INTERACTIVE
    client: str = ""

    @property
    def name(self) -> str:
        """What sets callers apart: the principal, else the program."""
        return self.principal.id or self.client


@dataclass(frozen=True)
class TradesRequest:
    """A request for trades, or for what a shape makes of them.

    Attributes:
        symbols: of the trades; empty means all symbols.
        exchanges: whose id spaces to look in; empty means all exchanges.
        range: event times, half-open.
        last_us: instead of a range, the microseconds before the moment of planning.
        columns: what to return, in this order; empty means all columns of the shape.
        limit: maximum number of rows, from the start of `order`; None is without a limit.
        order: direction of the shape's order; of trades, the canonical one.
        consistency: which rows may be in the answer.
        as_of_snapshot, as_of_time_us, as_of_token: exactly one of them with AS_OF, none otherwise;
            a time means the newest snapshot committed at or before it, a token the rows that the
            answer it came with was made from.
        allow_partial: answer even if a side is missing, and name what is missing.
        caller: who makes the request; the answer does not depend on it.
        shape: what to make of the trades.
    """

    symbols: tuple[str, ...] = ()
    exchanges: tuple[str, ...] = ()
    range: TimeRange = ALWAYS
    last_us: int | None = None
    columns: tuple[str, ...] = ()
    limit: int | None = None
    order: Order = Order.ASC
    consistency: Consistency = Consistency.UNION
    as_of_snapshot: int | None = None
    as_of_time_us: int | None = None
    as_of_token: ReadToken | None = None
    allow_partial: bool = False
    caller: Caller = Caller()
    shape: Shape = TRADES

    @property
    def output_columns(self) -> tuple[str, ...]:
        """Names of the columns to return."""
        return self.columns or tuple(self.shape.schema.names)

    @property
    def output_schema(self) -> pa.Schema:
        """Arrow schema of the rows to return."""
        every = self.shape.schema
        return pa.schema([every.field(name) for name in self.output_columns])

    @property
    def read_symbols(self) -> tuple[str, ...]:
        """The symbols of the trades to read; empty means all."""
        return self.shape.read_symbols(self.symbols)

    @property
    def read_range(self) -> TimeRange:
        """Event times of the trades to read."""
        return self.shape.widened(self.range)

    @property
    def complete_range(self) -> TimeRange:
        """Event times in which the answer is incomplete where a trade is missing."""
        return self.shape.complete_over(self.range)

    @property
    def rows_read_max(self) -> int | None:
        """The largest number of trades that the answer needs; None: all of its range."""
        return self.limit if self.shape.reading is Reading.ROWS else None

    @property
    def needs_lake_alone(self) -> bool:
        """Whether one snapshot answers: every row asked for is in a snapshot already."""
        return self.consistency is not Consistency.UNION and self.as_of_token is None

    def names(self, instrument: Instrument) -> bool:
        """Tell whether the request is about this instrument."""
        symbols = self.read_symbols
        return (not symbols or instrument.symbol in symbols) and (
            not self.exchanges or instrument.exchange in self.exchanges
        )

    def unknown_among(self, instruments: Iterable[Instrument]) -> list[str]:
        """Return the named symbols and exchanges that no instrument of the request has."""
        named = [instrument for instrument in instruments if self.names(instrument)]
        symbols = {instrument.symbol for instrument in named}
        exchanges = {instrument.exchange for instrument in named}
        return [name for name in self.read_symbols if name not in symbols] + [
            name for name in self.exchanges if name not in exchanges
        ]

    def resolved(self, now_us: int) -> TradesRequest:
        """Return the request with the times that it means at `now_us`, as its shape aligns them."""
        times = self.range
        if self.last_us is not None:
            times = TimeRange(max(now_us - self.last_us, TIME_MIN_US))
        return replace(self, range=self.shape.aligned(times), last_us=None)


def validated(request: TradesRequest) -> TradesRequest:
    """Return the request in its normal form: names in upper case, each once.

    Raises:
        Invalid: RANGE_REVERSED, LIMIT_OUT_OF_BOUNDS, UNKNOWN_COLUMN, BAD_TOKEN, or BAD_REQUEST for
            anything else that has no meaning.
    """
    _check_range(request)
    _check_as_of(request)
    if request.limit is not None and not 1 <= request.limit <= limits.LIMIT_ROWS_MAX:
        raise Invalid(
            Reason.LIMIT_OUT_OF_BOUNDS,
            f"limit {request.limit} is not between 1 and {limits.LIMIT_ROWS_MAX}",
            metadata={"limit": str(request.limit)},
        )
    request = replace(
        request,
        symbols=_names("symbol", request.symbols),
        exchanges=_names("exchange", request.exchanges),
    )
    request = replace(request, shape=request.shape.checked(request))
    return replace(request, columns=_columns(request.columns, request.shape.schema.names))


def _check_range(request: TradesRequest) -> None:
    start, end = request.range.start_us, request.range.end_us
    if request.last_us is not None:
        if start is not None or end is not None:
            raise Invalid(Reason.BAD_REQUEST, "give either `last` or a range, not both")
        if not 0 < request.last_us <= TIME_MAX_US:
            raise Invalid(Reason.BAD_REQUEST, f"last {request.last_us} us is not a duration")
    for name, time_us in (("start", start), ("end", end), ("as of", request.as_of_time_us)):
        if time_us is not None and not TIME_MIN_US <= time_us <= TIME_MAX_US:
            raise Invalid(
                Reason.BAD_REQUEST, f"{name} {time_us} us is not between the years 1 and 9999"
            )
    if start is not None and end is not None and start > end:
        raise Invalid(
            Reason.RANGE_REVERSED,
            f"the range ends ({end} us) before it starts ({start} us)",
            metadata={"start_us": str(start), "end_us": str(end)},
        )


def _check_as_of(request: TradesRequest) -> None:
    moments = (request.as_of_snapshot, request.as_of_time_us, request.as_of_token)
    named = sum(moment is not None for moment in moments)
    if request.consistency is Consistency.AS_OF and named != 1:
        raise Invalid(Reason.BAD_REQUEST, "AS_OF needs a snapshot, a time or a token, one of them")
    if request.consistency is not Consistency.AS_OF and named:
        raise Invalid(
            Reason.BAD_REQUEST,
            f"{request.consistency} takes no snapshot, time or token; AS_OF does",
        )
    if request.as_of_token is not None:
        _check_token(request.as_of_token)
        if request.last_us is not None:
            raise Invalid(
                Reason.BAD_REQUEST,
                "a read token asks for the same rows at any time, `last` for others each time:"
                " give the range that the answer's provenance names",
            )


def _check_token(token: ReadToken) -> None:
    label = token.topic_id
    named = label.isprintable() and 0 < len(label.encode()) <= limits.LABEL_BYTES_MAX
    placed = 0 < len(token.end.offsets) <= limits.PARTITIONS_MAX and min(token.end.offsets) >= 0
    if not (named and placed and token.end.epoch >= 0 and token.snapshot_id >= 0):
        raise Invalid(Reason.BAD_TOKEN, "no answer carried such a read token")


def _names(what: str, given: Iterable[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.upper() for name in given))
    if len(names) > limits.SYMBOLS_PER_QUERY_MAX:
        raise Invalid(
            Reason.BAD_REQUEST,
            f"{len(names)} {what}s are more than the {limits.SYMBOLS_PER_QUERY_MAX} a query takes",
        )
    for name in names:
        if not name or not name.isprintable() or len(name.encode()) > limits.LABEL_BYTES_MAX:
            shown = name[: limits.ERROR_NAME_MAX]
            raise Invalid(Reason.BAD_REQUEST, f"{shown!r} is not the name of a {what}")
    return names


def _columns(given: tuple[str, ...], known: Sequence[str]) -> tuple[str, ...]:
    for column in given:
        if column not in known:
            raise Invalid(
                Reason.UNKNOWN_COLUMN,
                f"there is no column {column[: limits.ERROR_NAME_MAX]!r};"
                f" there are {', '.join(known)}",
                metadata={"column": column},
            )
    return tuple(dict.fromkeys(given))
