"""The platform's level has a state of its own, and goes on from where it was."""

import pytest

from k2.clock import ManualClock
from k2.degrade.level import Level
from k2.degrade.platform import LOST_LONG_S
from k2.errors import Reason, Unavailable
from k2.settings import Settings
from servers.degradation_topic import DegradationTopic
from servers.heartbeat import Heartbeats
from servers.platform_level import PlatformLevel
from tests.fakes.wire import MemoryBoard, beat

CONFIRM_S, DWELL_S = 0.5, 15.0


class Platform:
    """Control's view of processes whose pressures a test sets."""

    def __init__(self):
        self.clock = ManualClock()
        self.board, self.said = MemoryBoard(), MemoryBoard()
        self.heartbeats = Heartbeats(self.board, self.clock, patience_s=0)
        self.restart()

    def restart(self):
        self.topic = DegradationTopic(self.said, self.clock)
        settings = Settings(degrade={"confirm_s": CONFIRM_S, "dwell_s": DWELL_S})
        self.made = PlatformLevel(self.heartbeats, self.topic, settings, self.clock)

    def press(self, pressure, process="lake", **more):
        pressures = {"writer_lag_s": pressure, "rss_bytes": 0.1}
        signals = {"writer_lag_s": 60.0, "rss_bytes": 5.0}
        self.board.put(process, beat(process, pressures=pressures, signals=signals, **more))

    def ticks(self, seconds, beating=True):
        """Tick for so long, with fresh beats of what is on the board; the levels published."""
        levels = []
        for _ in range(int(seconds * 4)):
            for process, notice in self.board.current().items() if beating else ():
                self.board.put(process, notice)
            self.made.tick()
            levels.append(self.topic.platform())
            self.clock.advance(0.25)
        return levels


@pytest.fixture
def platform():
    return Platform()


def test_a_pressure_is_confirmed_and_then_published(platform):
    platform.press(0.75)
    assert platform.ticks(1.0) == [Level.NORMAL, Level.NORMAL, Level.GRACEFUL, Level.GRACEFUL]


def test_a_short_peak_changes_nothing(platform):
    platform.press(1.0)
    platform.ticks(0.25)
    platform.press(0.0)
    assert set(platform.ticks(60)) == {Level.NORMAL}


def test_it_falls_one_level_a_dwell_though_every_process_is_calm(platform):
    platform.press(1.0)
    platform.ticks(1)
    platform.press(0.0)
    levels = platform.ticks(5 * DWELL_S)
    assert list(dict.fromkeys(levels)) == [*reversed(Level)]
    assert min(levels.count(level) for level in list(Level)[1:]) >= DWELL_S * 4


def test_a_restart_of_control_goes_on_from_the_published_level(platform):
    platform.press(0.9)
    platform.ticks(1)
    platform.restart()
    platform.press(0.0)
    assert set(platform.ticks(DWELL_S)) == {Level.AGGRESSIVE}
    assert platform.ticks(1)[-1] is Level.GRACEFUL


def test_a_lost_process_presses_and_one_that_drained_does_not(platform):
    platform.press(0.0)
    platform.press(0.0, "query", state="DRAINING")
    platform.ticks(1)
    assert set(platform.ticks(5, beating=False)[:-1]) == {Level.NORMAL}
    assert platform.ticks(2, beating=False)[-1] is Level.SOFT
    platform.ticks(LOST_LONG_S, beating=False)
    assert platform.topic.platform() is Level.AGGRESSIVE


def test_a_planned_restart_changes_nothing(platform):
    platform.press(0.0)
    platform.ticks(1)
    platform.press(0.0, state="DRAINING")
    levels = platform.ticks(60, beating=False)
    platform.press(0.0, state="STARTING")
    levels += platform.ticks(2)
    platform.press(0.0)
    assert {*levels, *platform.ticks(60)} == {Level.NORMAL}


def test_a_level_that_cannot_be_published_is_tried_again(platform, monkeypatch):
    def away(key, value, wait_s=None):
        raise Unavailable(Reason.TAPE_UNAVAILABLE, "no broker")

    platform.press(0.9)
    with monkeypatch.context() as patched:
        patched.setattr(platform.said, "put", away)
        assert set(platform.ticks(2)) == {Level.NORMAL}
    assert platform.ticks(1)[-1] is Level.AGGRESSIVE
