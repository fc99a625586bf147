"""Spans that a collector got, as text: a tree of each trace, as `docs/observability.md` shows one.

`python -m tests.support.trace_text ENDPOINT_PORT SECONDS` is a collector that prints the largest
traces it got in that time.
"""

import sys
import threading

from tests.support.otlp import collector

_LINKS_SHOWN = 1
_SHOWN = (
    "messaging.batch.message_count", "messaging.destination.partition.id", "kafka.offset",
    "rpc.status_code", "db.system.name", "k2.frames", "k2.rows", "k2.rows.lake", "k2.rows.tail",
    "k2.files", "k2.positions", "k2.snapshot_id", "k2.consistency",
)  # fmt: skip


def text_of(spans, trace_id):
    """The spans of a trace, indented below their parents, in the order they began."""
    of_trace = sorted((s for s in spans if s.trace_id == trace_id), key=lambda s: s.start_ns)
    known = {span.span_id for span in of_trace}
    first_ns = of_trace[0].start_ns
    lines = [f"trace {trace_id}"]

    def add(span, depth):
        began_ms, took_ms = (span.start_ns - first_ns) / 1e6, (span.end_ns - span.start_ns) / 1e6
        name = "  " * depth + span.name
        shown = [f"{key}={span.attributes[key]}" for key in _SHOWN if key in span.attributes]
        linked = [f"-> {trace[:8]}…/{span_id}" for trace, span_id in span.links[-_LINKS_SHOWN:]]
        more = len(span.links) - len(linked)
        lines.append(f"{began_ms:7.1f} {took_ms:6.1f} ms  {name:<50} {span.service} {span.span_id}")
        said = [*shown, *linked, *([f"and {more} more"] if more else [])]
        lines.extend([" " * 23 + "  " * depth + " ".join(said)] if said else [])
        for each in of_trace:
            if each.parent_id == span.span_id:
                add(each, depth + 1)

    for root in of_trace:
        if root.parent_id not in known:
            add(root, 0)
    return "\n".join(line.rstrip() for line in lines)


def main(port, seconds):
    with collector(int(port)) as there:
        threading.Event().wait(float(seconds))
    sizes = {}
    for span in there.spans:
        sizes[span.trace_id] = sizes.get(span.trace_id, 0) + 1
    for trace_id in sorted(sizes, key=sizes.get)[-3:]:
        print(text_of(there.spans, trace_id), end="\n\n")  # noqa: T201 what it is for


if __name__ == "__main__":
    main(*sys.argv[1:])
