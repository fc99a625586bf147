"""When the tape's retention is about to take what the lake does not hold."""

import threading

import pytest

from k2 import limits
from k2.clock import ManualClock
from k2.errors import Reason, Unavailable
from k2.market.offsets import OffsetVector
from k2.settings import TapeSettings
from k2.tape.retention_watch import Danger, TapeWatch, dangers
from k2.tape.topics import TopicDescription
from tests.support.eventually import eventually

HOUR_US = 3_600_000_000


def facts(start, end):
    return TopicDescription("c", "t", "id", 1, (start,), (end,))


@pytest.mark.parametrize(
    ("start", "end", "at", "young", "danger"),
    [
        (0, 100, 100, 100, None),  # all committed, however old
        (0, 100, 90, 50, None),  # a little behind
        (0, 100, 0, 0, None),  # nothing committed, and nothing old
        (0, 100, 49, 50, Danger(0, 51, 0)),  # the oldest uncommitted record is old
        (1000, 2000, 1300, 1000, None),  # a third of what is kept is committed
        (1000, 2000, 1199, 1000, Danger(0, 801, 0)),
        (1000, 2000, 2000, 1000, None),
        (1000, 2000, 900, 1000, Danger(0, 1100, 100)),  # too late
    ],
)
def test_a_partition_is_in_danger_when_retention_is_near(start, end, at, young, danger):
    found = dangers(facts(start, end), OffsetVector(0, (at,)), (young,))
    assert found == ((danger,) if danger else ())


class World:
    """A tape of one partition whose first half is old."""

    def __init__(self):
        self.clock = ManualClock(100 * HOUR_US)
        self.position = OffsetVector(0, (10,))
        self.failure = None
        self.asked = []
        self.watch = TapeWatch(
            facts=self.facts,
            offsets_since=self.offsets_since,
            positions=lambda: self.position,
            clock=self.clock,
            settings=TapeSettings(retention_hours=10),
        )

    def facts(self):
        if self.failure:
            raise self.failure
        return facts(0, 100)

    def offsets_since(self, time_us):
        self.asked.append(time_us)
        return (50,)


def test_it_says_so_loudly_until_the_writer_has_caught_up(caplog):
    world = World()
    world.watch.look()
    (alert,) = world.watch.alerts
    assert len(world.watch.endangered) == 1
    assert "partition 0: 90 records are not in the lake" in alert
    assert "(10 h, 1,024 MiB)" in alert
    assert alert in caplog.text
    assert world.asked[0] == 92 * HOUR_US
    world.position = OffsetVector(0, (60,))
    world.watch.look()
    assert world.watch.alerts == []
    assert world.watch.endangered == frozenset()


@pytest.mark.parametrize(
    ("age_h", "margin_h"), [(0.01, 9.9), (0.1, 9.8), (2.5, 7.5), (9.5, 0.5), (11, 0)]
)
def test_the_margin_is_the_time_that_the_oldest_uncommitted_record_has_left(age_h, margin_h):
    world = World()
    written_us = 100 * HOUR_US - int(age_h * HOUR_US)
    world.watch._offsets_since = lambda time_us: (10,) if time_us <= written_us else (50,)
    assert world.watch.margin_s is None
    world.watch.look()
    assert margin_h - 0.2 <= world.watch.margin_s / 3600 <= margin_h + 0.1
    world.position = OffsetVector(0, (100,))
    world.watch.look()
    assert world.watch.margin_s == 10 * 3600


def test_without_positions_or_a_broker_nothing_changes():
    world = World()
    world.watch.look()
    world.failure = Unavailable(Reason.TAPE_UNAVAILABLE, "away")
    world.position = OffsetVector(0, (60,))
    world.watch.look()
    assert len(world.watch.alerts) == 1
    world.position = None
    world.watch.look()
    assert len(world.watch.alerts) == 1


def test_it_looks_by_itself(monkeypatch):
    monkeypatch.setattr(limits, "TAPE_WATCH_S", 0.01)
    world, stopping = World(), threading.Event()
    thread = threading.Thread(target=world.watch.run, args=(stopping,))
    thread.start()
    eventually(lambda: world.watch.alerts)
    stopping.set()
    thread.join()
