"""A heart publishes what its process is; readers judge freshness for themselves."""

import threading

import pytest

from k2 import limits
from k2.clock import ManualClock, SystemClock
from k2.degrade.level import Level, Tuning
from k2.degrade.platform import LOST_LONG, LOST_LONG_S, LOST_SOON
from k2.degrade.signals import UNREADABLE
from k2.errors import Reason, Unavailable
from k2.market.instrument import Instrument
from k2.tape import topics
from servers.heartbeat import (
    DRAINING,
    LOST,
    Heart,
    Heartbeats,
    Sample,
    listened,
    read_beats,
)
from servers.process_signals import SignalReading
from tests.fakes.tape import FakeTape
from tests.fakes.wire import MemoryBoard, beat
from tests.support.eventually import eventually


class Notices(dict):
    """A board in memory; `broken` makes it unreachable."""

    broken = False

    def put(self, key, value, wait_s=None):
        if self.broken:
            raise Unavailable(Reason.TAPE_UNAVAILABLE, "no broker")
        self[key] = value


def reading(**pressures):
    return SignalReading(dict.fromkeys(pressures, 5.0), pressures)


def heart(board, clock, sample=Sample, read=SignalReading, **more):
    return Heart(
        board=board,
        clock=clock,
        process="lake",
        run_id="r1",
        addresses={"grpc": "127.0.0.1:1"},
        sample=sample,
        read=read,
        tuning=Tuning(confirm_s=0.5, dwell_s=15.0),
        **more,
    )


def test_a_beat_carries_level_pressures_addresses_and_counters():
    board, clock = Notices(), ManualClock()
    made = heart(board, clock, lambda: Sample({"commits": 3}), lambda: reading(commit_latency_s=1))
    for _ in range(4):
        made.tick()
        clock.advance(limits.SIGNAL_INTERVAL_S)
    (beat,) = read_beats(board, made.beaten_s, clock.monotonic_s())
    assert (beat.process, beat.run_id, beat.state) == ("lake", "r1", "SERVING")
    assert beat.level is Level.CIRCUIT_BREAK is made.level
    assert beat.pressures == {"commit_latency_s": 1.0}
    assert beat.pressure == 1.0
    assert beat.addresses == {"grpc": "127.0.0.1:1"}
    assert beat.counters == {"commits": 3}


def test_it_reads_four_times_a_second_and_beats_once_or_when_the_level_changes():
    board, clock, pressing, beaten = Notices(), ManualClock(), [0.0], []

    def sample():
        beaten.append(clock.monotonic_s())
        return Sample()

    made = heart(board, clock, sample, lambda: reading(rss_bytes=pressing[0]))
    began_s = clock.monotonic_s()
    for number in range(12):
        if number == 5:
            pressing[0] = 1.0  # confirmed two readings later
        made.tick()
        clock.advance(limits.SIGNAL_INTERVAL_S)
    assert [at_s - began_s for at_s in beaten] == [0.0, 1.0, 1.75, 2.75]
    assert made.level is Level.CIRCUIT_BREAK


def test_a_process_that_is_lost_presses_after_five_seconds_and_more_after_thirty():
    board, clock = Notices(), ManualClock()
    made = heart(board, clock, read=lambda: reading(rss_bytes=0.0))
    made.beat()

    def seen():
        (beat,) = read_beats(board, made.beaten_s, clock.monotonic_s())
        return beat.state, beat.pressure, beat.level

    clock.advance(limits.HEARTBEAT_STALE_S)
    assert seen() == ("SERVING", 0.0, Level.NORMAL)
    clock.advance(0.1)
    assert seen() == (LOST, LOST_SOON, Level.SOFT)
    clock.advance(LOST_LONG_S - limits.HEARTBEAT_STALE_S)
    assert seen() == (LOST, LOST_LONG, Level.AGGRESSIVE)


def test_a_process_that_drains_presses_nothing_and_never_will():
    board, clock = MemoryBoard(), ManualClock()
    seen = Heartbeats(board, clock, patience_s=0)
    made = heart(board, clock, read=lambda: reading(rss_bytes=1.0))
    made.start()
    assert seen.beats()[0].pressure == 1.0
    made.close()
    (beat,) = seen.beats()
    assert (beat.state, beat.pressure) == (DRAINING, 0.0)
    clock.advance(LOST_LONG_S * 10)
    (beat,) = seen.beats()
    assert (beat.state, beat.pressure, beat.level) == (LOST, 0.0, Level.NORMAL)


def test_an_unreadable_beat_is_a_lost_process():
    (beat,) = read_beats({"feed": {"pid": "x"}}, {"feed": 0.0}, 0.0)
    assert (beat.process, beat.state, beat.pressures) == ("feed", LOST, {"heartbeat": LOST_SOON})


@pytest.mark.parametrize("skew_s", [-3600, 3600])
def test_a_process_whose_clock_is_an_hour_off_is_heard_and_missed_like_any_other(skew_s):
    mine, theirs = ManualClock(), ManualClock()
    theirs.advance(skew_s)
    board = MemoryBoard()
    seen, other = Heartbeats(board, mine, patience_s=0), heart(board, theirs)
    for _ in range(3):
        other.beat()
        assert [each.state for each in seen.beats()] == ["SERVING"]
        mine.advance(limits.HEARTBEAT_STALE_S)
        theirs.advance(limits.HEARTBEAT_STALE_S)
    mine.advance(0.1)
    assert [each.state for each in seen.beats()] == [LOST]


def broken():
    raise RuntimeError("gauge")


def test_a_sample_that_fails_is_an_unknown_state_not_a_dead_heart():
    assert heart(Notices(), ManualClock(), broken).beat()["state"] == "UNKNOWN"


