"""Spans of the work on batches, as OpenTelemetry has them; names and attributes are defined here.

Attributes follow OpenTelemetry's semantic conventions `CONVENTIONS`; those of messaging are still
in development there. What they do not name begins with `k2.`.

Tracing is off until `enable` is called: then a span is one shared object that does nothing. Other
modules know spans and *traceparents*: the W3C text `00-TRACE-SPAN-FLAGS`, as it travels in gRPC,
Flight and Kafka headers. A span is of a batch or of a call, never of one trade.

A batch that is read later joins what several batches began. `joined` makes one span in each of
their traces, so that each trace tells its whole story; the first of them links to the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import Token
from types import TracebackType
from typing import Final, Self, TypeAlias

from opentelemetry import context as api_context
from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode

from k2 import limits
from k2.metrics import SWITCH, counter

CONVENTIONS: Final = "1.45.0"
SCHEMA_URL: Final = f"https://opentelemetry.io/schemas/{CONVENTIONS}"
HEADER: Final = "traceparent"

# Spans, in the order of a trade's way and then of a query's. A call's span has its method's name.
FRAME: Final = "frame"
PUBLISH: Final = "publish"
FOLD: Final = "fold"
COMMIT: Final = "commit"
PLAN: Final = "plan"
TAIL: Final = "tail"
LAKE: Final = "lake"
EXECUTE: Final = "execute"
STREAM: Final = "stream"

# Attributes of the conventions.
RPC_SYSTEM: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_STATUS: Final = "rpc.status_code"
HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
ERROR_TYPE: Final = "error.type"
DB_SYSTEM: Final = "db.system.name"
DB_SUMMARY: Final = "db.query.summary"
MESSAGING_SYSTEM: Final = "messaging.system.name"
MESSAGING_OPERATION: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_DESTINATION: Final = "messaging.destination.name"
MESSAGING_PARTITION: Final = "messaging.destination.partition.id"
MESSAGING_COUNT: Final = "messaging.batch.message_count"
KAFKA_OFFSET: Final = "kafka.offset"

# Attributes of K2.
FRAMES: Final = "k2.frames"
ROWS: Final = "k2.rows"
ROWS_LAKE: Final = "k2.rows.lake"
ROWS_TAIL: Final = "k2.rows.tail"
FILES: Final = "k2.files"
POSITIONS: Final = "k2.positions"
SNAPSHOT_ID: Final = "k2.snapshot_id"
CONSISTENCY: Final = "k2.consistency"
LEVEL: Final = "k2.degradation_level"

Kind = SpanKind
Value: TypeAlias = str | bool | int | float
Attributes: TypeAlias = Mapping[str, Value]

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_SPANS = counter("k2_trace_spans_total", "Spans recorded for the collector.")


class Span:
    """A span that records nothing, and what others have in common with it.

    Attributes:
        recorded: whether it reaches a collector.
        traceparents: of the spans it is, one in each trace that it belongs to; none where it is not
            recorded.
    """

    recorded: bool = False
    traceparents: tuple[str, ...] = ()

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""

    def link(self, traceparents: Iterable[str]) -> None:
        """Add links to other spans."""

    def end(self, error: BaseException | None = None) -> None:
        """End it, well or by an error; once."""

    def leave(self) -> None:
        """Be the parent of what begins no more."""

    def __enter__(self) -> Self:
        """Make it the parent of what begins in this block, and end it with the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


OFF: Final = Span()


class _Spans(Span):
    """Spans of the API, of which the first is the parent of what begins within it."""

    def __init__(self, spans: Sequence[trace.Span]) -> None:
        self._spans = spans
        self._token: Token[api_context.Context] | None = None
        self.recorded = spans[0].is_recording()
        if self.recorded:
            self.traceparents = tuple(_written(span.get_span_context()) for span in spans)

    def set(self, attributes: Attributes) -> None:
        for span in self._spans:
            span.set_attributes(attributes)

    def link(self, traceparents: Iterable[str]) -> None:
        for link in _links(traceparents):
            self._spans[0].add_link(link.context)

    def end(self, error: BaseException | None = None) -> None:
        for span in self._spans:
            if error is not None:
                span.set_attribute(ERROR_TYPE, str(getattr(error, "reason", type(error).__name__)))
                span.set_status(Status(StatusCode.ERROR, str(error)))
            span.end()
        if self.recorded:
            _SPANS.inc(len(self._spans))

    def __enter__(self) -> Self:
        self._token = api_context.attach(trace.set_span_in_context(self._spans[0]))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()
        self.end(error)

    def leave(self) -> None:
        if self._token is not None:
            api_context.detach(self._token)
            self._token = None


class _Drawn(Span):
    """The begin of a trace that is not sampled: what begins within it is not recorded either."""

    def __init__(self) -> None:
        self._token: Token[api_context.Context] | None = None

    def __enter__(self) -> Self:
        self._token = api_context.attach(_UNSAMPLED)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    def leave(self) -> None:
        if self._token is not None:
            api_context.detach(self._token)
            self._token = None


_UNSAMPLED: Final = trace.set_span_in_context(
    NonRecordingSpan(SpanContext(1, 1, is_remote=False)), api_context.Context()
)


