"""DegradationService over a real socket, on heartbeats in memory."""

import threading

import grpc
import pytest
from google.protobuf import duration_pb2

from k2 import limits
from k2.clock import ManualClock, SystemClock
from k2.degrade.level import Level
from k2.degrade.platform import LOST_SOON
from k2.degrade.transition import Transition, TransitionCause
from k2.lake.ingest.transition_list import TransitionReader
from k2.settings import Settings
from k2.v1 import degradation_service_pb2 as pb
from k2.v1 import degradation_service_pb2_grpc as rpc
from servers.degradation_topic import DegradationTopic, Override
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
def said():
    return DegradationTopic(MemoryBoard(), SystemClock())


@pytest.fixture
def changes():
    return []


@pytest.fixture
def stub(board, draining, clock, said, changes):
    service = DegradationService(
        heartbeats=Heartbeats(board, clock, expected=("feed", "lake", "query"), patience_s=0),
        degradation=said,
        transitions=TransitionReader(lambda: None, lambda start: [*enumerate(changes)][start:]),
        settings=Settings(degrade={"shadow": True}),
        clock=SystemClock(),
        draining=draining,
    )
    with served((degradation_service.NAME, service.register)) as (_, channel):
        yield rpc.DegradationServiceStub(channel)
        draining.set()


def seconds(number):
    return duration_pb2.Duration(seconds=number)


def degradation(stub):
    return stub.GetDegradation(pb.GetDegradationRequest()).degradation


def test_the_level_is_the_published_one_with_the_processes_behind_it(stub, board, said):
    said.put_platform(Level.SOFT)
    board.put("feed", beat("feed", level="SOFT", pressures={"rss_bytes": 0.5, "feed_queue": 0.6}))
    found = degradation(stub)
    assert found.level == pb.DEGRADATION_LEVEL_SOFT
    assert "Enrichment" in found.summary
    assert [each.process for each in found.processes] == ["feed", "lake", "query"]
    assert [each.signal for each in found.processes[0].pressures] == ["feed_queue", "rss_bytes"]
    assert found.processes[1].pressures[0].reading == 5.0
    assert not found.processes[0].pressures[0].HasField("reading")
    assert (found.injected, found.HasField("override"), found.shadow) == (False, False, True)


def test_an_injected_pressure_is_marked(stub, board):
    board.put("feed", beat("feed", pressures={"rss_bytes": 0.5}, injected=["rss_bytes"]))
    found = degradation(stub)
    assert found.injected
    assert [each.pressures[0].injected for each in found.processes] == [True, False, False]


def test_a_level_that_an_injection_raised_is_marked_after_its_end(stub, board, said):
    board.put("feed", beat("feed"))
    said.put_platform(Level.SOFT, injected=True)
    assert degradation(stub).injected
    said.put_platform(Level.NORMAL)
    assert not degradation(stub).injected


def test_a_process_never_heard_of_is_lost_and_presses(stub):
    feed = degradation(stub).processes[0]
    assert (feed.process, feed.state) == ("feed", "LOST")
    assert feed.level == pb.DEGRADATION_LEVEL_SOFT
    assert feed.pressures[0].pressure == LOST_SOON
    assert not feed.HasField("report_time")


def test_a_stale_process_is_lost(stub, board, clock):
    clock.advance(limits.HEARTBEAT_STALE_S + 1)
    board.put("feed", beat("feed"))
    lake = degradation(stub).processes[1]
    assert (lake.process, lake.state) == ("lake", "LOST")
    assert lake.pressures[0].pressure == LOST_SOON


def test_a_watch_starts_with_the_current_state_and_tells_changes(stub, board, said):
    board.put("feed", beat("feed"))
    watch = stub.WatchDegradation(pb.WatchDegradationRequest())
    assert next(watch).degradation.level == pb.DEGRADATION_LEVEL_NORMAL
    said.put_platform(Level.CIRCUIT_BREAK)
    board.put("feed", beat("feed"))
    assert next(watch).degradation.level == pb.DEGRADATION_LEVEL_CIRCUIT_BREAK
    now_us = SystemClock().now_us()
    said.put_override(Override(Level.SOFT, "a test", now_us, now_us + 10**9))
    assert next(watch).degradation.override.reason == "a test"


def test_a_watch_ends_when_the_server_drains(stub, draining):
    watch = stub.WatchDegradation(pb.WatchDegradationRequest())
    next(watch)
    draining.set()
    with pytest.raises(grpc.RpcError) as caught:
        list(watch)
    assert reason_of(caught.value) == ("UNAVAILABLE", "DRAINING")