def test_signals_that_cannot_be_read_are_high():
    made = heart(Notices(), ManualClock(), read=broken)
    made.tick()
    assert made.reading.pressures == {"sample": UNREADABLE}


def test_a_level_that_is_not_evaluated_holds_and_its_process_falls_silent():
    board, clock = MemoryBoard(), ManualClock()
    seen = Heartbeats(board, clock, patience_s=0)
    failing, tried = threading.Event(), threading.Semaphore(0)

    def on_tick():
        tried.release()
        if failing.is_set():
            raise RuntimeError("a component")

    made = heart(board, clock, on_tick=on_tick)
    seen.include(made)
    made.start()
    failing.set()
    while tried.acquire(blocking=False):
        pass
    assert tried.acquire(timeout=10)
    assert tried.acquire(timeout=10)
    clock.advance(limits.HEARTBEAT_STALE_S + 1)
    assert tried.acquire(timeout=10)
    assert tried.acquire(timeout=10), "the heart goes on"
    assert made.evaluated_age_s >= limits.HEARTBEAT_STALE_S
    assert [beat.state for beat in seen.beats()] == [LOST]
    failing.clear()
    eventually(lambda: made.evaluated_age_s == 0.0)
    assert [beat.state for beat in seen.beats()] == ["SERVING"]
    made.close()


def test_how_late_it_wakes_is_measured():
    made = heart(Notices(), SystemClock())
    made.start()
    eventually(lambda: made.late_s > 0.0)
    made.close()


def test_a_board_that_is_away_is_tried_again():
    board = Notices()
    made = heart(board, ManualClock())
    board.broken = True
    made.beat()
    board.broken = False
    made.beat()
    assert "lake" in board


def test_it_beats_on_its_own_and_says_when_it_drains():
    beaten = threading.Semaphore(0)

    def sample():
        beaten.release()
        return Sample()

    board, clock = Notices(), ManualClock()
    made = heart(board, clock, sample)
    made.start()
    assert beaten.acquire(timeout=10)
    clock.advance(limits.HEARTBEAT_INTERVAL_S)
    assert beaten.acquire(timeout=10)
    made.close()
    made.close()
    assert board["lake"]["state"] == DRAINING


def test_a_process_knows_itself_while_the_board_is_away():
    class Away(MemoryBoard):
        def put(self, key, value, wait_s=None):
            raise Unavailable(Reason.TAPE_UNAVAILABLE, "no broker")

    board, clock = Away(), ManualClock()
    seen = Heartbeats(board, clock, expected=("feed", "lake"), patience_s=0)
    own = heart(board, clock)
    seen.include(own)
    assert [beat.state for beat in seen.beats()] == [LOST, LOST]
    own.beat()
    assert [(beat.process, beat.state) for beat in seen.beats()] == [
        ("feed", LOST),
        ("lake", "SERVING"),
    ]


def test_a_new_reader_gives_each_process_the_time_to_be_heard():
    board, clock = FakeTape().board(topics.HEARTBEATS), ManualClock()
    board.put("lake", beat())  # of a run before
    seen = Heartbeats(board, clock, expected=("feed", "lake"), patience_s=5.0)
    assert {each.process: each.state for each in seen.beats()} == {
        "feed": "STARTING",
        "lake": "STARTING",
    }
    assert {each.pressure for each in seen.beats()} == {0.0}
    clock.advance(5.0)
    assert [each.state for each in seen.beats()] == [LOST, LOST]
    assert {each.pressure for each in seen.beats()} == {LOST_SOON}
    clock.advance(LOST_LONG_S)
    assert {each.pressure for each in seen.beats()} == {LOST_LONG}


def test_a_process_of_an_earlier_stack_presses_nothing():
    board, clock = FakeTape().board(topics.HEARTBEATS), ManualClock()
    board.put("feed-2", beat("feed-2"))
    board.put("lake", beat())
    seen = Heartbeats(board, clock, expected=("lake",), patience_s=0)
    clock.advance(LOST_LONG_S)
    assert [(each.process, each.state, each.pressure) for each in seen.beats()] == [
        ("feed-2", LOST, 0.0),
        ("lake", LOST, LOST_LONG),
    ]


def test_a_process_that_a_stack_goes_on_without_presses_only_while_it_lives():
    board, clock = FakeTape().board(topics.HEARTBEATS), ManualClock()
    seen = Heartbeats(board, clock, expected=("lake",), patience_s=0)
    for process in ("edge", "lake"):
        board.put(process, beat(process) | {"pressures": {"rss_bytes": 0.7}})
    assert [each.pressure for each in seen.beats()] == [0.7, 0.7]
    clock.advance(LOST_LONG_S)
    assert [(each.process, each.state, each.pressure) for each in seen.beats()] == [
        ("edge", LOST, 0.0),
        ("lake", LOST, LOST_LONG),
    ]


def test_only_a_feed_that_is_heard_from_listens():
    symbols = {
        "BTCUSDT": {"listened": True},
        "ETHUSDT": {"listened": False},
        "SOLUSDT": {},
        "ADAUSDT": 7,
    }
    board, clock = MemoryBoard(), ManualClock()
    beats = Heartbeats(board, clock)
    made = beat("feed", counters={"exchange": "BINANCE", "symbols": symbols})
    board.put("feed", made)
    board.put("feed-b", beat("feed-b", counters={"exchange": "BINANCE", "symbols": "none"}))
    board.put("lake", beat("lake"))
    assert listened(beats.beats()) == {Instrument("BINANCE", "BTCUSDT")}
    board.put("feed", made | {"state": "STARTING"})
    assert listened(beats.beats()) == frozenset()
    board.put("feed", made)
    clock.advance(limits.HEARTBEAT_STALE_S + 0.1)
    assert listened(beats.beats()) == frozenset(), "it is dead or frozen"
