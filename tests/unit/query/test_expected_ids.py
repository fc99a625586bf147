"""What feeds and ledger say is paired with where the tape ended just after."""

import pytest

from k2 import limits
from k2.clock import ManualClock
from k2.errors import Reason, Unavailable
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapEvent, GapState
from k2.market.offsets import OffsetVector
from k2.query import expected_ids as module
from k2.query.expected_ids import ExpectedIds
from tests.fakes.tape import FakeTape
from tests.support.eventually import eventually
from tests.support.trades import NOW_US

BTC, ETH = Instrument("BINANCE", "BTCUSDT"), Instrument("BINANCE", "ETHUSDT")


class World:
    def __init__(self):
        self.tape = FakeTape(partitions=2)
        self.clock = ManualClock(NOW_US)
        self.listened = {BTC}
        self.board = self.tape.board("k2.high-water")
        self.log = self.tape.gap_log()
        self.meanwhile = lambda: None
        self.coverage = ExpectedIds(
            promises=self.board,
            gaps=self.log,
            listened=lambda: self.listened,
            ends=self.ends,
            clock=self.clock,
        )

    def ends(self):
        self.meanwhile()
        return self.tape.admin().log_ends("trades", 2)

    def end(self, *offsets):
        return OffsetVector(0, offsets)

    def promise(self, began_after, trade_id, instrument=BTC, feed="feed"):
        document = {"began_after": began_after, "trade_id": trade_id, "feed": feed}
        self.board.put(f"{instrument.key}@{feed}", document)

    def tell(self, first, last, state=GapState.OPEN, cause=Cause.SEQUENCE):
        event = GapEvent(BTC, first, last, NOW_US, cause, state, NOW_US, "feed")
        self.tape.gaps.append(event)

    def at(self, *offsets, partitions=(0, 1), **how):
        return self.coverage.at(self.end(*offsets), partitions, **how)

    def promised(self, *offsets):
        return self.at(*offsets)[BTC].promised.tolist()


@pytest.fixture
def world():
    return World()


def test_before_the_first_reading_nothing_is_known(world):
    assert world.at(9, 9) is None
    assert not world.coverage.wait(0.0)


def test_a_reading_has_the_promises_of_all_feeds_and_who_is_listened_to(world):
    world.promise(9, 20)
    world.promise(30, 40, feed="feed-b")
    world.promise(4, 4, ETH)
    world.board.put("nonsense", {"trade_id": "x"})
    world.coverage.follow()
    assert world.coverage.wait(0.0)
    expected = world.at(0, 0)
    assert expected.keys() == {BTC, ETH}
    assert expected[BTC].promised.tolist() == [[10, 40]]
    assert expected[BTC].listened
    assert expected[ETH].promised.tolist() == []
    assert not expected[ETH].listened


def test_the_ledger_says_what_is_missing_besides_and_what_is_no_trade(world):
    world.promise(9, 20)
    world.tell(22, 25)
    world.tell(26, 27, GapState.VOID)
    world.tell(1, 3, cause=Cause.REQUESTED)  # nobody knows that they are missing
    world.coverage.follow()
    assert world.promised(0, 0) == [[10, 20], [22, 25]]
    assert world.at(0, 0)[BTC].void.tolist() == [[26, 27]]
    assert world.at(0, 0)[BTC].filling.tolist() == [[1, 3], [22, 25]]
    world.tell(22, 25, GapState.VOID)
    world.coverage.follow()
    assert world.promised(0, 0) == [[10, 20]]
    assert world.at(0, 0)[BTC].void.tolist() == [[22, 27]]
    assert world.at(0, 0)[BTC].filling.tolist() == [[1, 3]]


