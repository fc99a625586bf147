"""Spans of a test: recorded in memory, and shown as text."""

from contextlib import contextmanager

import numpy as np
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from k2 import tracing


@contextmanager
def recorded(share=1.0):
    """Record spans while the block lasts; yields a function that returns those that ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.enable(provider.get_tracer("test"), share, np.random.default_rng(7).random)
    try:
        yield exporter.get_finished_spans
    finally:
        tracing.disable()


def trace_of(span):
    return f"{span.context.trace_id:032x}"


def span_id_of(span):
    return f"{span.context.span_id:016x}"


def parent_of(span):
    return f"{span.parent.span_id:016x}" if span.parent else ""


def links_of(span):
    """The ids of the spans that it links to."""
    return [f"{link.context.span_id:016x}" for link in span.links]
