"""Around every call: a reason for each failure, watchers bounded, nobody from elsewhere."""

import ipaddress
import threading

import grpc
import pytest

from k2.clock import ManualClock
from k2.errors import Invalid, Overloaded, Reason, Unavailable
from k2.query.request import ANONYMOUS, RequestClass
from k2.v1 import degradation_service_pb2 as pb
from k2.v1 import degradation_service_pb2_grpc as rpc
from servers.services.interceptors import (
    CallAdmission,
    Incoming,
    caller_from,
    caller_of,
    chain,
    remaining_s,
)
from tests.fakes.wire import reason_of, served
from tests.support.eventually import eventually
from tests.support.scraped import Moved

NAME = "k2.v1.DegradationService"
CODES = ("OK", "UNAVAILABLE")


class Service(rpc.DegradationServiceServicer):
    """Does what `act` says."""

    def __init__(self, act):
        self.act = act

    def GetDegradation(self, request, context):
        self.act(context)
        return pb.GetDegradationResponse()

    def WatchDegradation(self, request, context):
        yield pb.WatchDegradationResponse()
        self.act(context)

    def register(self, server):
        rpc.add_DegradationServiceServicer_to_server(self, server)


def raising(error):
    def act(context):
        raise error

    return act


def get(channel, **more):
    return rpc.DegradationServiceStub(channel).GetDegradation(pb.GetDegradationRequest(), **more)


def watch(channel):
    return rpc.DegradationServiceStub(channel).WatchDegradation(pb.WatchDegradationRequest())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Overloaded(Reason.TAIL_FULL, "m"), ("RESOURCE_EXHAUSTED", "TAIL_FULL")),
        (Unavailable(Reason.TAIL_BEHIND, "m"), ("UNAVAILABLE", "TAIL_BEHIND")),
        (ZeroDivisionError("inside"), ("INTERNAL", "INTERNAL")),
    ],
)
def test_what_is_raised_becomes_a_status_with_a_reason(error, expected):
    with served((NAME, Service(raising(error)).register)) as (_, channel):
        with pytest.raises(grpc.RpcError) as once:
            get(channel)
        with pytest.raises(grpc.RpcError) as streamed:
            list(watch(channel))
    assert reason_of(once.value) == reason_of(streamed.value) == expected
    assert "inside" not in once.value.details()


def test_a_server_that_starts_or_drains_says_so():
    with served((NAME, Service(print).register), ready=False) as (listener, channel):
        with pytest.raises(grpc.RpcError) as starting:
            get(channel)
        listener.ready()
        get(channel)
        listener.admission.drain()
        with pytest.raises(grpc.RpcError) as draining:
            get(channel)
    assert reason_of(starting.value) == ("UNAVAILABLE", "STARTING")
    assert reason_of(draining.value) == ("UNAVAILABLE", "DRAINING")


def test_watchers_are_bounded_and_leave_their_place():
    admission = CallAdmission(watchers_max=1)
    admission.open()
    left = []

    class Context:
        def add_callback(self, callback):
            left.append(callback)
            return True

    call = type("Call", (), {"streams": True, "context": Context()})
    with admission.around(call):
        pass
    with pytest.raises(Overloaded) as full, admission.around(call):
        pass
    assert full.value.reason is Reason.TOO_MANY_QUERIES
    left.pop()()
    with admission.around(call):
        pass


def test_a_watcher_that_is_gone_already_keeps_no_place():
    admission = CallAdmission(watchers_max=1)
    admission.open()
    gone = type("Context", (), {"add_callback": lambda self, callback: False})()
    call = type("Call", (), {"streams": True, "context": gone})
    for _ in range(3):
        with admission.around(call):
            pass


def test_the_deadline_is_the_shorter_one():
    seen = []
    act = lambda context: seen.append(remaining_s(context))  # noqa: E731 as short as it is
    with served((NAME, Service(act).register)) as (_, channel):
        get(channel)
        get(channel, timeout=5)
        get(channel, timeout=500)
    assert 0 < seen[1] <= 5.1
    assert 59 < seen[0] <= 60
    assert 59 < seen[2] <= 60


def test_a_deadline_that_has_passed_is_refused():
    context = type("Context", (), {"time_remaining": lambda self: 0.0})()
    call = type("Call", (), {"context": context})
    around = chain(ManualClock(), CallAdmission())[-1]
    with pytest.raises(Overloaded), around._around(call):
        pass


