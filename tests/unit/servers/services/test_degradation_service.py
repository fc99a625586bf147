"""DegradationService over a real socket, on heartbeats in memory."""

import threading

import grpc
import pytest

from k2 import limits
from k2.clock import ManualClock, SystemClock
from k2.v1 import degradation_service_pb2 as pb
from k2.v1 import degradation_service_pb2_grpc as rpc
from servers.heartbeat import Heartbeats
from servers.services import degradation_service
from servers.services.degradation_service import DegradationService
from tests.fakes.wire import MemoryBoard, beat, reason_of, served


@pytest.fixture
def board():
    return MemoryBoard({"lake": beat(), "query": beat("query")})


@pytest.fixture
def draining():
    return threading.Event()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def stub(board, draining, clock):
    service = DegradationService(
        heartbeats=Heartbeats(board, clock, expected=("feed", "lake", "query"), patience_s=0),
        clock=SystemClock(),
        draining=draining,
    )
    with served((degradation_service.NAME, service.register)) as (_, channel):
        yield rpc.DegradationServiceStub(channel)
        draining.set()


def test_the_platform_is_as_bad_as_its_worst_process(stub, board):
    board.put("feed", beat("feed", level="SOFT", pressures={"rss_bytes": 0.5, "feed_queue": 0.6}))
    found = stub.GetDegradation(pb.GetDegradationRequest()).degradation
    assert found.level == pb.DEGRADATION_LEVEL_SOFT
    assert "Enrichment" in found.summary
    assert [each.process for each in found.processes] == ["feed", "lake", "query"]
    assert [each.signal for each in found.processes[0].pressures] == ["feed_queue", "rss_bytes"]
    assert found.processes[1].pressures[0].reading == 5.0
    assert not found.processes[0].pressures[0].HasField("reading")


def test_a_process_never_heard_of_is_lost_and_its_signals_high(stub):
    found = stub.GetDegradation(pb.GetDegradationRequest()).degradation
    feed = found.processes[0]
    assert (feed.process, feed.state) == ("feed", "LOST")
    assert feed.pressures[0].pressure == 0.9
    assert not feed.HasField("report_time")
    assert found.level == pb.DEGRADATION_LEVEL_AGGRESSIVE


def test_a_stale_process_is_lost(stub, board, clock):
    clock.advance(limits.HEARTBEAT_STALE_S + 1)
    board.put("feed", beat("feed"))
    lake = stub.GetDegradation(pb.GetDegradationRequest()).degradation.processes[1]
    assert (lake.process, lake.state, lake.pressures[0].pressure) == ("lake", "LOST", 0.9)


def test_a_watch_starts_with_the_current_state_and_tells_changes(stub, board):
    board.put("feed", beat("feed"))
    watch = stub.WatchDegradation(pb.WatchDegradationRequest())
    assert next(watch).degradation.level == pb.DEGRADATION_LEVEL_NORMAL
    board.put("feed", beat("feed", level="CIRCUIT_BREAK"))
    assert next(watch).degradation.level == pb.DEGRADATION_LEVEL_CIRCUIT_BREAK


def test_a_watch_ends_when_the_server_drains(stub, draining):
    watch = stub.WatchDegradation(pb.WatchDegradationRequest())
    next(watch)
    draining.set()
    with pytest.raises(grpc.RpcError) as caught:
        list(watch)
    assert reason_of(caught.value) == ("UNAVAILABLE", "DRAINING")
