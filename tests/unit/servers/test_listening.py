"""A listener: health by service, reflection, a port of its own, a drain that says so first."""

import threading

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from k2.clock import SystemClock
from k2.errors import Invalid, Reason, Unavailable
from servers import degradation
from servers.degradation import DegradationService
from servers.heartbeat import Heartbeats
from servers.listening import Listener, split_address
from tests.fakes.wire import MemoryBoard, served

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def service():
    made = DegradationService(
        heartbeats=Heartbeats(MemoryBoard(), SystemClock()),
        clock=SystemClock(),
        draining=threading.Event(),
    )
    return degradation.NAME, made.register


def health(channel, name=""):
    request = health_pb2.HealthCheckRequest(service=name)
    return health_pb2_grpc.HealthStub(channel).Check(request).status


def test_health_is_told_by_service():
    with served(service(), ready=False) as (listener, channel):
        assert health(channel, degradation.NAME) == NOT_SERVING
        listener.ready()
        assert health(channel, degradation.NAME) == SERVING == health(channel)
        with pytest.raises(grpc.RpcError) as unknown:
            health(channel, "k2.v1.Nothing")
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_of_all_together_is_that_of_the_platform():
    with served(service()) as (listener, channel):
        listener.tell(well=False)
        assert (health(channel), health(channel, degradation.NAME)) == (NOT_SERVING, SERVING)
        listener.tell(well=True)
        assert health(channel) == SERVING


def test_health_is_watched_and_says_not_serving_before_the_end():
    with served(service(), ready=False) as (listener, channel):
        request = health_pb2.HealthCheckRequest(service=degradation.NAME)
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
        assert names >= {degradation.NAME, "grpc.health.v1.Health"}
        described = DescriptorPool(known).FindServiceByName(degradation.NAME)
        assert {method.name for method in described.methods} == {
            "GetDegradation",
            "WatchDegradation",
        }


def test_a_port_in_use_is_named():
    with served(service()) as (listener, _), pytest.raises(Unavailable) as caught:
        Listener(listener.address, dict([service()]), SystemClock())
    assert caught.value.reason is Reason.PORT_IN_USE


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:1", "10.0.0.1:1", "nowhere", "127.0.0.1:x", "[::1]:-1"]
)
def test_only_addresses_of_this_machine_are_listened_on(listen):
    with pytest.raises(Invalid) as caught:
        split_address(listen)
    assert caught.value.reason is Reason.BAD_SETTING


def test_loopback_addresses():
    assert split_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert split_address("localhost:50051") == ("localhost", 50051)
    assert split_address("[::1]:7") == ("[::1]", 7)
