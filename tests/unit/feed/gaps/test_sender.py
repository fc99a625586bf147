import pytest

from k2 import limits
from k2.clock import ManualClock
from k2.errors import Data, Reason
from k2.feed.gaps.sender import Place, Sender
from k2.market.instrument import Instrument
from tests.fakes.tape import FakeTape
from tests.support.messages import trade

BTC = Instrument("BINANCE", "BTCUSDT")


class World:
    def __init__(self, queue_max=100_000):
        self.clock, self.tape = ManualClock(), FakeTape()
        self.producer = self.tape.producer(queue_max)
        self.giving_up = False
        self.sender = Sender(
            tape=self.producer,
            places={BTC: Place(b"key", 3)},
            encode=lambda made: str(made.trade_id).encode(),
            clock=self.clock,
            pause=self._pause,
        )

    def _pause(self, seconds):
        self.clock.advance(seconds)
        self.producer.poll()
        return self.giving_up

    def send(self, *ids):
        return self.sender.send(trade(trade_id=each) for each in ids)


def test_what_landed_is_told_and_where_it_belongs():
    world = World()
    assert world.send(1, 2, 3) == {1, 2, 3}
    assert world.tape.logs[3].values == [b"1", b"2", b"3"]
    assert world.tape.logs[3].keys == [b"key"] * 3
    assert (world.sender.sent, world.sender.instruments) == (3, {BTC})


def test_a_full_queue_is_waited_for():
    world = World(queue_max=2)
    assert world.send(*range(10)) == set(range(10))


def test_a_tape_that_is_away_is_given_up_after_a_while():
    world = World()
    world.tape.away = True
    assert world.send(1, 2) == set()
    assert world.clock.monotonic_s() > limits.BACKFILL_ACK_S


def test_the_end_of_the_process_ends_the_waiting():
    world = World()
    world.tape.away = world.giving_up = True
    before = world.clock.monotonic_s()
    assert world.send(1) == set()
    assert world.clock.monotonic_s() - before < 1


def test_a_record_that_fails_is_said():
    world = World()
    failure = Data(Reason.TOPIC_RECREATED, "gone")
    world.producer.send = lambda *record: record[-1](None, failure)
    with pytest.raises(Data):
        world.send(1)


def test_a_long_queue_belongs_to_the_live_trades():
    world = World()
    world.tape.away = True
    for _ in range(limits.BACKFILL_QUEUE_RECORDS_MAX + 1):
        world.producer.send(b"k", b"v", 0)
    assert world.sender.held_up
    assert world.send(1) == set()
    assert world.producer.depth() == limits.BACKFILL_QUEUE_RECORDS_MAX + 1
