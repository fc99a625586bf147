import grpc
import pytest

from k2 import tracing
from k2.errors import NotFound, Reason
from k2.v1 import degradation_service_pb2 as pb
from servers.services.call_spans import flight_span, traced_metadata
from tests.fakes.wire import served
from tests.support.spans import links_of, parent_of, recorded, span_id_of, trace_of
from tests.unit.servers.services.test_interceptors import NAME, Service, get, watch

CALLER = f"00-{1:032x}-{2:016x}-01"


def test_a_call_is_part_of_its_callers_trace():
    def act(context):
        tracing.begin(tracing.PLAN).end()

    with recorded() as spans, served((NAME, Service(act).register)) as (_, channel):
        get(channel, metadata=(("traceparent", CALLER),))
        list(watch(channel))
    plan, call, _, stream = spans()
    assert (call.name, trace_of(call), parent_of(call)) == (
        "k2.v1.DegradationService/GetDegradation", f"{1:032x}", f"{2:016x}"
    )  # fmt: skip
    assert dict(call.attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": "k2.v1.DegradationService/GetDegradation",
        "rpc.status_code": "OK",
    }
    assert parent_of(plan) == span_id_of(call)
    assert (stream.name, stream.parent) == ("k2.v1.DegradationService/WatchDegradation", None)


def test_a_failed_call_says_how():
    def act(context):
        raise NotFound(Reason.UNKNOWN_SYMBOL, "no such")

    with (
        recorded() as spans,
        served((NAME, Service(act).register)) as (_, channel),
        pytest.raises(grpc.RpcError),
    ):
        get(channel)
    (call,) = spans()
    assert call.attributes["rpc.status_code"] == "NOT_FOUND"
    assert not call.status.is_ok


def test_a_call_goes_on_with_its_context():
    asked = (("traceparent", CALLER), ("x-api-key", "k"))
    assert traced_metadata(asked) == asked
    with recorded(), tracing.begin("call") as span:
        assert traced_metadata(asked) == (asked[1], ("traceparent", *span.traceparents))


def test_a_flight_call_is_of_its_caller_else_of_the_plan():
    planned = f"00-{3:032x}-{4:016x}-01"
    with recorded() as spans:
        for parents in (("", ""), (CALLER, planned), ("", planned)):
            flight_span("DoGet", *parents).end()
    alone, callers, plans = spans()
    assert alone.name == "arrow.flight.protocol.FlightService/DoGet"
    assert (alone.parent, parent_of(callers), parent_of(plans)) == (None, f"{2:016x}", f"{4:016x}")
    assert (links_of(callers), links_of(plans)) == ([f"{4:016x}"], [])


def test_without_a_collector_there_are_no_spans():
    with served((NAME, Service(lambda context: None).register)) as (_, channel):
        assert get(channel, metadata=(("traceparent", "x"),)) == pb.GetDegradationResponse()
    assert flight_span("DoGet", CALLER) is tracing.OFF
