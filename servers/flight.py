"""Rows over Arrow Flight: tickets in, record batches out.

A handler either answers or raises a Flight error that carries a `google.rpc.Status` (the same as on
gRPC) in its `extra_info`; anything else pyarrow would send with its traceback.

A stream sends its schema first, with the provenance as JSON in the metadata `k2.provenance`, then
batches of at most 4 MiB, then an empty batch whose metadata is the final provenance, with the rows
that came from lake and tail.

What is blocked in the engine does not see that its caller has gone, so one thread watches the
streams whose next batch is being made. pyarrow's call context may be asked only then: it is freed
with the call, and nothing says when. A stream abandoned between two batches ends by itself, when
pyarrow lets go of it.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import pyarrow as pa
import pyarrow.flight as fl  # noqa: TID251 Flight is spoken here
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from k2 import limits
from k2.clock import Clock
from k2.degrade.level import Level
from k2.errors import Invalid, K2Error, Overloaded, Reason, Unavailable
from k2.market.offsets import OffsetVector
from k2.query.admission import Admission
from k2.query.execute import Answer
from k2.query.request import TradesRequest
from k2.query.view import OpenQuery
from k2.v1 import market_pb2, query_service_pb2
from servers import convert
from servers.interceptors import is_local
from servers.listening import port_in_use, split_address
from servers.query import Planner
from servers.status import as_k2, to_status
from servers.ticket import Signer

PROVENANCE_KEY: Final = b"k2.provenance"
_CANCEL_POLL_S: Final = 0.2

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Openable(Protocol):
    """The part of `k2.query.view.QueryView` that gets ready to answer."""

    def open(self, request: TradesRequest, snapshot_id: int, end: OffsetVector) -> OpenQuery:
        """Get ready to answer what a ticket names."""
        ...


class Runner(Protocol):
    """The part of `k2.query.execute.Executor` that answers."""

    def run(self, opened: OpenQuery, deadline_s: float) -> Answer:
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
        level: the platform's, at any time.
        clock: tells when tickets have expired.
    """

    view: Openable
    executor: Runner
    planner: Planner
    signer: Signer
    admission: Admission
    level: Callable[[], Level]
    clock: Clock


def flight_error(error: K2Error) -> fl.FlightError:
    """The error as Flight carries it; `extra_info` is the serialized `google.rpc.Status`."""
    kind = fl.FlightServerError
    if isinstance(error, Unavailable | Overloaded):
        late = error.reason is Reason.DEADLINE_EXCEEDED
        kind = fl.FlightTimedOutError if late else fl.FlightUnavailableError
    elif error.reason is Reason.NOT_LOCAL:
        kind = fl.FlightUnauthorizedError
    elif error.reason is Reason.INTERNAL:
        kind = fl.FlightInternalError
    return kind(error.message, to_status(error).SerializeToString())


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


class _Gate(fl.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no types
    """Refuses GetSchema: pyarrow sends its traceback with whatever that handler raises."""

    def start_call(self, info: fl.CallInfo, headers: dict[str, list[str]]) -> None:
        """See `pyarrow.flight.ServerMiddlewareFactory`."""
        if info.method == fl.FlightMethod.GET_SCHEMA:
            refusal = "GetSchema is not offered: GetFlightInfo answers the schema too"
            raise flight_error(Invalid(Reason.BAD_REQUEST, refusal))


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
        self._streams = _Streams()
        try:
            super().__init__(f"grpc://{host}:{port}", middleware={"k2": _Gate()})
        except (OSError, pa.ArrowException):
            raise port_in_use(host, port) from None
        self.address = f"{host}:{self.port}"
        self.uri = f"grpc://{self.address}"

    def ready(self, parts: Parts) -> None:
        """Answer from now on."""
        self._streams.start()
        self._parts = parts

    def drain(self) -> None:
        """Take nothing new, let streams end for a while, end those that are left, then close."""
        if self._draining.is_set():
            return
        self._draining.set()
        self._streams.drain(limits.DRAIN_S)
        self.shutdown()

    def _serving(self) -> Parts:
        if self._draining.is_set():
            raise Unavailable(Reason.DRAINING, "the server is shutting down")
        if self._parts is None:
            raise Unavailable(Reason.STARTING, "the server is starting")
        return self._parts

    @_guarded
    def do_get(self, context: fl.ServerCallContext, ticket: fl.Ticket) -> fl.GeneratorStream:
        """The rows of a ticket, from a plan, of any server of this stack."""
        parts = self._serving()
        named = parts.signer.open(ticket.ticket, parts.clock.now_us())
        parts.admission.enter()
        started_s = parts.clock.monotonic_s()

        def leave() -> None:
            parts.admission.leave(parts.clock.monotonic_s() - started_s)

        try:
            answer, provenance = _opened(parts, named)
        except BaseException:
            leave()
            raise
        stream = _Stream(answer, context, leave)
        rows = _Rows(stream, provenance, parts.clock, self._streams)
        return fl.GeneratorStream(rows.schema, rows)

    @_guarded
    def get_flight_info(
        self, context: fl.ServerCallContext, descriptor: fl.FlightDescriptor
    ) -> fl.FlightInfo:
        """A plan for a Flight-only client; the command is a serialized PlanQueryRequest."""
        plan = self._planned(descriptor)
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

    def _planned(self, descriptor: fl.FlightDescriptor) -> query_service_pb2.PlanQueryResponse:
        request = query_service_pb2.PlanQueryRequest()
        try:
            request.ParseFromString(descriptor.command or b"")
        except DecodeError:
            raise Invalid(
                Reason.BAD_REQUEST, "the command is not a serialized k2.v1.PlanQueryRequest"
            ) from None
        return self._serving().planner.plan(request)

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


def provenance_json(provenance: market_pb2.Provenance) -> bytes:
    """Provenance as JSON, field names as in the proto, 64-bit numbers as strings."""
    text = json_format.MessageToJson(provenance, preserving_proto_field_name=True, indent=None)
    return text.encode()


def _schema_of(plan: query_service_pb2.PlanQueryResponse) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(plan.arrow_schema))


