"""Rows over Arrow Flight: tickets in, streams of record batches out (`flight_stream.py`).

A handler either answers or raises a Flight error that carries a `google.rpc.Status` (the same as on
gRPC) in its `extra_info`; anything else pyarrow would send with its traceback.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import pyarrow as pa
import pyarrow.flight as fl  # noqa: TID251 Flight is spoken here
from google.protobuf.message import DecodeError

from k2 import limits
from k2.clock import Clock
from k2.degrade.level import Level
from k2.errors import Invalid, Reason, Unavailable
from k2.market.offsets import OffsetVector
from k2.query.admission import Admission
from k2.query.execute import ResultStream
from k2.query.request import TradesRequest
from k2.query.view import OpenQuery
from k2.v1 import market_pb2, query_service_pb2
from servers.flight.flight_stream import (
    PROVENANCE_KEY,
    Rows,
    Stream,
    Streams,
    flight_error,
    provenance_json,
)
from servers.services.grpc_server import port_in_use, split_address
from servers.services.interceptors import is_local
from servers.services.query_messages import provenance_to, request_from
from servers.services.query_service import Planner
from servers.services.rpc_status import as_k2
from servers.services.ticket import Signer
from servers.services.wire_values import vector_from

RESUME_HEADER: Final = "k2-resume-after"

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Openable(Protocol):
    """The part of `k2.query.view.QueryView` that gets ready to answer."""

    def open(self, request: TradesRequest, snapshot_id: int, end: OffsetVector) -> OpenQuery:
        """Get ready to answer what a ticket names."""
        ...


class Runner(Protocol):
    """The part of `k2.query.execute.Executor` that answers."""

    def run(self, opened: OpenQuery, deadline_s: float) -> ResultStream:
        """Start to answer."""
        ...


@dataclass(frozen=True)
class Parts:
    """What a row server is made of.

    Attributes:
        view: gets ready to answer.
        executor: answers.
        planner: makes tickets.
        signer: opens them.
        admission: counts running queries.
        plans: counts plans being made.
        level: the platform's, at any time.
        clock: tells when tickets have expired.
        stream_idle_s: a stream whose reader takes nothing for so long ends.
    """

    view: Openable
    executor: Runner
    planner: Planner
    signer: Signer
    admission: Admission
    plans: Admission
    level: Callable[[], Level]
    clock: Clock
    stream_idle_s: float = limits.STREAM_IDLE_S


def _guarded(handler: Handler) -> Handler:
    """A handler that raises Flight errors only, and answers only callers of this machine."""

    @functools.wraps(handler)
    def guarded(server: RowServer, context: fl.ServerCallContext, *rest: Any) -> Any:  # noqa: ANN401 any handler
        try:
            if not is_local(context.peer()):
                raise Invalid(Reason.NOT_LOCAL, "calls without a key are for this machine only")
            return handler(server, context, *rest)
        except Exception as error:  # noqa: BLE001 the last place before the wire
            raise flight_error(as_k2(error)) from None

    return guarded  # type: ignore[return-value]


class _Resume(fl.ServerMiddleware):  # type: ignore[misc]  # pyarrow has no types
    """A call that goes on where a stream broke; `after` is what its header says."""

    def __init__(self, after: str) -> None:
        self.after = after


class _Gate(fl.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no types
    """Reads the header of a resumed stream, and refuses GetSchema.

    pyarrow sends its traceback with whatever a handler of GetSchema raises.
    """

    def start_call(self, info: fl.CallInfo, headers: dict[str, list[str]]) -> _Resume | None:
        """See `pyarrow.flight.ServerMiddlewareFactory`."""
        if info.method == fl.FlightMethod.GET_SCHEMA:
            refusal = "GetSchema is not offered: GetFlightInfo answers the schema too"
            raise flight_error(Invalid(Reason.BAD_REQUEST, refusal))
        after = headers.get(RESUME_HEADER)
        return _Resume(after[0]) if after else None


class RowServer(fl.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """The Flight server. It listens from its creation on and answers STARTING until `ready`.

    Args:
        listen: `host:port` of this machine; port 0 takes a free one.

    Raises:
        Invalid: BAD_SETTING when `listen` is not an address of this machine.
        Unavailable: PORT_IN_USE when something else listens there.
    """

    def __init__(self, listen: str) -> None:
        host, port = split_address(listen)
        self._parts: Parts | None = None
        self._draining = threading.Event()
        self._closing = threading.Thread(target=self.shutdown, name="closing", daemon=True)
        self._streams: Streams | None = None
        try:
            super().__init__(f"grpc://{host}:{port}", middleware={"k2": _Gate()})
        except (OSError, pa.ArrowException):
            raise port_in_use(host, port) from None
        self.address = f"{host}:{self.port}"
        self.uri = f"grpc://{self.address}"

    def ready(self, parts: Parts) -> None:
        """Answer from now on."""
        self._streams = Streams(parts.clock, parts.stream_idle_s)
        self._streams.start()
        self._parts = parts

    @property
    def waiting(self) -> int:
        """Streams that have waited for their reader for a while."""
        return self._streams.waiting if self._streams is not None else 0

    def drain(self) -> bool:
        """Take nothing new, let streams end for a while, end those that are left, then close.

        Returns:
            Whether it closed; False when calls are left that nothing can end, as those of suspended
            readers: a process that waits for them does not end.
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
        """The rows of a ticket, from a plan, of any server of this stack."""
        parts, streams = self._serving()
        named = parts.signer.open(ticket.ticket, parts.clock.now_us())
        parts.admission.enter()
        started_s = parts.clock.monotonic_s()

        def leave() -> None:
            parts.admission.leave(parts.clock.monotonic_s() - started_s)

        try:
            answer, provenance = _opened(parts, named)
            answer.resume_after = _resume_after(context)
        except BaseException:
            leave()
            raise
        stream = Stream(answer, context, leave)
        rows = Rows(stream, provenance, parts.clock, streams)
        return fl.GeneratorStream(rows.schema, rows)

    @_guarded
    def get_flight_info(
        self, context: fl.ServerCallContext, descriptor: fl.FlightDescriptor
    ) -> fl.FlightInfo:
        """A plan for a Flight-only client; the command is a serialized PlanQueryRequest."""
        parts, _ = self._serving()
        started_s = parts.clock.monotonic_s()
        parts.plans.enter()  # pyarrow gives each call a thread: what cannot run must not wait
        try:
            plan = _planned(parts, descriptor)
        finally:
            parts.plans.leave(parts.clock.monotonic_s() - started_s)
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

    @_guarded
    def list_flights(self, context: fl.ServerCallContext, criteria: bytes) -> Any:  # noqa: ANN401 an iterator
        """None: what can be asked is not a list."""
        return iter(())

    @_guarded
    def list_actions(self, context: fl.ServerCallContext) -> list[fl.ActionType]:
        """None."""
        return []

    @_guarded
    def do_action(self, context: fl.ServerCallContext, action: fl.Action) -> None:
        """Refused."""
        raise Invalid(Reason.BAD_REQUEST, "this server offers no actions")

    @_guarded
    def do_put(self, context: fl.ServerCallContext, *rest: object) -> None:
        """Refused."""
        raise Invalid(Reason.BAD_REQUEST, "rows come in by the tape only")

    @_guarded
    def do_exchange(self, context: fl.ServerCallContext, *rest: object) -> None:
        """Refused."""
        raise Invalid(Reason.BAD_REQUEST, "this server exchanges nothing: use DoGet")