def test_the_order_has_names():
    names = [each.name for each in chain(ManualClock(), CallAdmission())]
    assert names == ["traces", "telemetry", "errors", "auth", "admission", "deadline"]


@pytest.mark.parametrize(
    ("trusted", "said"),
    [((), "this machine only"), (("10.0.1.0/24",), "this machine and trusted networks only")],
)
def test_a_caller_from_elsewhere_is_refused(trusted, said):
    with pytest.raises(Invalid, match=said) as refused:
        admitted("ipv4:10.0.0.3:1", trusted)
    assert refused.value.reason is Reason.NOT_LOCAL


@pytest.mark.parametrize("peer", ["ipv4:10.0.0.3:1", "ipv6:%5B::ffff:10.0.0.3%5D:1"])
def test_a_caller_of_a_trusted_network_is_taken(peer):
    assert admitted(peer, ("10.0.0.0/24",)).client == peer


def admitted(peer, trusted):
    """The caller of a call from a peer."""
    networks = tuple(ipaddress.ip_network(network) for network in trusted)
    around = chain(ManualClock(), CallAdmission(), networks)[3]._around
    methods = {"peer": lambda self: peer, "invocation_metadata": lambda self: ()}
    context = type("Context", (), methods)()
    with around(Incoming("/k2.v1.X/Y", False, context)):
        return caller_of(context)


def test_a_handler_knows_its_caller():
    seen = []
    act = lambda context: seen.append(caller_of(context))  # noqa: E731 as short as it is
    with served((NAME, Service(act).register)) as (_, channel):
        get(channel)
        get(channel, metadata=(("k2-class", "batch"),))
        list(watch(channel))
        with pytest.raises(grpc.RpcError) as caught:
            get(channel, metadata=(("k2-class", "urgent"),))
    classes = [caller.request_class for caller in seen]
    assert classes == [RequestClass.INTERACTIVE, RequestClass.BATCH, RequestClass.INTERACTIVE]
    assert {caller.principal for caller in seen} == {ANONYMOUS}
    assert reason_of(caught.value) == ("INVALID_ARGUMENT", "BAD_REQUEST")


def test_many_calls_at_once_all_answer():
    started = threading.Barrier(8, timeout=10)
    with served((NAME, Service(lambda context: started.wait()).register)) as (_, channel):
        stub = rpc.DegradationServiceStub(channel)
        calls = [stub.GetDegradation.future(pb.GetDegradationRequest()) for _ in range(8)]
        assert all(call.result(timeout=10) is not None for call in calls)


def test_a_caller_is_the_name_it_gives_itself_else_its_connection():
    assert caller_from({"k2-client-id": "x" * 1000}, "ipv4:127.0.0.1:9").client == "x" * 64
    assert caller_from({}, "ipv4:127.0.0.1:9").name == "ipv4:127.0.0.1:9"
    assert caller_from({"k2-client-id": ""}, "p").client == "p"


def test_a_caller_with_an_api_key_is_that_key_and_shows_a_digest_of_it():
    one, again, other = (
        caller_from({"x-api-key": key, "k2-client-id": name}, "p").client
        for key, name in (("secret", "a"), ("secret", "b"), ("another", "a"))
    )
    assert one == again != other
    assert one.startswith("key:")
    assert "secret" not in one


def test_calls_are_measured_by_service_method_and_code():
    named = {"service": NAME, "method": "GetDegradation"}
    counted = [Moved("k2_rpc_requests_total", code=code, **named) for code in CODES]
    timed = [Moved("k2_rpc_duration_seconds_count", code=code, **named) for code in CODES]
    running = Moved("k2_rpc_running")
    during, failing = [], []

    def act(context):
        during.append(running.by())
        if failing:
            raise Unavailable(Reason.STARTING, "not yet")

    with served((NAME, Service(act).register)) as (_, channel):
        get(channel)
        failing.append(True)
        with pytest.raises(grpc.RpcError):
            get(channel)
        eventually(lambda: [moved.by() for moved in timed] == [1, 1])
    assert ([moved.by() for moved in counted], during, running.by()) == ([1, 1], [1, 1], 0)
