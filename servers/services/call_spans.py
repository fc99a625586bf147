"""The spans of calls that come in, and the context that goes on with a call to another process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import grpc

from k2 import tracing

_FLIGHT: Final = "arrow.flight.protocol.FlightService"


class Call(Protocol):
    """`servers.services.interceptors.Incoming`, which stands above this module."""

    @property
    def method(self) -> str:
        """With a slash before the service."""

    @property
    def streams(self) -> bool:
        """Whether it answers more than once."""

    @property
    def context(self) -> grpc.ServicerContext:
        """Of gRPC."""


@contextmanager
def traced(call: Call) -> Iterator[None]:
    """Record a gRPC call, as part of its caller's trace if it names one."""
    if not tracing.enabled():
        yield
        return
    headers = dict(call.context.invocation_metadata())
    span = _begun(call.method.lstrip("/"), str(headers.get(tracing.HEADER, "")))
    # The answers of a stream may be made in several threads: it is current in none of them.
    leave = _nothing if call.streams else tracing.enter(span)
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        leave()
        code = call.context.code()  # type: ignore[attr-defined]  # missing from the stubs
        span.set({tracing.RPC_STATUS: code.name if code else "OK"})
        span.end(error)


def flight_span(method: str, *parents: str) -> tracing.Span:
    """Begin the span of a Flight call: part of the first traceparent there is, linked to others."""
    given = [parent for parent in parents if parent]
    return _begun(f"{_FLIGHT}/{method}", given[0] if given else "", given[1:])


def traced_metadata(metadata: Iterable[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    """Return the metadata of a call that goes on; the span that is current is its parent."""
    ours = tracing.traceparent()
    if not ours:
        return tuple(metadata)
    others = (pair for pair in metadata if pair[0] != tracing.HEADER)
    return (*others, (tracing.HEADER, ours))


def _begun(method: str, parent: str, links: Iterable[str] = ()) -> tracing.Span:
    attributes = {tracing.RPC_SYSTEM: "grpc", tracing.RPC_METHOD: method}
    return tracing.begin(method, attributes, kind=tracing.Kind.SERVER, parent=parent, links=links)


def _nothing() -> None:
    pass