def _resume_after(context: fl.ServerCallContext) -> int:
    """How many rows the caller has already; 0 for a stream from the start."""
    resumed = context.get_middleware("k2")
    after = "0" if resumed is None else resumed.after
    if not (after.isascii() and after.isdecimal() and len(after) < len(str(limits.TRADE_ID_MAX))):
        raise Invalid(Reason.BAD_REQUEST, f"{RESUME_HEADER}: {after!r} is not a number of rows")
    return int(after)


def _planned(parts: Parts, descriptor: fl.FlightDescriptor) -> query_service_pb2.PlanQueryResponse:
    request = query_service_pb2.PlanQueryRequest()
    try:
        request.ParseFromString(descriptor.command or b"")
    except DecodeError:
        raise Invalid(
            Reason.BAD_REQUEST, "the command is not a serialized k2.v1.PlanQueryRequest"
        ) from None
    return parts.planner.plan(request)


def _schema_of(plan: query_service_pb2.PlanQueryResponse) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(plan.arrow_schema))


def _opened(
    parts: Parts, named: query_service_pb2.QueryTicket
) -> tuple[ResultStream, market_pb2.Provenance]:
    """The answer of a ticket, ready to be read, and where it comes from."""
    opened = parts.view.open(
        request_from(named.request),
        named.snapshot_id,
        vector_from(named.end_positions),
    )
    provenance = provenance_to(opened.provenance, parts.level())
    provenance.planned_time.CopyFrom(named.planned_time)
    return parts.executor.run(opened, limits.STREAM_S), provenance
