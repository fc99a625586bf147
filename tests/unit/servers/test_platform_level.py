"""The platform's level has a state of its own, and goes on from where it was."""

import pytest

from k2.clock import ManualClock
from k2.degrade.level import Level
from k2.degrade.platform import LOST_LONG_S
from k2.degrade.transition import Transition, TransitionCause, transition_of
from k2.errors import Reason, Unavailable
from k2.settings import Settings
from servers.degradation_topic import DegradationTopic, Override
from servers.heartbeat import Heartbeats
from servers.platform_level import TRANSITIONS, PlatformLevel
from tests.fakes.wire import MemoryBoard, beat

CONFIRM_S, DWELL_S = 0.5, 15.0


class Changes:
    """The topic of transitions, in memory."""

    def __init__(self):
        self.made = []
        self.away = False

    def put(self, key, value, wait_s=None):
        if self.away:
            raise Unavailable(Reason.TAPE_UNAVAILABLE, "no broker")
        self.made.append(transition_of(value))

    @property
    def levels(self):
        return [(each.before, each.after, each.cause) for each in self.made]


class Platform:
    """Control's view of processes whose pressures a test sets."""

    def __init__(self, shadow=False):
        self.shadow = shadow
        self.clock = ManualClock()
        self.board, self.said = MemoryBoard(), MemoryBoard()
        self.heartbeats = Heartbeats(self.board, self.clock, patience_s=0)
        self.restart()

    def restart(self):
        self.topic = DegradationTopic(self.said, self.clock)
        tuning = {"confirm_s": CONFIRM_S, "dwell_s": DWELL_S}
        settings = Settings(degrade=tuning | {"shadow": self.shadow})
        self.changes = Changes()
        self.made = PlatformLevel(self.heartbeats, self.topic, self.changes, settings, self.clock)

    def override(self, level, seconds, reason="a test"):
        now_us = self.clock.now_us()
        made = Override(level, reason, now_us, now_us + int(seconds * 1e6))
        self.topic.put_override(made)

    def press(self, pressure, process="lake", rss=0.1, **more):
        pressures = {"writer_lag_s": pressure, "rss_bytes": rss}
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


def test_a_rise_is_recorded_with_what_caused_it(platform):
    counted = TRANSITIONS.labels("GRACEFUL")._value.get()
    platform.press(0.75, injected=["writer_lag_s"])
    platform.press(0.3, "query")
    at_us = platform.clock.now_us()
    platform.ticks(1)
    assert platform.changes.made == [
        Transition(
            at_us=at_us + 500_000,
            before=Level.NORMAL,
            after=Level.GRACEFUL,
            cause=TransitionCause.PRESSURE,
            process="lake",
            signal="writer_lag_s",
            reading=60.0,
            pressure=0.75,
            threshold=0.7,
            injected=True,
        )
    ]
    assert TRANSITIONS.labels("GRACEFUL")._value.get() == counted + 1


def test_a_fall_is_recorded_with_the_exit_that_the_highest_pressure_is_below(platform):
    platform.press(0.75)
    platform.ticks(1)
    platform.press(0.45)
    platform.ticks(DWELL_S * 3)
    _, fall = platform.changes.made
    assert (fall.before, fall.after, fall.cause) == (Level.GRACEFUL, Level.SOFT, "CALM")
    assert (fall.process, fall.pressure, fall.threshold) == ("lake", 0.45, 0.6)
    assert not fall.injected


def test_a_level_that_an_injection_raised_is_marked_until_it_is_normal(platform):
    platform.press(0.75, injected=["writer_lag_s"])
    platform.ticks(1)
    platform.restart()
    platform.press(0.45)
    platform.ticks(DWELL_S * 1.5)
    assert platform.topic.platform() is Level.SOFT
    assert platform.topic.is_raised_by_injection()
    platform.press(0.0)
    platform.ticks(DWELL_S * 2)
    assert not platform.topic.is_raised_by_injection()
    platform.press(0.5)
    platform.ticks(1)
    assert not platform.topic.is_raised_by_injection()
    assert [(each.after, each.injected) for each in platform.changes.made] == [
        *((Level.SOFT, True), (Level.NORMAL, True), (Level.SOFT, False)),
    ]


