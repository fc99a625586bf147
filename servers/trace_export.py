"""Sends a process's spans to an OTLP collector over gRPC; imported only where an endpoint is set.

Spans wait in a bounded queue and a thread sends them: a collector that is away, slow or wrong costs
spans and a log line, never time of the process. At the end the queue is drained for a bounded time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

from k2 import limits, tracing
from k2.settings import TelemetrySettings

_CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0),)
_BATCH_DELAY_MS = 1000


def otlp_exporter(endpoint: str) -> OTLPSpanExporter:
    """Make the exporter to `host:port` or a URL; only `https://` is encrypted."""
    return OTLPSpanExporter(
        endpoint=endpoint,
        insecure=not endpoint.startswith("https://"),
        timeout=limits.TRACE_EXPORT_S,
        channel_options=_CHANNEL_OPTIONS,  # type: ignore[arg-type]  # numbers are options too
    )


@contextmanager
def exporting(
    settings: TelemetrySettings, process: str, run_id: str, exporter: SpanExporter | None = None
) -> Iterator[None]:
    """Record and send spans while the block lasts.

    Args:
        settings: the endpoint, and the share of traces.
        process: in `service.name`.
        run_id: hexadecimal; in `service.instance.id`, and the seed of sampling.
        exporter: takes the spans; without one, the endpoint does.
    """
    resource = Resource(
        {
            "service.namespace": "k2",
            "service.name": f"k2-{process}",
            "service.instance.id": run_id,
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.language": "python",
        },
        tracing.SCHEMA_URL,
    )
    provider = TracerProvider(ParentBased(ALWAYS_ON), resource, shutdown_on_exit=False)
    exporter = exporter or otlp_exporter(settings.otlp_endpoint)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_BATCH_DELAY_MS))
    chance = np.random.default_rng(int(run_id, 16)).random
    tracer = provider.get_tracer("k2", schema_url=tracing.SCHEMA_URL)
    tracing.enable(tracer, settings.trace_sample, chance)
    try:
        yield
    finally:
        tracing.disable()
        _drain(provider, exporter)


def _drain(provider: TracerProvider, exporter: SpanExporter) -> None:
    """Send what is queued, for a bounded time."""
    sending = threading.Thread(target=provider.shutdown, name="traces", daemon=True)
    sending.start()
    sending.join(limits.TRACE_DRAIN_S)
    if sending.is_alive():
        exporter.shutdown()
