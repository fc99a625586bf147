"""Serves rows over Arrow Flight: tickets in, streams of record batches out (`flight_stream.py`).

A handler either answers or raises a Flight error that carries a `google.rpc.Status` (the same as on
gRPC) in its `extra_info`; pyarrow would send any other error with its traceback.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.flight as fl  # noqa: TID251 Flight is spoken here
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

from k2 import limits, tracing
from k2.clock import Clock
from k2.errors import Invalid, Reason, Unavailable
from k2.query.admission import Admission, Places
from k2.query.execute import Executor
from k2.query.gate import is_point
from k2.query.request import Caller, RequestClass
from k2.v1 import query_service_pb2 as pb
from servers.flight.flight_metrics import AnswerTimer, count_refused, side_of
from servers.flight.flight_stream import (
    PROVENANCE_KEY,
    RowStream,
    Stream,
    Streams,
    flight_error,
    provenance_json,
)
from servers.network import (
    Networks,
    flight_locations,
    flight_uri,
    port_in_use,
    reached_at,
    split_address,
)
from servers.services.call_spans import flight_span
from servers.services.interceptors import caller_from, check_peer
from servers.services.query_service import Planner
from servers.services.rpc_status import as_k2

RESUME_HEADER: Final = "k2-resume-after"
PLAN_QUERY: Final = pb.PlanQueryRequest.DESCRIPTOR.full_name
_HEADERS: Final = "k2"
_TYPE_URL_PREFIX: Final = "type.googleapis.com/"

Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass(frozen=True)
class Parts:
    """The components of a row server.

    Attributes:
        planner: plans queries and opens their tickets.
        executor: runs opened queries.
        admission: counts running queries.
        plans: counts plans being made.
        clock: of streams.
        stream_idle_s: a stream whose reader takes no batch for this time ends.
    """

    planner: Planner
    executor: Executor
    admission: Admission
    plans: Places
    clock: Clock
    stream_idle_s: float = limits.STREAM_IDLE_S


Command = Callable[[Parts, fl.FlightDescriptor, bytes, Caller], fl.FlightInfo]


def _guarded(handler: Handler) -> Handler:
    """Wrap a handler, so that it raises Flight errors only, and serves trusted peers only."""

    @functools.wraps(handler)
    def guarded(server: RowServer, context: fl.ServerCallContext, *rest: Any) -> Any:  # noqa: ANN401 any handler
        try:
            check_peer(context.peer(), server.trusted)
            return handler(server, context, *rest)
        except Exception as error:  # noqa: BLE001 the last place before the wire
            raise flight_error(as_k2(error)) from None
        finally:
            _headers(context).span.leave()

    return guarded  # type: ignore[return-value]


class _CallHeaders(fl.ServerMiddleware):  # type: ignore[misc]  # pyarrow has no types
    """The headers of a call: who makes it, and after how many rows its stream broke; its span."""

    def __init__(self, caller: Caller, resume_after: str, traceparent: str) -> None:
        self.caller = caller
        self.resume_after = resume_after
        self.span = tracing.OFF
        self._traceparent = traceparent

    def trace(self, method: str, planned: str = "") -> None:
        """Begin its span in the caller's trace, else the plan's; the handler runs in it."""
        self.span = flight_span(method, self._traceparent, planned)
        tracing.enter(self.span)

    def call_completed(self, exception: BaseException | None) -> None:
        """End its span; pyarrow calls this after the last batch."""
        if exception is None:
            self.span.set({tracing.RPC_STATUS: "OK"})
        self.span.end(exception)


class _HeaderReader(fl.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no types
    """Reads the headers of each call, and refuses GetSchema.

    pyarrow sends its traceback with an error that a handler of GetSchema raises.
    """

    def start_call(self, info: fl.CallInfo, headers: dict[str, list[str]]) -> _CallHeaders:
        """Read the headers of one call."""
        if info.method == fl.FlightMethod.GET_SCHEMA:
            refusal = "GetSchema is not offered: GetFlightInfo answers the schema too"
            raise flight_error(Invalid(Reason.BAD_REQUEST, refusal))
        first = {name: str(values[0]) for name, values in headers.items() if values}
        try:
            return _CallHeaders(
                caller_from(first), first.get(RESUME_HEADER, "0"), first.get(tracing.HEADER, "")
            )
        except Invalid as error:
            raise flight_error(error) from None


class RowServer(fl.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """The Flight server. It listens from its creation on and answers STARTING until `ready`.

    Args:
        listen: `host:port` of this machine, or any while networks are trusted; port 0 takes a free
            one.
        trusted: the networks of peers that are taken beside this machine's.

    Raises:
        Invalid: BAD_SETTING when `listen` is not such an address.
        Unavailable: PORT_IN_USE when something else listens there.
    """

    def __init__(self, listen: str, trusted: Networks = ()) -> None:
        host, port = split_address(listen, trusted)
        self.trusted = trusted
        self._parts: Parts | None = None
        self._draining = threading.Event()
        self._closing = threading.Thread(target=self.shutdown, name="closing", daemon=True)
        self._streams: Streams | None = None
        try:
            super().__init__(flight_uri(host, port), middleware={_HEADERS: _HeaderReader()})
        except (OSError, pa.ArrowException):
            raise port_in_use(host, port) from None
        self.address = f"{reached_at(host)}:{self.port}"
        self.locations = flight_locations(host, self.port)

    def ready(self, parts: Parts) -> None:
        """Answer from now on."""
        self._streams = Streams(parts.clock, parts.stream_idle_s)
        self._streams.start()
        self._parts = parts

    @property
    def running(self) -> int:
        """Streams that are open."""
        return self._streams.running if self._streams is not None else 0

    @property
    def waiting(self) -> int:
        """Streams that have waited for their reader for a while."""
        return self._streams.waiting if self._streams is not None else 0

    @property
    def oldest_work_s(self) -> float:
        """How long the batch that takes longest has been in the making."""
        return self._streams.oldest_work_s if self._streams is not None else 0.0

    def drain(self) -> bool:
        """Take nothing new, let streams end for a while, end those that are left, then close.

        Returns:
            Whether it closed; False when calls are left that nothing can end, such as those of
            suspended readers: a process that waits for them does not end.
        """
        if not self._draining.is_set():
            self._draining.set()
            if self._streams is not None:
                self._streams.drain(limits.DRAIN_S - limits.DRAIN_CLOSE_S)
            self._closing.start()
            self._closing.join(limits.DRAIN_CLOSE_S)
        return not self._closing.is_alive()

    def _serving(self) -> tuple[Parts, Streams]:
        if self._draining.is_set():
            raise Unavailable(Reason.DRAINING, "the server is shutting down")
        if self._parts is None or self._streams is None:
            raise Unavailable(Reason.STARTING, "the server is starting")
        return self._parts, self._streams

    @_guarded
    def do_get(self, context: fl.ServerCallContext, ticket: fl.Ticket) -> fl.GeneratorStream:
        """Stream the rows of a ticket that any server of this stack planned."""
        try:
            return self._opened(context, ticket)
        except Exception as error:
            count_refused(as_k2(error))
            raise

    def _opened(self, context: fl.ServerCallContext, ticket: fl.Ticket) -> fl.GeneratorStream:
        parts, streams = self._serving()
        caller = _caller(context)
        with parts.planner.gate.refusing(caller):
            parts.planner.gate.at_entry(caller)
            return self._stream(parts, streams, context, ticket, caller)

    def _stream(
        self,
        parts: Parts,
        streams: Streams,
        context: fl.ServerCallContext,
        ticket: fl.Ticket,
        caller: Caller,
    ) -> fl.GeneratorStream:
        redeemed = parts.planner.redeem(ticket.ticket, caller)
        _headers(context).trace("DoGet", redeemed.traceparent)
        parts.admission.enter(caller)
        started_s = parts.clock.monotonic_s()

        def leave() -> None:
            parts.admission.leave(caller, parts.clock.monotonic_s() - started_s)

        try:
            opened, provenance = parts.planner.open(redeemed, caller)
            answer = parts.executor.run(opened, limits.STREAM_S)
            answer.resume_after = _resume_after(context)
        except BaseException:
            leave()
            raise
        timer = AnswerTimer(parts.clock, opened.request.shape.name, side_of(opened.plan), started_s)
        critical = caller.request_class is RequestClass.CRITICAL
        long = not critical and not is_point(opened.request)
        stream = Stream(answer, context, leave, timer, long)
        rows = RowStream(stream, provenance, parts.clock, streams)
        return fl.GeneratorStream(rows.schema, rows)

    @_guarded
    def get_flight_info(
        self, context: fl.ServerCallContext, descriptor: fl.FlightDescriptor
    ) -> fl.FlightInfo:
        """Answer the command of a Flight-only client (`COMMANDS`)."""
        parts, _ = self._serving()
        _headers(context).trace("GetFlightInfo")
        caller = _caller(context)
        with parts.planner.gate.refusing(caller):
            parts.planner.gate.at_entry(caller)
            handler, message = dispatched(COMMANDS, descriptor.command or b"")
            return handler(parts, descriptor, message, caller)

    @_guarded
    def list_flights(self, context: fl.ServerCallContext, criteria: bytes) -> Any:  # noqa: ANN401 an iterator
        """List nothing: requests cannot be enumerated."""
        return iter(())

    @_guarded
    def list_actions(self, context: fl.ServerCallContext) -> list[fl.ActionType]:
        """List nothing."""
        return []

    @_guarded
    def do_action(self, context: fl.ServerCallContext, action: fl.Action) -> None:
        """Refuse every action."""
        raise Invalid(Reason.BAD_REQUEST, "this server offers no actions")

    @_guarded
    def do_put(self, context: fl.ServerCallContext, *rest: object) -> None:
        """Refuse rows."""
        raise Invalid(Reason.BAD_REQUEST, "rows come in by the tape only")

    @_guarded
    def do_exchange(self, context: fl.ServerCallContext, *rest: object) -> None:
        """Refuse an exchange."""
        raise Invalid(Reason.BAD_REQUEST, "this server exchanges nothing: use DoGet")


def _headers(context: fl.ServerCallContext) -> _CallHeaders:
    headers: _CallHeaders = context.get_middleware(_HEADERS)
    return headers


def _caller(context: fl.ServerCallContext) -> Caller:
    """Return who makes a call; a program that does not name itself is its connection."""
    caller = _headers(context).caller
    return caller if caller.client else replace(caller, client=context.peer())


def _resume_after(context: fl.ServerCallContext) -> int:
    """Return how many rows the caller has already; 0 for a stream from the start."""
    after = _headers(context).resume_after
    if not (after.isascii() and after.isdecimal() and len(after) < len(str(limits.TRADE_ID_MAX))):
        raise Invalid(Reason.BAD_REQUEST, f"{RESUME_HEADER}: {after!r} is not a number of rows")
    return int(after)


def dispatched(commands: Mapping[str, Command], content: bytes) -> tuple[Command, bytes]:
    """Find the handler of a command, and the message to give it.

    A command is a `google.protobuf.Any` whose type URL names it, as in Flight SQL, or a bare
    PlanQueryRequest: that one never reads as an Any with a type URL of protobuf.

    Raises:
        Invalid: BAD_REQUEST when no handler has the name.
    """
    name, message = PLAN_QUERY, content
    try:
        packed = any_pb2.Any.FromString(content)
    except DecodeError:
        packed = any_pb2.Any()
    if packed.type_url.startswith(_TYPE_URL_PREFIX):
        name, message = packed.type_url.removeprefix(_TYPE_URL_PREFIX), packed.value
    if name not in commands:
        shown = name[: limits.ERROR_NAME_MAX]
        raise Invalid(Reason.BAD_REQUEST, f"there is no command {shown!r}")
    return commands[name], message


def _plan_query(
    parts: Parts, descriptor: fl.FlightDescriptor, message: bytes, caller: Caller
) -> fl.FlightInfo:
    """Plan a serialized PlanQueryRequest."""
    started_s = parts.clock.monotonic_s()
    # pyarrow gives each call a thread: a plan that cannot run must not wait.
    parts.plans.enter(caller)
    try:
        plan = parts.planner.plan(_plan_request(message), caller)
    finally:
        parts.plans.leave(caller, parts.clock.monotonic_s() - started_s)
    provenance = provenance_json(plan.provenance)
    endpoints = [
        fl.FlightEndpoint(
            fl.Ticket(endpoint.ticket), [fl.Location(uri) for uri in endpoint.locations]
        )
        for endpoint in plan.endpoints
    ]
    return fl.FlightInfo(
        _schema_of(plan).with_metadata({PROVENANCE_KEY: provenance}),
        descriptor,
        endpoints,
        ordered=True,
        app_metadata=provenance,
    )


def _plan_request(message: bytes) -> pb.PlanQueryRequest:
    try:
        return pb.PlanQueryRequest.FromString(message)
    except DecodeError:
        raise Invalid(
            Reason.BAD_REQUEST, "the command is not a serialized k2.v1.PlanQueryRequest"
        ) from None


def _schema_of(plan: pb.PlanQueryResponse) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(plan.arrow_schema))


COMMANDS: Final[Mapping[str, Command]] = {PLAN_QUERY: _plan_query}
