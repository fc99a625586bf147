"""A process beats from its start to its end, and says what it does."""

import io
import json
import urllib.request
from dataclasses import dataclass
from types import SimpleNamespace
from urllib.error import URLError

import pytest

from k2 import limits
from k2.clock import ManualClock
from k2.degrade.level import Level
from k2.degrade.platform import Levels
from k2.degrade.policy import POLICIES
from k2.degrade.signals import Signal
from k2.errors import Data, Reason
from k2.settings import Settings
from k2.tape import topics
from k2.telemetry import Counter
from servers.degradation_topic import Override
from servers.process import EVALUATED_AGE, Process
from servers.runtime import Runtime
from tests.fakes.wire import MemoryBoard

AWAY = {"bootstrap": "127.0.0.1:1"}


@dataclass(frozen=True)
class Counters:
    """Of a lake."""

    commits: Counter


class Board(MemoryBoard):
    """Heartbeats in memory, each kept."""

    def __init__(self):
        super().__init__()
        self.beats = []

    def put(self, key, value, wait_s=None):
        self.beats.append(value)
        super().put(key, value, wait_s)

    def start(self):
        pass

    def states(self):
        return [beat["state"] for beat in self.beats]


@pytest.fixture
def board():
    return Board()


@pytest.fixture
def runtime():
    return Runtime(ManualClock(), "r", out=io.StringIO())


def running(process, board, runtime, tmp_path, *, metrics=False, **named):
    """A process whose heartbeats stay in memory."""
    settings = Settings(data_dir=tmp_path, tape=AWAY, telemetry={"metrics": metrics})
    made = Process(process, named.get("name", process), settings, runtime, None)
    boards = {topics.DEGRADATION: MemoryBoard()}
    made.clients = SimpleNamespace(topic=lambda name: boards.get(name, board))
    return made


def said(runtime):
    return [json.loads(line) for line in runtime.out.getvalue().splitlines()]


def test_it_beats_until_all_that_began_later_has_ended(board, runtime, tmp_path):
    process = running("lake", board, runtime, tmp_path)
    process.counters.add(lambda: Counters(3))
    ended = []
    with process.ending:
        process.ending.callback(lambda: ended.append(("first", board.states())))
        process.start({}, lambda: {Signal.COMMIT_LATENCY_S: 0.5})
        process.serve()
        process.ending.callback(lambda: ended.append(("last", board.states())))
    assert ended == [("last", ["SERVING"]), ("first", ["SERVING", "DRAINING"])]
    beat = board.beats[0]
    assert (beat["process"], beat["run_id"], beat["counters"]) == ("lake", "r", {"commits": 3})
    assert beat["signals"][Signal.COMMIT_LATENCY_S] == 0.5
    assert beat["signals"][Signal.RSS_BYTES] > 0
    assert said(runtime)[0] == {"event": "serving", "addresses": {}}


def test_a_copy_that_starts_has_its_own_name_and_serves_later(board, runtime, tmp_path):
    process = running("feed", board, runtime, tmp_path, name="feed-2")
    with process.ending:
        process.start({}, state="STARTING")
        process.serve()
    assert board.states() == ["STARTING", "SERVING", "DRAINING"]
    assert {beat["process"] for beat in board.beats} == {"feed-2"}


def test_progress_is_told_while_it_is_made_once_the_process_serves(board, runtime, tmp_path):
    process, commits = running("lake", board, runtime, tmp_path), [7]
    process.counters.add(lambda: Counters(commits[0]))
    process._sample()
    assert said(runtime) == []
    runtime.serving.set()
    for commits[0] in (0, 1, 2, 2, 2, 3):
        process._sample()
        runtime.clock.advance(limits.PROGRESS_TOLD_S * 0.6)
    assert [line["commits"] for line in said(runtime)] == [1, 2, 3]
    assert {line["event"] for line in said(runtime)} == {"progressed"}


def pressed(process, pressing):
    """Start it with a signal whose pressure is 0 or 1."""
    process._common = SimpleNamespace(read=dict)
    process.start({}, lambda: {Signal.COMMIT_LATENCY_S: pressing[0] and 1e9})


def ticks(process, count=8):
    for _ in range(count):
        process._heart.tick()
        process.runtime.clock.advance(limits.SIGNAL_INTERVAL_S)


def test_levels_are_told_when_they_change(board, runtime, tmp_path):
    process, told, pressing = running("control", board, runtime, tmp_path), [], [0]
    process.subscribe(told.append)
    ticked = []
    process.on_tick(lambda: ticked.append(process.levels.own))
    with process.ending:
        pressed(process, pressing)
        ticks(process)
        pressing[0] = 1
        ticks(process)
        assert process.reading.pressure == 1.0
        process.degradation.put_platform(Level.SOFT)
        ticks(process)
    assert told == [
        Levels(),
        Levels(own=Level.CIRCUIT_BREAK, pressure=1.0),
        Levels(own=Level.CIRCUIT_BREAK, platform=Level.SOFT, pressure=1.0),
    ]
    assert process.levels.policy is POLICIES[Level.CIRCUIT_BREAK]
    assert ticked[0] is Level.NORMAL
    assert ticked[-1] is Level.CIRCUIT_BREAK


