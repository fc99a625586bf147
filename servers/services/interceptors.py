"""Wraps every call of `k2.v1`, outermost first.

In this order: traces, telemetry, errors, auth, admission, deadline.

Each is a context manager around the handler, whether it answers once or streams. Health and
reflection bypass them: they must answer when nothing else does.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc

from k2 import limits
from k2.clock import Clock
from k2.errors import Invalid, Overloaded, Reason, Unavailable
from k2.metrics import counter, gauge, histogram
from k2.query.request import Caller, RequestClass
from servers.network import Networks, is_trusted
from servers.services.call_spans import traced
from servers.services.rpc_status import DETAILS_KEY, PeerError, as_k2, to_grpc
from servers.services.wire_values import bad_field

METHOD_PREFIX = "/k2.v1."
CLASS_HEADER: Final = "k2-class"
CLIENT_HEADER: Final = "k2-client-id"
KEY_HEADER: Final = "x-api-key"
_CALLER: Final = "k2_caller"  # the attribute of a call's context

_log = logging.getLogger(__name__)
_REQUESTS = counter("k2_rpc_requests_total", "Calls that ended.", "service", "method", "code")
_SECONDS = histogram(
    "k2_rpc_duration_seconds",
    "Time of a call; of a stream until it ended.",
    "service",
    "method",
    "code",
)
_RUNNING = gauge("k2_rpc_running", "Calls that run, streams too.")


@dataclass(frozen=True)
class Incoming:
    """A call that has come in."""

    method: str
    streams: bool
    context: grpc.ServicerContext


Around = Callable[[Incoming], AbstractContextManager[None]]


class Interceptor(grpc.ServerInterceptor):
    """Runs every handler of `k2.v1` inside a context manager."""

    def __init__(self, name: str, around: Around) -> None:
        self.name = name
        self._around = around

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 what grpc passes along
        """Wrap the handler of a call."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(METHOD_PREFIX):
            return handler
        if handler.response_streaming:
            return handler._replace(unary_stream=self._streaming(method, handler.unary_stream))
        return handler._replace(unary_unary=self._answering(method, handler.unary_unary))

    def _answering(self, method: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: object, context: grpc.ServicerContext) -> object:
            with self._around(Incoming(method, False, context)):
                return inner(request, context)

        return call

    def _streaming(self, method: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: object, context: grpc.ServicerContext) -> Iterator[object]:
            with self._around(Incoming(method, True, context)):
                yield from inner(request, context)

        return call


