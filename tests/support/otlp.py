"""An OTLP collector in a test: the service of `opentelemetry-proto`, which keeps what it gets."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc


@dataclass(frozen=True)
class Received:
    """A span as it came over the wire; ids in hexadecimal."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict
    links: tuple[tuple[str, str], ...]
    ok: bool

    def links_to(self, other):
        return (other.trace_id, other.span_id) in self.links


@dataclass
class Collector(rpc.TraceServiceServicer):
    """Keeps spans."""

    address: str = ""
    spans: list[Received] = field(default_factory=list)
    schema_urls: set[str] = field(default_factory=set)

    def Export(self, request, context):
        for resource in request.resource_spans:
            service = values(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                self.schema_urls.add(scope.schema_url)
                self.spans += [received(service, span) for span in scope.spans]
        return pb.ExportTraceServiceResponse()

    def named(self, name):
        return [span for span in self.spans if span.name == name]


@contextmanager
def collector(port=0):
    """Run a collector while the block lasts."""
    server = grpc.server(ThreadPoolExecutor(4))
    made = Collector()
    rpc.add_TraceServiceServicer_to_server(made, server)
    made.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    server.start()
    yield made
    server.stop(None).wait()


def received(service, span):
    return Received(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=values(span.attributes),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        ok=span.status.code != span.status.STATUS_CODE_ERROR,
    )


def values(attributes):
    """Attributes of one value each, as Python has them."""
    found = {}
    for each in attributes:
        kind = each.value.WhichOneof("value")
        found[each.key] = getattr(each.value, kind) if kind else None
    return found