def _opened(
    parts: Parts, named: query_service_pb2.QueryTicket
) -> tuple[Answer, market_pb2.Provenance]:
    """The answer of a ticket, ready to be read, and where it comes from."""
    opened = parts.view.open(
        convert.request_from(named.request),
        named.snapshot_id,
        convert.vector_from(named.end_positions),
    )
    provenance = convert.provenance_to(opened.provenance, parts.level())
    provenance.planned_time.CopyFrom(named.planned_time)
    return parts.executor.run(opened, limits.STREAM_S), provenance


class _Stream:
    """One running answer: what may end it from outside."""

    def __init__(
        self, answer: Answer, context: fl.ServerCallContext, leave: Callable[[], None]
    ) -> None:
        self.answer = answer
        self.context = context
        self.ended_by: K2Error | None = None
        self._leave = leave
        self._left = threading.Lock()

    def end(self, error: K2Error) -> None:
        """End it early; its caller is told why."""
        self.ended_by = error
        self.answer.close()

    def close(self) -> None:
        """Free all it holds; once."""
        if self._left.acquire(blocking=False):
            self.answer.close()
            self._leave()


class _Rows:
    """The batches of an answer, as pyarrow pulls them. Freed with its stream, read or not."""

    def __init__(
        self,
        stream: _Stream,
        provenance: market_pb2.Provenance,
        clock: Clock,
        streams: _Streams,
    ) -> None:
        metadata = {PROVENANCE_KEY: provenance_json(provenance)}
        self.schema = stream.answer.schema.with_metadata(metadata)
        self._stream = stream
        self._provenance = provenance
        self._clock = clock
        self._streams = streams
        self._ended = False
        streams.add(stream)
        weakref.finalize(self, streams.remove, stream).atexit = False

    def __iter__(self) -> _Rows:
        return self

    def __next__(self) -> Any:  # noqa: ANN401 a batch, or a batch and its metadata
        if self._ended:
            raise StopIteration
        try:
            with self._streams.watching(self._stream):
                batch = next(self._stream.answer, None)
            if self._stream.ended_by is not None:
                raise self._stream.ended_by
        except Exception as error:  # noqa: BLE001 the last place before the wire
            self._ended = True
            self._streams.remove(self._stream)
            raise flight_error(as_k2(error)) from None
        self._note_freshness()
        if batch is not None:
            return batch
        self._ended = True
        return self._last()

    def _note_freshness(self) -> None:
        if not self._provenance.HasField("freshness_ms"):
            age_us = self._clock.now_us() - self._provenance.planned_time.ToMicroseconds()
            self._provenance.freshness_ms = age_us / 1e3

    def _last(self) -> tuple[pa.RecordBatch, pa.Buffer]:
        answer = self._stream.answer
        self._provenance.rows_lake, self._provenance.rows_tail = answer.rows_lake, answer.rows_tail
        self._streams.remove(self._stream)
        empty = [pa.array([], field.type) for field in self.schema]
        batch = pa.RecordBatch.from_arrays(empty, schema=self.schema)
        return batch, pa.py_buffer(self._provenance.SerializeToString())


class _Streams:
    """All running streams; ends those whose caller has gone, in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[_Stream] = set()
        self._watched: set[_Stream] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="streams", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, stream: _Stream) -> None:
        """Count a stream."""
        with self._lock:
            self._running.add(stream)

    def remove(self, stream: _Stream) -> None:
        """Forget a stream and free what it holds; once or more."""
        with self._lock:
            self._running.discard(stream)
        stream.close()

    @contextmanager
    def watching(self, stream: _Stream) -> Iterator[None]:
        """While its next batch is being made: end the stream if its caller goes."""
        with self._lock:
            self._watched.add(stream)
        try:
            yield
        finally:
            with self._lock:
                self._watched.discard(stream)

    def drain(self, timeout_s: float) -> None:
        """Wait for all streams to end, at most so long; then end them."""
        quiet = threading.Event()
        for _ in range(int(timeout_s / _CANCEL_POLL_S)):
            if not self._running or quiet.wait(_CANCEL_POLL_S):
                break
        with self._lock:
            left = list(self._running)
        for stream in left:
            stream.end(Unavailable(Reason.DRAINING, "the server is shutting down"))
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(_CANCEL_POLL_S):
            with self._lock:
                gone = [stream for stream in self._watched if stream.context.is_cancelled()]
            for stream in gone:
                stream.end(Unavailable(Reason.PEER_UNAVAILABLE, "the caller has gone"))
