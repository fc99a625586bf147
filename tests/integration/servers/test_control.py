"""The control process on a real tape: listed, described and called as grpcurl would."""

import json

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from k2.clock import SystemClock
from servers.local.stack_file import holding
from tests.fakes.wire import reason_of
from tests.integration.servers.wire import channel_to, deployed, running
from tests.support.eventually import eventually

pytestmark = pytest.mark.integration
SERVICES = {
    "k2.v1.QueryService": {"PlanQuery"},
    "k2.v1.SnapshotService": {"ListSnapshots", "GetSnapshot", "WatchSnapshots"},
    "k2.v1.DegradationService": {
        "GetDegradation",
        "WatchDegradation",
        "SetOverride",
        "ClearOverride",
        "ListTransitions",
        "InjectPressure",
    },
    "k2.v1.FeedService": {"ListFeeds", "WatchFeeds", "ListGaps", "Backfill"},
    "k2.v1.PlatformService": {
        "GetStatus",
        "GetSettings",
        "VerifyIntegrity",
        "Compact",
        "ExpireSnapshots",
        "ListTopics",
    },
    "k2.v1.DeadLetterService": {"ListDeadLetters", "GetDeadLetter", "ReplayDeadLetters"},
}


@pytest.fixture(scope="module")
def settings(broker, registry, tmp_path_factory):
    return deployed(broker, registry, tmp_path_factory.mktemp("control"), "control.trades")[0]


@pytest.fixture(scope="module")
def channel(settings):
    with running("control", settings) as addresses, channel_to(addresses["grpc"]) as channel:
        yield channel


class Reflected:
    """Calls methods by name, knowing only what reflection says of them."""

    def __init__(self, channel):
        self._channel = channel
        self.known = ProtoReflectionDescriptorDatabase(channel)
        self._pool = DescriptorPool(self.known)

    def methods(self, service):
        return {each.name for each in self._pool.FindServiceByName(service).methods}

    def call(self, service, method, **fields):
        found = self._pool.FindServiceByName(service).FindMethodByName(method)
        asked = json_format.ParseDict(fields, GetMessageClass(found.input_type)())
        streams = found.server_streaming
        path = f"/{service}/{method}"
        kind = self._channel.unary_stream if streams else self._channel.unary_unary
        answer = kind(
            path,
            request_serializer=type(asked).SerializeToString,
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )(asked, timeout=20)
        first = next(answer) if streams else answer
        if streams:
            answer.cancel()
        return json_format.MessageToDict(first)


@pytest.fixture(scope="module")
def reflected(channel):
    return Reflected(channel)


def test_reflection_lists_and_describes_all(reflected):
    names = set(reflected.known.get_services())
    assert names >= {*SERVICES, "grpc.health.v1.Health"}
    assert {name: reflected.methods(name) for name in SERVICES} == SERVICES


def test_every_service_is_healthy(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", *SERVICES):
        request = health_pb2.HealthCheckRequest(service=name)
        assert stub.Check(request).status == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(request)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


def test_it_is_not_healthy_while_a_part_of_its_stack_is_given_up(channel, settings):
    stub = health_pb2_grpc.HealthStub(channel)

    def status():
        return stub.Check(health_pb2.HealthCheckRequest()).status

    run = settings.data_dir / "run"
    run.mkdir(exist_ok=True)
    record = {"processes": [{"name": "lake", "state": "FAILING"}]}
    (run / "stack.json").write_text(json.dumps(record))
    assert status() == health_pb2.HealthCheckResponse.SERVING  # no stack runs there
    with holding(run, SystemClock()):
        eventually(lambda: status() == health_pb2.HealthCheckResponse.NOT_SERVING)
    eventually(lambda: status() == health_pb2.HealthCheckResponse.SERVING)
    (run / "stack.json").unlink()


def test_every_answer_comes_by_reflection_alone(reflected):
    assert reflected.call("k2.v1.SnapshotService", "ListSnapshots") == {}
    assert reflected.call("k2.v1.SnapshotService", "WatchSnapshots") == {}

    def feed_state():
        return reflected.call("k2.v1.FeedService", "ListFeeds")["feeds"][0]["state"]

    eventually(lambda: feed_state() == "LOST")
    assert reflected.call("k2.v1.FeedService", "WatchFeeds")["feeds"]
    level = reflected.call("k2.v1.DegradationService", "GetDegradation")["degradation"]
    states = {one["process"]: one["state"] for one in level["processes"]}
    assert states.items() >= {"control": "SERVING", "feed": "LOST", "lake": "LOST"}.items()
    assert level["level"].startswith("DEGRADATION_LEVEL_")
    assert reflected.call("k2.v1.DegradationService", "WatchDegradation")["degradation"]
    settings = reflected.call("k2.v1.PlatformService", "GetSettings")["settings"]
    assert {"name": "ticket_key", "value": "null"} in settings


def test_status_tells_what_is_there_and_what_is_not(reflected):
    def states():
        status = reflected.call("k2.v1.PlatformService", "GetStatus")
        found = {each["name"]: each["state"] for each in status["components"]}
        return {name: found.get(name) for name in expected}  # others may have beaten on this broker

    expected = {
        "broker": "COMPONENT_STATE_SERVING",
        "registry": "COMPONENT_STATE_SERVING",
        "control": "COMPONENT_STATE_SERVING",
        "feed": "COMPONENT_STATE_LOST",
        "lake": "COMPONENT_STATE_LOST",
        "query": "COMPONENT_STATE_LOST",
    }
    eventually(lambda: states() == expected)


@pytest.mark.parametrize(
    ("service", "method", "fields", "expected"),
    [
        ("Snapshot", "GetSnapshot", {}, ("NOT_FOUND", "UNKNOWN_SNAPSHOT")),
        ("Snapshot", "GetSnapshot", {"snapshotId": "7"}, ("NOT_FOUND", "UNKNOWN_SNAPSHOT")),
        ("Snapshot", "ListSnapshots", {"pageSize": -1}, ("INVALID_ARGUMENT", "BAD_REQUEST")),
        ("Snapshot", "WatchSnapshots", {"afterSnapshotId": "7"}, ("NOT_FOUND", "UNKNOWN_SNAPSHOT")),
        ("Feed", "ListFeeds", {"pageToken": "x"}, ("INVALID_ARGUMENT", "BAD_PAGE_TOKEN")),
        ("Query", "PlanQuery", {"trades": {}}, ("UNAVAILABLE", "PEER_UNAVAILABLE")),
    ],
)
def test_failures_have_reasons(reflected, service, method, fields, expected):
    with pytest.raises(grpc.RpcError) as caught:
        reflected.call(f"k2.v1.{service}Service", method, **fields)
    assert reason_of(caught.value) == expected


def test_a_second_server_on_the_port_is_refused_by_name(settings):
    with (
        running("control", settings) as addresses,
        pytest.raises(AssertionError, match="PORT_IN_USE"),
        running("control", settings, K2_CONTROL__LISTEN=addresses["grpc"]),
    ):
        pass


def test_it_drains_on_sigterm_with_watchers_on(settings):
    with running("control", settings) as addresses, channel_to(addresses["grpc"]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        reflected = Reflected(channel)
        eventually(lambda: reflected.call("k2.v1.FeedService", "WatchFeeds"))