def test_a_pressure_that_raises_an_injected_level_further_ends_its_mark(platform):
    platform.press(0.5, injected=["writer_lag_s"])
    platform.ticks(1)
    platform.press(0.9)
    platform.ticks(1)
    assert platform.topic.platform() is Level.AGGRESSIVE
    assert not platform.topic.is_raised_by_injection()


def test_a_fall_when_nothing_presses_names_no_signal(platform):
    platform.press(0.75, rss=0.0)
    platform.ticks(1)
    platform.press(0.0, rss=0.0)
    platform.ticks(DWELL_S + 1)
    fall = platform.changes.made[-1]
    assert (fall.cause, fall.process, fall.signal, fall.reading) == ("CALM", "", "", None)


def test_a_fall_without_any_process_has_no_signal(platform):
    platform.topic.put_platform(Level.SOFT)
    platform.restart()
    platform.ticks(DWELL_S + 1)
    (fall,) = platform.changes.made
    assert (fall.process, fall.signal, fall.reading, fall.pressure) == ("", "", None, 0.0)


def test_an_override_is_recorded_as_it_begins_is_replaced_and_ends(platform):
    platform.press(0.75)
    platform.ticks(1)
    platform.override(Level.NORMAL, 2)
    platform.ticks(1)
    platform.override(Level.SOFT, 2, "another")
    platform.ticks(3)
    platform.override(Level.CIRCUIT_BREAK, 60)
    platform.ticks(1)
    platform.topic.put_override(None)
    platform.ticks(1)
    assert platform.changes.levels[1:] == [
        (Level.GRACEFUL, Level.NORMAL, "OVERRIDE"),
        (Level.NORMAL, Level.SOFT, "OVERRIDE"),
        (Level.SOFT, Level.GRACEFUL, "OVERRIDE_ENDED"),
        (Level.GRACEFUL, Level.CIRCUIT_BREAK, "OVERRIDE"),
        (Level.CIRCUIT_BREAK, Level.GRACEFUL, "OVERRIDE_ENDED"),
    ]
    assert [each.reason for each in platform.changes.made[1:4]] == ["a test", "another", "another"]


def test_an_override_that_holds_over_a_restart_of_control_is_recorded_once(platform):
    platform.override(Level.SOFT, 30)
    platform.ticks(1)
    assert platform.changes.levels == [(Level.NORMAL, Level.SOFT, "OVERRIDE")]
    platform.restart()
    platform.ticks(1)
    assert platform.changes.levels == []
    platform.clock.advance(60)
    platform.restart()
    platform.ticks(1)
    assert platform.changes.levels == [(Level.SOFT, Level.NORMAL, "OVERRIDE_ENDED")]


def test_changes_that_cannot_be_recorded_are_recorded_later(platform):
    platform.changes.away = True
    platform.press(0.75)
    platform.ticks(1)
    platform.override(Level.NORMAL, 60)
    platform.ticks(1)
    assert platform.changes.made == []
    platform.changes.away = False
    platform.ticks(1)
    assert [each.cause for each in platform.changes.made] == ["PRESSURE", "OVERRIDE"]


def test_a_publication_that_was_lost_is_repeated(platform):
    platform.press(0.9)
    platform.ticks(1)
    platform.said.put("platform", {"level": "NORMAL"})
    assert platform.ticks(10)[-1] is Level.AGGRESSIVE
    assert len(platform.changes.made) == 1


def test_in_shadow_mode_changes_are_recorded_all_the_same(caplog):
    platform = Platform(shadow=True)
    platform.press(0.75)
    with caplog.at_level("INFO"):
        platform.ticks(1)
    assert platform.changes.levels == [(Level.NORMAL, Level.GRACEFUL, "PRESSURE")]
    assert any("in shadow: level GRACEFUL" in line for line in caplog.messages)