class _Sampling:
    """Decides which new traces are recorded, before anything is made for them."""

    def __init__(self, tracer: trace.Tracer, share: float, chance: Callable[[], float]) -> None:
        self.tracer = tracer
        self.share = share
        self.below = share
        self.chance = chance


_on: _Sampling | None = None


def enable(tracer: trace.Tracer, share: float, chance: Callable[[], float]) -> None:
    """Record spans from now on.

    Args:
        tracer: makes them; it records what it is asked to make, and what is part of such.
        share: of new traces that are recorded, 0..1.
        chance: returns a random number, 0 <= n < 1; any thread calls it.
    """
    global _on  # noqa: PLW0603 a process traces or does not
    _on = _Sampling(tracer, share, chance)
    SWITCH.exemplar = lambda: ids() or None


def disable() -> None:
    """Record nothing more."""
    global _on  # noqa: PLW0603 as above
    _on = None
    SWITCH.exemplar = lambda: None


def enabled() -> bool:
    """Return whether spans may be recorded."""
    return _on is not None


def scale(factor: float) -> None:
    """Multiply the share of new traces that are recorded; those begun go on."""
    if _on is not None:
        _on.below = _on.share * factor


def begin(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: SpanKind = Kind.INTERNAL,
    parent: str = "",
    links: Iterable[str] = (),
) -> Span:
    """Begin a span; `end` it, or use it as a context manager.

    Args:
        name: of this module, or a method's.
        attributes: known at its beginning.
        kind: of it.
        parent: a traceparent; without a valid one the span that is current, else none.
        links: traceparents of other spans.
    """
    on = _on
    if on is None:
        return OFF
    within, given = None, _context_of(parent)
    if given is not None:
        if not given.trace_flags.sampled:
            return _Drawn()
        within = trace.set_span_in_context(NonRecordingSpan(given))
    else:
        current = trace.get_current_span().get_span_context()
        if not current.is_valid:
            if on.chance() >= on.below:
                return _Drawn()
        elif not current.trace_flags.sampled:
            return OFF  # it is part of what is not recorded, which stays current
    linked = _links(links) if links else None
    return _Spans((on.tracer.start_span(name, within, kind, attributes, linked),))


def joined(
    name: str,
    parents: Sequence[str],
    attributes: Attributes | None = None,
    *,
    kind: SpanKind = Kind.INTERNAL,
) -> Span:
    """Begin a span in the trace of each parent, at most `limits.TRACES_JOINED_MAX`; off without.

    Args:
        name: of this module.
        parents: traceparents; a further one of the same trace is a link, as are those too many.
        attributes: known at its beginning.
        kind: of it.
    """
    on = _on
    if on is None or not parents:
        return OFF
    contexts = [context for context in map(_context_of, dict.fromkeys(parents)) if context]
    first: dict[int, SpanContext] = {}
    for context in contexts:
        if context.trace_flags.sampled and len(first) < limits.TRACES_JOINED_MAX:
            first.setdefault(context.trace_id, context)
    if not first:
        return OFF
    others = [each for each in contexts if first.get(each.trace_id) is not each]
    links = [Link(each) for each in others[: limits.TRACE_LINKS_MAX]]
    spans: list[trace.Span] = []
    for context in first.values():
        within = trace.set_span_in_context(NonRecordingSpan(context))
        spans.append(on.tracer.start_span(name, within, kind, attributes, links))
        links = [Link(spans[0].get_span_context())]
    return _Spans(spans)


def enter(span: Span) -> Callable[[], None]:
    """Make a span that is ended elsewhere the current one; returns what takes that back."""
    span.__enter__()
    return span.leave


def traceparent() -> str:
    """Return the current span's traceparent, recorded or not; empty where there is none."""
    if _on is None:
        return ""
    context = trace.get_current_span().get_span_context()
    return _written(context) if context.is_valid else ""


def recording() -> bool:
    """Return whether the current span is recorded."""
    return _on is not None and trace.get_current_span().is_recording()


def stamped(headers: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Return headers of records, with the traceparent of the current span if it is recorded."""
    return {**headers, HEADER: traceparent().encode()} if recording() else headers


def ids() -> dict[str, str]:
    """Return `trace_id` and `span_id` of the current span, for logs and exemplars; else nothing."""
    if not recording():
        return {}
    return _ids_of(trace.get_current_span().get_span_context())


def exemplar_of(traceparents: str) -> dict[str, str] | None:
    """Return the ids of the first of some traceparents, with commas between; None without one."""
    context = _context_of(traceparents.partition(",")[0])
    return _ids_of(context) if context else None


def _ids_of(context: SpanContext) -> dict[str, str]:
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


def _written(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def _context_of(traceparent: str) -> SpanContext | None:
    """Read a traceparent; None where it is none."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if found is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    context = SpanContext(
        trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(flags & 1)
    )
    return context if context.is_valid else None


def _links(traceparents: Iterable[str]) -> list[Link]:
    contexts = [context for context in map(_context_of, traceparents) if context]
    return [Link(context) for context in contexts[: limits.TRACE_LINKS_MAX]]