def test_an_override_holds_until_it_is_cleared(stub, said):
    said.put_platform(Level.AGGRESSIVE)
    request = pb.SetOverrideRequest(
        level=pb.DEGRADATION_LEVEL_NORMAL, duration=seconds(60), reason="a rehearsal"
    )
    made = stub.SetOverride(request).override
    assert (made.reason, made.expire_time.seconds - made.set_time.seconds) == ("a rehearsal", 60)
    found = degradation(stub)
    assert (found.level, found.override) == (pb.DEGRADATION_LEVEL_NORMAL, made)
    assert stub.ClearOverride(pb.ClearOverrideRequest()).ended == made
    assert degradation(stub).level == pb.DEGRADATION_LEVEL_AGGRESSIVE
    assert not stub.ClearOverride(pb.ClearOverrideRequest()).HasField("ended")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"level": 0}, "level"),
        ({"level": 77}, "level"),
        ({"duration": seconds(0)}, "duration"),
        ({"duration": seconds(int(limits.OVERRIDE_MAX_S) + 1)}, "duration"),
        ({"reason": ""}, "reason"),
        ({"reason": "x" * (limits.OVERRIDE_REASON_MAX + 1)}, "reason"),
    ],
)
def test_an_override_needs_a_level_an_end_and_a_reason(stub, changed, field):
    good = {"level": pb.DEGRADATION_LEVEL_SOFT, "duration": seconds(60), "reason": "r"}
    with pytest.raises(grpc.RpcError) as caught:
        stub.SetOverride(pb.SetOverrideRequest(**good | changed))
    assert reason_of(caught.value) == ("INVALID_ARGUMENT", "BAD_REQUEST")
    assert field in caught.value.details()


@pytest.mark.parametrize(("process", "into"), [("", {"lake", "query"}), ("lake", {"lake"})])
def test_a_pressure_is_injected_into_one_process_or_all(stub, said, process, into):
    request = pb.InjectPressureRequest(
        signal="rss_bytes", pressure=0.9, duration=seconds(60), process=process
    )
    assert stub.InjectPressure(request).HasField("expire_time")
    assert {name for name in ("lake", "query") if said.injected(name)} == into


@pytest.mark.parametrize(
    "changed",
    [
        {"signal": "mood"},
        {"process": "nosuch"},
        {"pressure": 1.1},
        {"pressure": -0.1},
        {"duration": seconds(0)},
        {"duration": seconds(int(limits.INJECTION_MAX_S) + 1)},
    ],
)
def test_an_injection_has_bounds(stub, changed):
    good = {"signal": "rss_bytes", "pressure": 0.5, "duration": seconds(9)}
    with pytest.raises(grpc.RpcError) as caught:
        stub.InjectPressure(pb.InjectPressureRequest(**good | changed))
    assert reason_of(caught.value) == ("INVALID_ARGUMENT", "BAD_REQUEST")


def test_changes_are_listed_in_pages_the_newest_first(stub, changes):
    rise = Transition(
        *(5, Level.NORMAL, Level.SOFT, TransitionCause.PRESSURE, "lake", "rss_bytes", 7.0),
        *(0.6, 0.5),
        injected=True,
    )
    ended = Transition(6, Level.NORMAL, Level.SOFT, TransitionCause.OVERRIDE_ENDED, reason="r")
    changes += [rise, ended]
    first = stub.ListTransitions(pb.ListTransitionsRequest(page_size=1))
    (made,) = first.transitions
    assert (made.cause, made.reason, made.HasField("reading")) == ("OVERRIDE_ENDED", "r", False)
    request = pb.ListTransitionsRequest(page_size=1, page_token=first.next_page_token)
    second = stub.ListTransitions(request)
    (made,) = second.transitions
    assert second.next_page_token == ""
    assert (made.from_level, made.to_level) == (
        pb.DEGRADATION_LEVEL_NORMAL,
        pb.DEGRADATION_LEVEL_SOFT,
    )
    assert (made.process, made.signal, made.reading) == ("lake", "rss_bytes", 7.0)
    assert (made.pressure, made.threshold, made.injected) == (0.6, 0.5, True)
    assert made.time.ToMicroseconds() == 5
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListTransitions(pb.ListTransitionsRequest(page_token="x"))
    assert reason_of(caught.value) == ("INVALID_ARGUMENT", "BAD_PAGE_TOKEN")
