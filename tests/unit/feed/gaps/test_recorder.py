import pytest

from k2 import limits
from k2.errors import Unavailable
from k2.feed.gaps.backfill_request import FillRequest
from k2.feed.gaps.recorder import RecentGaps
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapState
from tests.support.fill_world import BTC, ETH, FillWorld

AT_US = 1_600_000_000_000_000
ALL = {BTC: range(1, 1001)}


@pytest.fixture
def world():
    return FillWorld(ALL)


def test_what_is_missing_is_in_the_ledger_after_the_grace(world):
    world.hear(10, 15)
    world.exchange()
    world.keeper.record([BTC])
    assert world.tape.gaps == []
    world.find()
    world.keeper.record([BTC])
    (event,) = world.tape.gaps
    assert (event.instrument, event.first_id, event.last_id) == (BTC, 11, 14)
    assert (event.state, event.cause, event.feed) == (GapState.OPEN, Cause.SEQUENCE, "feed")
    assert event.recorded_us > event.detected_us
    assert world.gaps() == [(11, 14, "OPEN")]


def test_what_comes_by_itself_in_time_is_never_written(world):
    world.hear(10, 12, 11)
    world.find()
    world.keeper.record([BTC])
    assert world.tape.gaps == []


def test_what_was_printed_without_a_trade_is_in_the_ledger_before_it_is_promised(world):
    (line,) = world.lines
    world.hear(10)
    assert line.voided(11, 1_700_000_000_000_000)
    world.hear(12)
    assert line.covered_through == 10
    world.exchange()
    world.keeper.record([BTC])
    world.exchange()
    (event,) = world.tape.gaps
    assert (event.first_id, event.last_id, event.state) == (11, 11, GapState.VOID)
    assert line.covered_through == 12
    assert not line.voided(11, 1_700_000_000_000_000), "the other connection of a renewal"


def test_the_hole_of_an_absurd_id_is_explained_and_not_asked_for(world):
    world.hear(10, 5_000_000_000_000, 11, 13)
    for _ in range(5):
        world.find()
        world.turns()
        world.clock.advance(limits.FEED_ASK_AGAIN_S)
    assert world.gaps() == [(11, 12, "FILLED"), (13, 4_999_999_999_999, "UNFILLABLE")]
    (_, gap) = world.keeper.ledger.gaps()
    assert gap.reason == "the venue's ids leapt over more than 1,000,000,000: it began them again"
    assert max(asked[1] for asked in world.history.asked) <= 12


def test_what_comes_by_itself_too_late_closes_its_gap(world):
    world.hear(10, 14)
    world.find()
    world.hear(12)
    world.exchange()
    world.keeper.record([BTC])
    world.keeper.advance()
    assert world.gaps() == [(11, 11, "OPEN"), (12, 12, "FILLED"), (13, 13, "OPEN")]


def test_nothing_is_promised_past_a_gap_that_the_ledger_lacks(world):
    (line,) = world.lines
    world.hear(10, 14)
    assert (line.acknowledged_id, line.covered_through) == (14, 10)
    world.find()
    world.log.refusing = True
    with pytest.raises(Unavailable):
        world.keeper.record([BTC])
    world.exchange()
    assert line.covered_through == 10
    world.log.refusing = False
    world.keeper.record([BTC])
    assert line.covered_through == 10, "the line hears of it in its own loop"
    world.exchange()
    assert line.covered_through == 14


def test_while_the_ledger_is_away_what_is_missing_waits_bounded(world):
    world.log.refusing = True
    world.hear(*range(1, 20_000, 2))
    world.find()
    with pytest.raises(Unavailable):
        world.keeper.record([BTC])
    world.log.refusing = False
    world.keeper.record([BTC])
    opened = {
        each
        for gap in world.keeper.ledger.open(BTC)
        for each in range(gap.first_id, gap.last_id + 1)
    }
    assert set(range(2, 19_999, 2)) <= opened
    assert len(world.tape.gaps) <= 1000


def test_events_of_other_feeds_are_known(world):
    other = FillWorld(ALL, world.tape)
    other.hear(50, 60)
    other.find()
    other.keeper.record([BTC])
    world.keeper.record([BTC])
    assert world.gaps() == [(51, 59, "OPEN")]


def test_a_request_becomes_an_open_gap_and_leaves_the_board(world):
    asked = FillRequest(BTC, 100, 199, AT_US)
    world.requests.put(asked.key, asked.document())
    strange = FillRequest(Instrument("OTHER", "BTCUSDT"), 1, 2, AT_US)
    world.requests.put(strange.key, strange.document())
    world.requests.put("garbage", {"first_id": "x"})
    world.keeper.record([BTC])
    assert world.gaps() == [(100, 199, "OPEN")]
    assert list(world.requests.current()) == [strange.key], "somebody else's"
    (event,) = world.tape.gaps
    assert (event.cause, event.detected_us) == (Cause.REQUESTED, AT_US)


def test_ids_are_held_while_they_were_heard_of_after_a_time():
    recent = RecentGaps()
    recent.add(BTC, 5, 9, at_s=10)
    recent.add(BTC, 20, 20, at_s=12)
    for first, last in ((9, 9), (1, 5), (6, 7), (1, 30)):
        assert recent.overlaps(BTC, first, last, since_s=9.9)
    assert not recent.overlaps(BTC, 10, 19, since_s=0)
    assert not recent.overlaps(BTC, 5, 9, since_s=10)
    assert recent.overlaps(BTC, 20, 20, since_s=10)
    assert not recent.overlaps(ETH, 5, 9, since_s=0)


def test_what_is_heard_of_again_is_young_again():
    recent = RecentGaps()
    recent.add(BTC, 5, 9, at_s=10)
    recent.add(BTC, 5, 9, at_s=20)
    assert recent.overlaps(BTC, 7, 7, since_s=15)


def test_what_was_forgotten_counts_for_all_ids():
    recent = RecentGaps(runs_max=2)
    for number in range(3):
        recent.add(BTC, number, number, at_s=number)
    assert not recent.overlaps(ETH, 7, 7, since_s=0)
    assert recent.overlaps(ETH, 7, 7, since_s=-1)
