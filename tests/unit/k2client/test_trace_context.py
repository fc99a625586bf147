import subprocess
import sys

from k2 import tracing
from k2client.trace_context import traceparent
from tests.support.spans import recorded


def test_a_call_belongs_to_the_span_of_its_caller():
    assert traceparent() == ""
    with recorded(), tracing.begin("caller") as span:
        assert [traceparent()] == [*span.traceparents]
    with recorded(0.0), tracing.begin("caller"):
        assert traceparent() == tracing.traceparent()
    assert traceparent() == ""


def test_the_client_does_not_import_opentelemetry():
    code = (
        "import sys, k2client, k2client.trace_context as found;"
        "print(found.traceparent(), [name for name in sys.modules if 'opentelemetry' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]
