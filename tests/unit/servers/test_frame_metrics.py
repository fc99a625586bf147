"""What a process measures of itself, and control of the platform."""

import json
import os

from k2.clock import ManualClock
from k2.degrade.level import Level
from servers.degradation_topic import DegradationTopic, Override
from servers.frame_metrics import measure_frame, measure_platform
from servers.heartbeat import Heartbeats
from servers.process_signals import SignalReading
from tests.fakes.wire import MemoryBoard
from tests.support.scraped import scraped


def test_a_process_measures_itself():
    reading = SignalReading(
        {"rss_bytes": 5.0, "gone": None}, {"rss_bytes": 0.25, "gone": 0.9}, ("gone",)
    )
    found = scraped(measure_frame("lake", Level.SOFT, reading))
    assert found["k2_degradation_level", "process", "lake"] == 1
    assert found["k2_degradation_pressure", "lake", "rss_bytes"] == 0.25
    assert found["k2_degradation_pressure", "lake", "gone"] == 0.9
    assert found["k2_degradation_signal", "lake", "rss_bytes"] == 5
    assert ("k2_degradation_signal", "lake", "gone") not in found
    assert found["k2_degradation_injected",] == 1
    assert found["k2_process_resident_bytes",] > 1_000_000
    assert found["k2_process_cpu_seconds_total",] > 0
    assert found["k2_process_threads",] >= 1
    assert found["k2_process_open_files",] >= 1
    assert found["k2_process_start_time_seconds",] > 1_000_000_000


def test_control_measures_the_platform(tmp_path):
    clock, board = ManualClock(), MemoryBoard()
    heartbeats = Heartbeats(board, clock, ("lake", "query"))
    beat = {
        "pid": os.getpid(),
        "run_id": "r",
        "state": "SERVING",
        "level": "NORMAL",
        "signals": {},
        "pressures": {},
        "addresses": {},
        "counters": {},
        "at_us": 1,
    }
    board.put("lake", beat)
    degradation = DegradationTopic(MemoryBoard(), clock)
    degradation.put_override(Override(Level.GRACEFUL, "why", 0, clock.now_us() + 1_000_000))
    stack = {"processes": [{"name": "broker", "restarts": 0}, {"name": "lake", "restarts": 2}]}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stack.json").write_text(json.dumps(stack))
    alive = {"broker": lambda: True, "registry": lambda: False}
    found = scraped(measure_platform("control", heartbeats, degradation, alive, tmp_path))
    assert found == {
        ("k2_degradation_level", "platform", "control"): 2,
        ("k2_degradation_override",): 1,
        ("k2_process_up", "lake"): 1,
        ("k2_process_up", "query"): 0,
        ("k2_process_restarts_total", "broker"): 0,
        ("k2_process_restarts_total", "lake"): 2,
        ("k2_component_up", "broker"): 1,
        ("k2_component_up", "registry"): 0,
    }


def test_without_a_stack_there_are_no_restarts(tmp_path):
    degradation = DegradationTopic(MemoryBoard(), ManualClock())
    heartbeats = Heartbeats(MemoryBoard(), ManualClock())
    found = scraped(measure_platform("control", heartbeats, degradation, {}, tmp_path))
    assert found == {
        ("k2_degradation_level", "platform", "control"): 0,
        ("k2_degradation_override",): 0,
    }
