import subprocess
import sys
from contextlib import nullcontext

import pytest

from k2 import tracing
from k2.settings import Settings, TelemetrySettings
from servers import __main__ as main
from servers import runtime, trace_export
from servers.trace_export import exporting, otlp_exporter
from tests.conftest import free_ports
from tests.support.otlp import collector

RUN = "ab" * 16


def traced(endpoint, share=1.0):
    return TelemetrySettings(otlp_endpoint=endpoint, trace_sample=share)


@pytest.mark.parametrize("form", ["{}", "http://{}"])
def test_spans_reach_the_collector_before_the_process_ends(form):
    with collector() as there:
        with (
            exporting(traced(form.format(there.address)), "feed", RUN),
            tracing.begin(tracing.FRAME, {tracing.FRAMES: 3}),
        ):
            tracing.begin(tracing.PUBLISH, links=[f"00-{1:032x}-{2:016x}-01"]).end()
        assert not tracing.enabled()
        (frame,), (publish,) = there.named("frame"), there.named("publish")
        assert (frame.service, frame.attributes) == ("k2-feed", {"k2.frames": 3})
        assert (publish.parent_id, publish.trace_id) == (frame.span_id, frame.trace_id)
        assert publish.links == ((f"{1:032x}", f"{2:016x}"),)
        assert there.schema_urls == {"https://opentelemetry.io/schemas/1.45.0"}


def test_no_share_sends_nothing():
    with collector() as there:
        with exporting(traced(there.address, 0.0), "feed", RUN):
            tracing.begin(tracing.FRAME).end()
        assert there.spans == []


def test_a_collector_that_is_away_costs_spans_only():
    with exporting(traced(f"127.0.0.1:{free_ports(1)[0]}"), "feed", RUN):
        for _ in range(5000):  # more than the queue holds
            tracing.begin(tracing.FRAME).end()
    assert not tracing.enabled()


def test_only_https_is_encrypted():
    exporters = {
        endpoint: otlp_exporter(endpoint)
        for endpoint in ("127.0.0.1:1", "http://127.0.0.1:1", "https://127.0.0.1:1")
    }
    assert [exporter._insecure for exporter in exporters.values()] == [True, True, False]
    for exporter in exporters.values():
        exporter.shutdown()


def test_a_process_without_a_collector_does_not_even_import_what_sends(monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    machine = runtime.Runtime(None, RUN)
    assert isinstance(main._traced(Settings(), "feed", machine), nullcontext)
    settings = Settings(telemetry=traced("127.0.0.1:1"))
    assert isinstance(main._traced(settings, "verify", machine), nullcontext)  # no process
    assert not isinstance(main._traced(settings, "feed", machine), nullcontext)
    code = "import sys, servers.__main__; print('opentelemetry.sdk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), trace_export.__name__) == ("False", "servers.trace_export")