class CallAdmission:
    """Refuses calls while the server starts or drains, and bounds the open streams.

    Attributes:
        draining: set when the server shuts down.
        answered: calls that came in and have ended.
    """

    def __init__(self, watchers_max: int = limits.WATCHERS_MAX) -> None:
        self._places = threading.BoundedSemaphore(watchers_max)
        self._open = threading.Event()
        self.draining = threading.Event()
        self._running = 0
        self.answered = 0
        self._idle = threading.Condition()

    def open(self) -> None:
        """Admit calls."""
        self._open.set()

    def drain(self) -> None:
        """Refuse further calls; streams end by themselves."""
        self.draining.set()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` until no call runs; return whether none does."""
        with self._idle:
            return self._idle.wait_for(lambda: self._running == 0, timeout_s)

    @contextmanager
    def around(self, call: Incoming) -> Iterator[None]:
        """Admit one call, or raise STARTING, DRAINING or TOO_MANY_QUERIES."""
        if self.draining.is_set():
            raise Unavailable(Reason.DRAINING, "the server is shutting down")
        if not self._open.is_set():
            raise Unavailable(Reason.STARTING, "the server is starting")
        if call.streams:
            self._take_place(call.context)
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._idle:
            self._running += change
            self.answered += change < 0
            self._idle.notify_all()

    def _take_place(self, context: grpc.ServicerContext) -> None:
        if not self._places.acquire(blocking=False):
            raise Overloaded(
                Reason.TOO_MANY_QUERIES,
                "too many streams are open on this server",
                retry_after_s=limits.QUERY_DEADLINE_S,
            )
        if not context.add_callback(self._places.release):
            self._places.release()


def chain(
    clock: Clock, admission: CallAdmission, trusted: Networks = ()
) -> list[grpc.ServerInterceptor]:
    """Make all interceptors, outermost first; calls of trusted networks are taken as local ones."""
    return [
        Interceptor("traces", traced),
        Interceptor("telemetry", Telemetry(clock).around),
        Interceptor("errors", errors),
        Interceptor("auth", Auth(trusted).around),
        Interceptor("admission", admission.around),
        Interceptor("deadline", deadline),
    ]


@dataclass(frozen=True)
class Telemetry:
    """Logs and measures each call, with its outcome and duration."""

    clock: Clock

    @contextmanager
    def around(self, call: Incoming) -> Iterator[None]:
        """Log and measure one call when it ends."""
        started_s = self.clock.monotonic_s()
        _RUNNING.inc()
        try:
            yield
        finally:
            code = call.context.code()  # type: ignore[attr-defined]  # missing from the stubs
            level = logging.DEBUG if code in (None, grpc.StatusCode.OK) else logging.INFO
            took_s = self.clock.monotonic_s() - started_s
            milliseconds = round(took_s * 1e3, 3)
            outcome = code.name if code else "OK"
            _RUNNING.dec()
            count_call(call.method, outcome)
            _SECONDS.labels(*_parts(call.method), outcome).observe(took_s)
            details = {"method": call.method, "code": outcome, "milliseconds": milliseconds}
            _log.log(level, "call", extra=details)


def count_call(method: str, code: str) -> None:
    """Count a call that ended.

    Args:
        method: its path.
        code: the name of its status.
    """
    _REQUESTS.labels(*_parts(method), code).inc()


def _parts(method: str) -> tuple[str, str]:
    """Split the path of a method into service and method."""
    service, _, name = method.removeprefix("/").partition("/")
    return service, name


@contextmanager
def errors(call: Incoming) -> Iterator[None]:
    """Turn an exception into a status with a reason; never a traceback."""
    try:
        yield
    except PeerError as error:
        call.context.set_trailing_metadata(_passed_on(error))
        call.context.abort(error.code, error.details)
    except Exception as error:  # noqa: BLE001 the last place before the wire
        call.context.abort_with_status(to_grpc(as_k2(error)))


def _passed_on(error: PeerError) -> tuple[Any, ...]:
    """Return the part of the peer's trailing metadata that says why it failed."""
    return tuple(pair for pair in error.trailing_metadata if pair[0] == DETAILS_KEY)


@dataclass(frozen=True)
class Auth:
    """Admits callers of this machine and of trusted networks only."""

    trusted: Networks = ()

    @contextmanager
    def around(self, call: Incoming) -> Iterator[None]:
        """Admit one call, and attach its caller to its context.

        Raises:
            Invalid: NOT_LOCAL; BAD_REQUEST.
        """
        check_peer(call.context.peer(), self.trusted)
        headers = {name: str(value) for name, value in call.context.invocation_metadata()}
        setattr(call.context, _CALLER, caller_from(headers, call.context.peer()))
        yield


def check_peer(peer: str, trusted: Networks) -> None:
    """Refuse the calls of a peer of gRPC or Flight that needs a key.

    Raises:
        Invalid: NOT_LOCAL.
    """
    if not is_trusted(peer, trusted):
        where = "this machine and trusted networks" if trusted else "this machine"
        raise Invalid(Reason.NOT_LOCAL, f"calls without a key are taken from {where} only")


def caller_of(context: grpc.ServicerContext) -> Caller:
    """Return the caller that `auth` attached to a call; an anonymous one where it did not run."""
    caller: Caller = getattr(context, _CALLER, Caller())
    return caller


def caller_from(headers: Mapping[str, str], peer: str = "") -> Caller:
    """Make the caller of a call, for gRPC and Flight alike: its API key, else the name it sends.

    Of a key only a digest is kept: the caller is counted, and may be logged.

    Args:
        headers: of the call.
        peer: its connection, the name of a program that does not name itself.

    Raises:
        Invalid: BAD_REQUEST when the header `k2-class` names no class.
    """
    name = headers.get(CLASS_HEADER, RequestClass.INTERACTIVE)
    client = headers.get(CLIENT_HEADER, "")[: limits.CALLER_NAME_MAX] or peer
    if key := headers.get(KEY_HEADER, ""):
        client = f"key:{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"
    try:
        return Caller(request_class=RequestClass(name), client=client)
    except ValueError:
        shown, classes = name[: limits.ERROR_NAME_MAX], ", ".join(RequestClass)
        raise bad_field(CLASS_HEADER, f"{CLASS_HEADER}: {shown!r} is none of {classes}") from None


@contextmanager
def deadline(call: Incoming) -> Iterator[None]:
    """Refuse a call whose deadline has passed; handlers ask `remaining_s` for the rest."""
    if remaining_s(call.context) <= 0:
        raise Overloaded(Reason.DEADLINE_EXCEEDED, "the deadline has passed")
    yield


def remaining_s(context: grpc.ServicerContext) -> float:
    """Return the seconds this call may still take: the caller's deadline, bounded by K2's own."""
    remaining = context.time_remaining()
    return min(math.inf if remaining is None else remaining, limits.QUERY_DEADLINE_S)