def test_in_shadow_mode_the_level_is_said_and_not_obeyed(board, runtime, tmp_path, caplog):
    process = running("lake", board, runtime, tmp_path)
    process.levels = Levels(shadow=True)
    with process.ending, caplog.at_level("INFO"):
        pressed(process, [1])
        ticks(process)
        assert process.levels.effective is Level.NORMAL
        assert process.levels.own is Level.CIRCUIT_BREAK
    (line,) = [line for line in caplog.messages if "CIRCUIT_BREAK would hold" in line]
    assert line.endswith("Tiers paused: high, normal, low.")


def test_an_injected_pressure_replaces_that_of_its_signal(board, runtime, tmp_path):
    process, pressing = running("lake", board, runtime, tmp_path), [1]
    assert process.reading.pressures == {}
    with process.ending:
        pressed(process, pressing)
        until_us = runtime.clock.now_us() + 1_000_000
        process.degradation.inject("lake", Signal.COMMIT_LATENCY_S, 0.25, until_us)
        ticks(process, 1)
        assert process.reading.pressures[Signal.COMMIT_LATENCY_S] == 0.25
        assert process.reading.signals[Signal.COMMIT_LATENCY_S] == 1e9
        assert process.reading.injected == (Signal.COMMIT_LATENCY_S,)
        runtime.clock.advance(1)
        ticks(process, 1)
        assert process.reading.pressures[Signal.COMMIT_LATENCY_S] == 1.0


def test_the_memory_of_a_process_demands_more_than_an_override(board, runtime, tmp_path):
    process = running("lake", board, runtime, tmp_path)
    with process.ending:
        pressed(process, [0])
        now_us = runtime.clock.now_us()
        process.degradation.put_override(Override(Level.SOFT, "test", now_us, now_us + 10**9))
        ticks(process, 1)
        assert process.levels.effective is Level.SOFT
        process._common = SimpleNamespace(read=lambda: {Signal.RSS_BYTES: None})
        process.degradation.inject("*", Signal.RSS_BYTES, 0.0, now_us + 10**9)
        ticks(process)
        assert process.levels.own is Level.NORMAL, "an injected pressure hides the real one"
        assert process.levels.effective is Level.AGGRESSIVE, "and no need"


def test_every_process_reads_its_memory_its_disk_and_how_late_it_wakes(board, runtime, tmp_path):
    process = running("lake", board, runtime, tmp_path)
    with process.ending:
        process.start({})
    signals = board.beats[0]["signals"]
    assert signals[Signal.LOOP_LAG_S] == 0.0
    assert min(signals[Signal.RSS_BYTES], signals[Signal.DISK_FREE_BYTES]) > 0


def test_a_level_that_is_not_evaluated_is_known(board, runtime, tmp_path):
    process = running("lake", board, runtime, tmp_path)
    assert process.is_evaluated
    with process.ending:
        process.start({})
        assert process.is_evaluated
        process._heart._run = lambda: None
        runtime.clock.advance(limits.HEARTBEAT_STALE_S + 1)
        assert EVALUATED_AGE.collect()[0].samples[0].value >= limits.HEARTBEAT_STALE_S


@pytest.mark.parametrize(("name", "states"), [("lake", ["REFUSED"]), ("query", [])])
def test_a_refusal_is_the_last_heartbeat_of_a_process_that_tells_it(
    name, states, board, runtime, tmp_path, monkeypatch
):
    monkeypatch.setattr(Process, "_make_heart", heart_on(board, runtime))
    settings = Settings(data_dir=tmp_path, tape=AWAY)
    with pytest.raises(Data), Process.running(name, settings, runtime):
        raise Data(Reason.TAPE_TRUNCATED, "it is short")
    assert board.states() == states
    assert [beat["counters"]["reason"] for beat in board.beats] == ["TAPE_TRUNCATED"] * len(states)


def heart_on(board, runtime):
    made = Process._make_heart

    def make(process, addresses, sample):
        process.clients = SimpleNamespace(topic=lambda name: board)
        return made(process, addresses, sample)

    return make


def test_its_metrics_are_served_while_it_runs(board, runtime, tmp_path):
    process = running("lake", board, runtime, tmp_path, metrics=True)
    process.counters.add(lambda: Counters(3))
    with process.ending:
        process.start({"grpc": "127.0.0.1:5"})
        process.serve()
        address = board.beats[0]["addresses"]["metrics"]
        assert said(runtime)[0]["addresses"] == {"grpc": "127.0.0.1:5", "metrics": address}
        with urllib.request.urlopen(f"http://{address}/metrics") as answer:
            text = answer.read().decode()
    assert 'k2_degradation_level{process="lake",scope="process"} 0.0' in text
    assert "k2_process_resident_bytes " in text
    with pytest.raises(URLError):
        urllib.request.urlopen(f"http://{address}/metrics")
