"""The trace that a call belongs to: that of the caller's own OpenTelemetry span, if there is one.

OpenTelemetry is no dependency of the client. A program that has a span has imported it, so the
client only looks whether it is there.
"""

from __future__ import annotations

import sys


def traceparent() -> str:
    """Return the W3C traceparent of the caller's current span; empty where there is none."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None or not hasattr(api, "get_current_span"):
        return ""
    context = api.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"
