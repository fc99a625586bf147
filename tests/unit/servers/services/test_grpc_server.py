"""A listener: health by service, reflection, a port of its own, a drain that says so first."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

import k2client
from k2 import limits
from k2.clock import SystemClock
from k2.errors import Reason, Unavailable
from k2.lake.ingest.transition_list import TransitionReader
from k2.metrics import EVENTS
from k2.settings import Settings
from k2.v1 import degradation_service_pb2 as pb
from k2.v1 import degradation_service_pb2_grpc as rpc
from k2.v1 import query_service_pb2_grpc as query_rpc
from k2.v1.query_service_pb2 import PlanQueryRequest
from k2client.error_mapping import from_rpc
from servers.degradation_topic import DegradationTopic
from servers.heartbeat import Heartbeats
from servers.services import degradation_service, query_service
from servers.services.degradation_service import DegradationService
from servers.services.grpc_server import GrpcServer
from servers.services.rpc_status import RETRY_AFTER_S
from tests.fakes.wire import MemoryBoard, reason_of, served
from tests.support.eventually import eventually

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def service():
    made = DegradationService(
        heartbeats=Heartbeats(MemoryBoard(), SystemClock()),
        degradation=DegradationTopic(MemoryBoard(), SystemClock()),
        transitions=TransitionReader(lambda: None, lambda start: ()),
        settings=Settings(),
        clock=SystemClock(),
        draining=threading.Event(),
    )
    return degradation_service.NAME, made.register


def health(channel, name=""):
    request = health_pb2.HealthCheckRequest(service=name)
    return health_pb2_grpc.HealthStub(channel).Check(request).status


def test_health_is_told_by_service():
    with served(service(), ready=False) as (listener, channel):
        assert health(channel, degradation_service.NAME) == NOT_SERVING
        listener.ready()
        assert health(channel, degradation_service.NAME) == SERVING == health(channel)
        with pytest.raises(grpc.RpcError) as unknown:
            health(channel, "k2.v1.Nothing")
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_of_all_together_is_that_of_the_platform():
    with served(service()) as (listener, channel):
        listener.tell(well=False)
        assert (health(channel), health(channel, degradation_service.NAME)) == (
            NOT_SERVING,
            SERVING,
        )
        listener.tell(well=True)
        assert health(channel) == SERVING


def test_health_is_watched_and_says_not_serving_before_the_end():
    with served(service(), ready=False) as (listener, channel):
        request = health_pb2.HealthCheckRequest(service=degradation_service.NAME)
        states = health_pb2_grpc.HealthStub(channel).Watch(request)
        assert next(states).status == NOT_SERVING
        listener.ready()
        assert next(states).status == SERVING
        draining = threading.Thread(target=listener.drain)
        draining.start()
        assert next(states).status == NOT_SERVING
        states.cancel()
        draining.join(20)
        assert not draining.is_alive()


def test_reflection_lists_and_describes():
    with served(service()) as (_, channel):
        known = ProtoReflectionDescriptorDatabase(channel)
        names = set(known.get_services())
        assert names >= {degradation_service.NAME, "grpc.health.v1.Health"}
        described = DescriptorPool(known).FindServiceByName(degradation_service.NAME)
        assert {method.name for method in described.methods} == {
            *("GetDegradation", "WatchDegradation", "SetOverride", "ClearOverride"),
            *("ListTransitions", "InjectPressure"),
        }


class Blocking(rpc.DegradationServiceServicer):
    """Answers when it is released."""

    def __init__(self):
        self.released = threading.Event()

    def GetDegradation(self, request, context):
        assert self.released.wait(20)
        return pb.GetDegradationResponse()

    def WatchDegradation(self, request, context):
        yield pb.WatchDegradationResponse()

    def register(self, server):
        rpc.add_DegradationServiceServicer_to_server(self, server)


def counted(method):
    labels = {"service": degradation_service.NAME, "method": method, "code": "RESOURCE_EXHAUSTED"}
    return EVENTS.get_sample_value("k2_rpc_requests_total", labels) or 0


def test_more_calls_than_may_wait_are_refused_at_once_and_with_a_reason(monkeypatch):
    monkeypatch.setattr(limits, "GRPC_WORKERS", 1)
    monkeypatch.setattr(limits, "GRPC_CALLS_MAX", 3)
    blocking = Blocking()
    names = ("GetDegradation", "WatchDegradation")
    before = [counted(name) for name in names]
    with served((degradation_service.NAME, blocking.register)) as (listener, channel):
        stub, ask = rpc.DegradationServiceStub(channel), pb.GetDegradationRequest()
        taken = [stub.GetDegradation.future(ask, timeout=20) for _ in range(3)]
        eventually(lambda: listener._pool.full)
        assert listener.queued == 2
        assert listener.oldest_work_s > 0
        assert listener.longest_wait_s > 0
        with pytest.raises(grpc.RpcError) as once:
            stub.GetDegradation(ask, timeout=10)
        with pytest.raises(grpc.RpcError) as streamed:
            list(stub.WatchDegradation(pb.WatchDegradationRequest(), timeout=10))
        assert health(channel) == SERVING
        blocking.released.set()
        assert all(call.result() for call in taken)
        eventually(lambda: not listener._pool.full)
        assert list(stub.WatchDegradation(pb.WatchDegradationRequest(), timeout=10))
    for refused in (once.value, streamed.value):
        assert reason_of(refused) == ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")
        assert from_rpc(refused, "a:1").retry_after_s == RETRY_AFTER_S
    assert [counted(name) for name in names] == [count + 1 for count in before]


def register_query(server):
    query_rpc.add_QueryServiceServicer_to_server(query_rpc.QueryServiceServicer(), server)


def test_queries_leave_room_for_other_calls(monkeypatch):
    monkeypatch.setattr(limits, "GRPC_WORKERS", 2)
    monkeypatch.setattr(limits, "GRPC_QUERIES_MAX", 1)
    blocking = Blocking()
    services = {degradation_service.NAME: blocking.register, query_service.NAME: register_query}
    with served(*services.items()) as (listener, channel):
        stub, ask = rpc.DegradationServiceStub(channel), pb.GetDegradationRequest()
        first = stub.GetDegradation.future(ask, timeout=20)
        eventually(lambda: listener._pool.full_of_queries)
        eventually(lambda: listener.longest_wait_s == 0)  # a worker has taken it
        with pytest.raises(grpc.RpcError) as refused:
            query_rpc.QueryServiceStub(channel).PlanQuery(PlanQueryRequest(), timeout=10)
        second = stub.GetDegradation.future(ask, timeout=20)
        blocking.released.set()
        assert first.result()
        assert second.result()
    assert reason_of(refused.value) == ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")


def test_calls_at_once_are_all_answered_in_the_end(monkeypatch):
    monkeypatch.setattr(limits, "GRPC_WORKERS", 2)
    monkeypatch.setattr(limits, "GRPC_CALLS_MAX", 4)
    never = threading.Event()
    refused = []

    def sleep(_):
        refused.append(1)
        never.wait(0.01)

    with served(service()) as (listener, _):
        retry = k2client.Retry(sleep=sleep)
        k2 = k2client.connect(listener.address, retry=retry)
        with k2, ThreadPoolExecutor(40) as pool:
            levels = list(pool.map(lambda _: k2.degradation().level, range(400)))
    assert len(levels) == 400
    assert refused


def test_a_port_in_use_is_named():
    with served(service()) as (listener, _), pytest.raises(Unavailable) as caught:
        GrpcServer(listener.address, dict([service()]), SystemClock())
    assert caught.value.reason is Reason.PORT_IN_USE