def test_an_end_is_held_against_what_was_promised_before_it(world):
    world.promise(0, 1)
    world.tape.append(0, b"1")
    world.coverage.follow()
    world.clock.advance(3)
    world.promise(0, 2)
    world.tape.append(0, b"2")
    world.coverage.follow()
    assert world.promised(1, 0) == [[1, 1]]
    assert world.promised(2, 0) == world.promised(9, 9) == [[1, 2]]
    assert world.at(0, 0) is None
    assert world.at(0, 0, partitions=(1,)) is not None, "only the first matters"


def test_the_end_is_read_last(world):
    """Else a record that is promised could lie above the end it is held against."""
    world.meanwhile = lambda: world.promise(0, 1)
    world.coverage.follow()
    assert world.promised(0, 0) == []
    world.meanwhile = lambda: world.tape.append(0, b"1")
    world.coverage.follow()
    assert world.promised(1, 0) == [[1, 1]]


def test_a_reading_that_is_too_old_vouches_for_nothing(world):
    world.coverage.follow()
    world.clock.advance(limits.HEARTBEAT_STALE_S)
    assert world.at(0, 0) is not None
    world.clock.advance(0.001)
    assert world.at(0, 0) is None


def test_an_end_of_before_is_known_by_the_readings_around_it(world):
    world.coverage.follow()
    world.tape.append(0, b"1")
    world.clock.advance(3)
    world.coverage.follow()
    world.clock.advance(limits.TICKET_LIFE_S / 2)
    assert world.at(0, 0) is not None
    assert world.at(0, 0, now=True) is None, "nobody is there now"
    world.tape.append(0, b"2")
    world.coverage.follow()
    assert world.at(1, 0) is None, "it may be of any moment between two readings far apart"
    assert world.at(2, 0) is not None


def test_readings_are_kept_apart_and_no_longer_than_a_ticket_lives(world):
    for count in range(2000):
        world.coverage.follow()
        world.tape.append(0, b"%d" % count)
        world.clock.advance(limits.SNAPSHOT_POLL_S)
    assert len(world.coverage._observations) < 200
    newest = 1999
    for end in range(newest, newest - round(limits.TICKET_LIFE_S / limits.SNAPSHOT_POLL_S), -1):
        assert world.at(end, 0) is not None
    assert world.at(1, 0) is None


@pytest.mark.parametrize("part", ["board", "ledger"])
def test_what_cannot_be_followed_to_its_end_gives_no_reading(world, part):
    world.tape.away, world.log.refusing = part == "board", part == "ledger"
    with pytest.raises(Unavailable):
        world.coverage.follow()
    world.tape.away = world.log.refusing = False
    assert world.at(0, 0) is None


def test_its_thread_goes_on_after_what_fails(world, monkeypatch):
    monkeypatch.setattr(module.limits, "SNAPSHOT_POLL_S", 0.001)
    tries = iter((ValueError("a surprise"), Unavailable(Reason.TAPE_UNAVAILABLE, "away")))

    def fail():
        for error in tries:
            raise error

    world.meanwhile = fail
    world.coverage.start()
    assert world.coverage.wait(5.0)
    world.promise(0, 7)
    eventually(lambda: BTC in world.at(0, 0) and world.promised(0, 0) == [[1, 7]])
    world.coverage.close()


def test_closing_what_was_never_started(world):
    world.coverage.close()


def test_asking_asks_nobody(world):
    world.promise(0, 7)
    world.coverage.follow()
    world.tape.away = True
    assert world.promised(0, 0) == [[1, 7]]


def test_the_gaps_of_the_ledger_are_counted_by_state(world):
    assert set(world.coverage.gaps().count.values()) == {0}
    world.tell(1, 10)
    world.tell(20, 20)
    world.tell(20, 20, GapState.FILLED)
    world.tell(4, 5, GapState.VOID)
    world.coverage.follow()
    gaps = world.coverage.gaps()
    assert gaps.ids == {"OPEN": 8, "FILLED": 1, "UNFILLABLE": 0, "VOID": 2}
    assert gaps.count["FILLED"] == gaps.count["VOID"] == 1
