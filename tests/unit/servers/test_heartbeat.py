"""A heart publishes what its process is; readers judge freshness for themselves."""

import threading

import pytest

from k2 import limits
from k2.clock import ManualClock
from k2.degrade.level import Level
from k2.degrade.signals import UNREADABLE, Signal
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
    platform_level,
    process_signals,
    read_beats,
)
from tests.fakes.tape import FakeTape
from tests.fakes.wire import MemoryBoard, beat


class Notices(dict):
    """A board in memory; `broken` makes it unreachable."""

    broken = False

    def put(self, key, value, wait_s=None):
        if self.broken:
            raise Unavailable(Reason.TAPE_UNAVAILABLE, "no broker")
        self[key] = value


def heart(board, clock, sample):
    return Heart(
        board=board,
        clock=clock,
        process="lake",
        run_id="r1",
        addresses={"grpc": "127.0.0.1:1"},
        sample=sample,
    )


def test_a_beat_carries_level_pressures_addresses_and_counters():
    board, clock = Notices(), ManualClock()
    made = heart(board, clock, lambda: Sample({Signal.COMMIT_LATENCY_S: 99.0}, {"commits": 3}))
    for _ in range(4):
        made.beat()
        clock.advance(1)
    (beat,) = read_beats(board, made.beaten_s, clock.monotonic_s())
    assert (beat.process, beat.run_id, beat.state) == ("lake", "r1", "SERVING")
    assert beat.level is Level.CIRCUIT_BREAK is made.level
    assert beat.pressures == {"commit_latency_s": 1.0}
    assert beat.addresses == {"grpc": "127.0.0.1:1"}
    assert beat.counters == {"commits": 3}


def test_a_beat_that_came_too_long_ago_is_a_lost_process_under_high_pressure():
    board, clock = Notices(), ManualClock()
    made = heart(board, clock, lambda: Sample({Signal.RSS_BYTES: 1.0}))
    made.beat()
    clock.advance(limits.HEARTBEAT_STALE_S)
    (beat,) = read_beats(board, made.beaten_s, clock.monotonic_s())
    assert beat.state == "SERVING"
    clock.advance(0.1)
    (beat,) = read_beats(board, made.beaten_s, clock.monotonic_s())
    assert beat.state == LOST
    assert beat.pressures == {"rss_bytes": UNREADABLE}
    assert beat.signals == {"rss_bytes": None}
    assert beat.level is Level.AGGRESSIVE


def test_an_unreadable_beat_is_a_lost_process():
    (beat,) = read_beats({"feed": {"pid": "x"}}, {"feed": 0.0}, 0.0)
    assert (beat.process, beat.state, beat.pressures) == ("feed", LOST, {"heartbeat": UNREADABLE})


@pytest.mark.parametrize("skew_s", [-3600, 3600])
def test_a_process_whose_clock_is_an_hour_off_is_heard_and_missed_like_any_other(skew_s):
    mine, theirs = ManualClock(), ManualClock()
    theirs.advance(skew_s)
    board = MemoryBoard()
    seen, other = Heartbeats(board, mine, patience_s=0), heart(board, theirs, Sample)
    for _ in range(3):
        other.beat()
        assert [each.state for each in seen.beats()] == ["SERVING"]
        mine.advance(limits.HEARTBEAT_STALE_S)
        theirs.advance(limits.HEARTBEAT_STALE_S)
    mine.advance(0.1)
    assert [each.state for each in seen.beats()] == [LOST]


def test_a_sample_that_fails_is_high_pressure_not_a_dead_heart():
    def broken():
        raise RuntimeError("gauge")

    beat = heart(Notices(), ManualClock(), broken).beat()
    assert beat["pressures"] == {"sample": UNREADABLE}
    assert beat["state"] == "UNKNOWN"


def test_a_board_that_is_away_is_tried_again():
    board = Notices()
    made = heart(board, ManualClock(), Sample)
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

    board = Notices()
    made = heart(board, ManualClock(), sample)
    made.start()
    assert beaten.acquire(timeout=10)
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
    own = heart(board, clock, Sample)
    seen.include(own)
    assert [beat.state for beat in seen.beats()] == [LOST, LOST]
    own.beat()
    assert [(beat.process, beat.state) for beat in seen.beats()] == [
        ("feed", LOST),
        ("lake", "SERVING"),
    ]
    assert seen.level() is Level.AGGRESSIVE


def test_a_new_reader_gives_each_process_the_time_to_be_heard():
    board, clock = FakeTape().board(topics.HEARTBEATS), ManualClock()
    board.put("lake", beat())  # of a run before
    seen = Heartbeats(board, clock, expected=("feed",), patience_s=5.0)
    assert {each.process: each.state for each in seen.beats()} == {
        "feed": "STARTING",
        "lake": "STARTING",
    }
    assert seen.level() is Level.NORMAL
    clock.advance(5.0)
    assert [each.state for each in seen.beats()] == [LOST, LOST]
    assert seen.level() is Level.AGGRESSIVE


def test_without_processes_the_level_is_normal():
    assert platform_level([]) is Level.NORMAL


def test_every_process_reads_its_memory_and_its_disk(tmp_path):
    signals = process_signals(tmp_path)
    assert signals[Signal.RSS_BYTES] > 0
    assert signals[Signal.DISK_FREE_BYTES] > 0
    assert process_signals(tmp_path / "absent")[Signal.DISK_FREE_BYTES] is None


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
