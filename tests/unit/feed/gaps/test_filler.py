import itertools

import pytest

from k2 import limits
from k2.clock import ManualClock
from k2.errors import NotFound, Reason, Unavailable
from k2.feed.gaps.backfill_request import FillRequest
from k2.feed.venues.history import RateLimited
from k2.feed.venues.source import Malformed
from k2.market.events import Fault
from k2.market.ledger import LAKE, Cause, GapEvent, GapState
from tests.support.fill_world import ABSENT_S, BTC, ETH, PAGE, FillWorld

ALL = {BTC: range(1, 1001), ETH: range(1, 1001)}
FAILED = Unavailable(Reason.VENUE_UNAVAILABLE, "no answer")


def test_a_gap_is_filled_with_exactly_its_ids():
    world = FillWorld(ALL)
    world.hear(10, 15, 16, 20)
    world.find()
    world.turns()
    assert world.ids() == [11, 12, 13, 14, 17, 18, 19]
    assert world.gaps() == [(11, 14, "FILLED"), (17, 19, "FILLED")]
    assert world.history.asked == [("BTCUSDT", 11, 9)], "one request for gaps that are near"
    counters = world.filler.counters()
    assert (counters["filled_ids"], counters["open_ids"], counters["requests"]) == (7, 0, 1)


def test_the_newest_page_comes_first_and_instruments_take_turns():
    world = FillWorld(ALL)
    world.hear(1, 500)
    world.hear(1, 300, line=1)
    world.find()
    world.turns()
    first = [(symbol, from_id + count - 1) for symbol, from_id, count in world.history.asked[:4]]
    assert sorted(first[:2]) == [("BTCUSDT", 499), ("ETHUSDT", 299)]
    assert sorted(first[2:]) == [("BTCUSDT", 399), ("ETHUSDT", 199)]
    assert sorted(world.ids(0)) == list(range(2, 500))
    assert sorted(world.ids(1)) == list(range(2, 300))
    assert world.gaps() == [(2, 499, "FILLED")]


def test_what_the_venue_never_had_is_unfillable_only_after_a_while():
    world = FillWorld({BTC: [*range(1, 12), *range(15, 100)]})
    world.hear(10, 20)
    world.find()
    started_s = world.clock.monotonic_s()
    world.turn()
    assert world.gaps() == [
        (11, 11, "FILLED"), (12, 14, "OPEN"), (15, 19, "FILLED"),
    ]  # fmt: skip
    world.turns()
    assert world.clock.monotonic_s() - started_s >= ABSENT_S - 1
    assert world.gaps()[1] == (12, 14, "UNFILLABLE")
    (gap,) = world.keeper.ledger.within(BTC, 12, 14)
    assert gap.reason == "the venue does not have it"
    assert world.filler.counters()["unfillable_ids"] == 3
    assert len(world.history.asked) < 10, "it is not asked all the time"


def test_what_a_young_absence_defers_does_not_hold_up_other_gaps():
    world = FillWorld({BTC: [*range(1, 500), *range(600, 900)]})
    world.hear(10, 12, 800)
    world.find()
    for _ in range(12):
        world.turn()
    assert (11, 11, "FILLED") in world.gaps()
    assert (500, 599, "OPEN") in world.gaps()


def test_what_rest_has_not_reached_stays_open_while_a_higher_id_is_on_the_tape():
    world = FillWorld({BTC: range(1, 50)})
    world.hear(10, 100)
    world.find()
    for _ in range(100):
        world.clock.advance(5.0)
        world.turn()
    assert world.gaps() == [(11, 49, "FILLED"), (50, 99, "OPEN")]
    assert len(world.history.asked) < 40, "it is not asked all the time"
    world.history.ids[BTC] = list(range(1, 101))
    world.turns(1000)
    assert world.gaps() == [(11, 99, "FILLED")]


def test_what_was_never_printed_is_unfillable_and_says_so():
    world = FillWorld({BTC: range(1, 50)})
    world.requests.put("asked", FillRequest(BTC, 40, 99, 1_600_000_000_000_000).document())
    world.turns()
    assert world.gaps() == [(40, 49, "FILLED"), (50, 99, "UNFILLABLE")]
    (gap,) = world.keeper.ledger.within(BTC, 50, 50)
    assert gap.reason == "the venue has not printed it: its newest id is 49"


def test_a_promise_of_an_earlier_run_is_on_the_tape_too():
    world = FillWorld({BTC: range(1, 50)}, promised={BTC: 99})
    world.requests.put("asked", FillRequest(BTC, 40, 60, 1_600_000_000_000_000).document())
    world.exchange()
    for _ in range(60):
        world.clock.advance(1.0)
        world.turn()
    assert world.gaps() == [(40, 49, "FILLED"), (50, 60, "OPEN")]


def test_one_answer_that_a_symbol_is_not_known_proves_nothing():
    world = FillWorld(ALL)
    world.hear(10, 12)
    world.find()
    unknown = NotFound(Reason.UNKNOWN_SYMBOL, "-1121")
    world.history.failures = [unknown] * 5
    world.turns()
    assert world.gaps() == [(11, 11, "FILLED")]


def test_a_symbol_the_venue_does_not_know_for_long_is_unfillable():
    world = FillWorld(ALL)
    world.hear(10, 12)
    world.find()
    known = world.history.ids.pop(BTC)
    started_s = world.clock.monotonic_s()
    world.turns(20_000)
    assert world.gaps() == [(11, 11, "UNFILLABLE")]
    assert world.clock.monotonic_s() - started_s >= limits.FEED_UNKNOWN_S
    assert limits.FEED_UNKNOWN_ANSWERS <= len(world.history.asked) < 30
    world.history.ids[BTC] = known
    world.clock.advance(limits.FEED_ASK_AGAIN_S)
    world.turn()
    world.turns()
    assert world.gaps() == [(11, 11, "FILLED")]


def test_two_answers_long_apart_are_not_enough():
    world = FillWorld(ALL)
    world.hear(10, 12)
    world.find()
    del world.history.ids[BTC]
    world.turn()
    world.clock.advance(2 * limits.FEED_UNKNOWN_S)
    world.turn()
    assert world.gaps() == [(11, 11, "OPEN")]


def test_an_answer_between_begins_the_waiting_again():
    world = FillWorld(ALL)
    world.hear(10, 500)
    world.find()
    unknown = NotFound(Reason.UNKNOWN_SYMBOL, "-1121")
    world.history.failures = [unknown, unknown, None, unknown]
    for _ in range(4):
        world.clock.advance(limits.FEED_UNKNOWN_S)
        world.turn()
    assert {state for _, _, state in world.gaps()} == {"OPEN", "FILLED"}


def test_a_symbol_that_no_trade_comes_of_is_asked_for_by_name():
    world = FillWorld(ALL)
    world.hear(10)
    del world.history.ids[ETH]
    seen = []
    for _ in range(2000):
        world.exchange()
        world.clock.advance(world.turn())
        seen.append(len(world.history.asked))
    assert world.history.asked == [("ETHUSDT", "newest")], "not at once, and not all the time"
    assert seen[100] == 0
    assert world.filler.counters()["unknown_symbols"] == ["ETHUSDT"]
    world.hear(5, line=1)
    world.exchange()
    assert world.filler.counters()["unknown_symbols"] == []


def test_a_symbol_that_is_listed_later_is_unknown_no_more():
    world = FillWorld(ALL)
    world.hear(10)
    known = world.history.ids.pop(ETH)
    for unknown in (["ETHUSDT"], []):
        world.exchange()
        world.clock.advance(limits.FEED_UNKNOWN_S)
        world.turn()
        assert world.filler.counters()["unknown_symbols"] == unknown
        world.history.ids[ETH] = known


def test_what_else_the_venue_answers_says_nothing_of_a_symbol():
    world = FillWorld({BTC: []})
    world.exchange()
    world.history.failures = [FAILED]
    for _ in range(2):
        world.clock.advance(limits.FEED_UNKNOWN_S)
        world.turn()
    counters = world.filler.counters()
    assert (counters["unknown_symbols"], counters["failures"]) == ([], 1)


def lacking():
    """A world in which 12 to 14 are called unfillable, and the venue has them after all."""
    world = FillWorld({BTC: [*range(1, 12), *range(15, 100)]})
    world.hear(10, 20)
    world.find()
    world.turns()
    assert (12, 14, "UNFILLABLE") in world.gaps()
    world.history.ids[BTC] = list(range(1, 100))
    return world


def test_what_is_unfillable_is_asked_for_again_hours_later():
    world = lacking()
    asked = len(world.history.asked)
    world.clock.advance(limits.FEED_ASK_AGAIN_S - 120)
    for _ in range(3):
        world.turn()
    assert len(world.history.asked) == asked
    world.clock.advance(120)
    world.turn()
    world.turns()
    assert world.gaps() == [(11, 19, "FILLED")]


def test_what_is_unfillable_is_asked_for_again_by_a_later_run():
    world = lacking()
    world.clock.advance(limits.FEED_ASK_AGAIN_S)
    again = world.again({BTC: 20})
    again.turn()
    again.turns()
    assert again.gaps() == [(11, 19, "FILLED")]


def test_what_is_unfillable_is_asked_for_again_on_request():
    world = lacking()
    world.requests.put("asked", FillRequest(BTC, 12, 14, 1_600_000_000_000_000).document())
    world.turn()
    world.turns()
    assert world.gaps() == [(11, 11, "FILLED"), (12, 14, "FILLED"), (15, 19, "FILLED")]


def test_what_still_is_not_there_is_not_asked_for_all_the_time():
    world = lacking()
    world.history.ids[BTC] = [*range(1, 12), *range(15, 100)]
    world.clock.advance(limits.FEED_ASK_AGAIN_S)
    world.turn()
    world.turns()
    asked = len(world.history.asked)
    for _ in range(100):
        world.clock.advance(60)
        world.turn()
    assert len(world.history.asked) == asked
    assert (12, 14, "UNFILLABLE") in world.gaps()


def test_a_time_that_cannot_be_leaves_its_id_open():
    world = FillWorld(ALL)
    world.history.malformed = {12: Malformed(Fault.OUT_OF_RANGE, "time 0", of_time=True)}
    world.hear(10, 13)
    world.find()
    for _ in range(50):
        world.clock.advance(30)
        world.turn()
    assert world.gaps() == [(11, 11, "FILLED"), (12, 12, "OPEN")]
    assert len(world.history.asked) < 10
    world.history.malformed = {}
    world.clock.advance(limits.FEED_ASK_AGAIN_S)
    world.turns()
    assert world.gaps() == [(11, 12, "FILLED")]


def test_a_trade_that_cannot_be_stored_is_unfillable_alone():
    world = FillWorld(ALL)
    world.history.malformed = {12: Malformed(Fault.BAD_VALUE, "price NaN")}
    world.hear(10, 14)
    world.find()
    world.turns()
    assert world.gaps() == [(11, 11, "FILLED"), (12, 12, "UNFILLABLE"), (13, 13, "FILLED")]


def test_what_was_printed_without_a_trade_is_void_at_once_and_asked_for_once():
    world = FillWorld(ALL)
    world.history.void = frozenset({12, 13})
    world.hear(10, 15)
    world.find()
    world.turn()
    expected = [(11, 11, "FILLED"), (12, 13, "VOID"), (14, 14, "FILLED")]
    assert world.gaps() == expected
    assert world.filler.counters()["void_ids"] == 2
    asked = len(world.history.asked)
    world.requests.put("again", FillRequest(BTC, 12, 13, 1_600_000_000_000_000).document())
    for _ in range(5):
        world.turn()
    assert (world.gaps(), len(world.history.asked)) == (expected, asked)


def test_a_venue_that_fails_is_asked_again_ever_later_and_for_ever():
    world = FillWorld({BTC: ALL[BTC]})
    world.history.failures = [FAILED] * 9
    world.hear(10, 12)
    world.find()
    asked_s = []
    for _ in range(20_000):
        before = len(world.history.asked)
        wait_s = world.turn()
        if len(world.history.asked) > before:
            asked_s.append(world.clock.monotonic_s())
        if not world.keeper.ledger.open(BTC):
            break
        world.clock.advance(wait_s)
    pauses = [round(later - before) for before, later in itertools.pairwise(asked_s)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert world.gaps() == [(11, 11, "FILLED")]
    assert world.filler.counters()["last_error"] == "no answer"


def test_a_failure_of_one_symbol_is_not_the_others():
    world = FillWorld(ALL)
    world.hear(10, 12)
    world.hear(10, 12, line=1)
    world.find()
    world.history.failures = [FAILED]
    world.turn()
    world.turn()
    assert len([gap for gap in world.keeper.ledger.gaps() if gap.state == "FILLED"]) == 1


def test_a_venue_that_asks_for_peace_gets_it():
    world = FillWorld(ALL)
    world.hear(10, 12)
    world.find()
    world.history.failures = [RateLimited(Reason.VENUE_UNAVAILABLE, "429", retry_after_s=40)]
    world.budget.block(40, world.clock.now_us())
    asked = len(world.history.asked)
    for _ in range(39):
        world.turn()
        world.clock.advance(1)
    assert len(world.history.asked) == asked
    world.clock.advance(1)
    world.turns()
    assert world.gaps() == [(11, 11, "FILLED")]


def test_the_budget_of_a_minute_is_kept_and_told():
    world = FillWorld({BTC: range(1, 100_000)})
    world.budget.per_minute = 100
    world.hear(1, 1002)
    world.find()
    minutes = {}
    for _ in range(10_000):
        before = len(world.history.asked)
        wait_s = world.turn()
        minute = world.clock.now_us() // 60_000_000
        minutes[minute] = minutes.get(minute, 0) + len(world.history.asked) - before
        if not world.keeper.ledger.open(BTC):
            break
        world.clock.advance(min(wait_s, 5))
    assert [count for count in minutes.values() if count] == [4, 4, 2]


def test_the_eta_counts_requests_not_gaps():
    world = FillWorld({BTC: range(1, 100_000)})
    world.budget.per_minute = 100
    world.hear(1, 1 + 8 * PAGE + 1)
    world.find()
    world.keeper.record([BTC])
    world.filler._survey()
    counters = world.filler.counters()
    assert counters["open_ids"] == 8 * PAGE
    assert counters["eta_s"] == 60.0


def test_a_killed_feed_goes_on_where_the_ledger_stands():
    world = FillWorld(ALL)
    world.hear(1, 500)
    world.find()
    for _ in range(2):
        world.turn()
    filled = len(world.ids())
    assert filled == 2 * PAGE
    after = world.again()
    after.turns()
    assert after.gaps() == [(2, 499, "FILLED")]
    assert sorted(after.ids()) == list(range(2, 500)), "nothing was fetched twice"


def test_a_tape_that_does_not_acknowledge_leaves_the_gap_open():
    world = FillWorld(ALL)
    world.hear(10, 14)
    world.find()
    world.keeper.record([BTC])
    world.tape.away = True
    world.filler.step()
    assert world.gaps() == [(11, 13, "OPEN")]
    world.tape.away = False
    world.turns()
    assert world.gaps() == [(11, 13, "FILLED")]
    assert set(world.ids()) == {11, 12, 13}


def test_it_waits_while_live_trades_need_the_queue():
    world = FillWorld(ALL)
    world.hear(10, 14)
    world.find()
    world.keeper.record([BTC])
    world.tape.away = True
    for _ in range(limits.BACKFILL_QUEUE_RECORDS_MAX + 1):
        world.producer.send(b"k", b"live", 5)
    world.filler.step()
    assert world.history.asked == []
    world.tape.away = False
    world.producer.poll()
    world.turns()
    assert world.ids() == [11, 12, 13]


def test_two_feeds_fill_the_same_gap_without_harm():
    one = FillWorld(ALL)
    other = FillWorld(ALL, one.tape)
    for world in (one, other):
        world.hear(10, 14)
        world.find()
    one.keeper.record([BTC])
    one.turns()
    other.turns()
    assert other.gaps() == [(11, 13, "FILLED")]
    one.turns()
    assert one.gaps() == [(11, 13, "FILLED")]
    assert set(one.ids()) == {11, 12, 13}


def test_a_stream_that_loses_all_the_time_costs_few_requests():
    world = FillWorld({BTC: range(1, 100_000)})
    reached, asked_s = 1, []
    for _ in range(400):
        world.hear(*(reached + each for each in (0, 1, 2, 4)))
        reached += 5
        world.exchange()
        before = len(world.history.asked)
        world.turn()
        if len(world.history.asked) > before:
            asked_s.append(world.clock.monotonic_s())
        world.clock.advance(0.1)
    assert len(asked_s) <= 40 / limits.BACKFILL_GATHER_S + 1
    lost = set(range(4, reached - 200, 5))
    assert lost <= set(world.ids())


@pytest.mark.parametrize("skew_s", [-3600, 3600])
def test_a_gap_that_another_clock_wrote_down_is_waited_for_just_as_long(skew_s):
    other = FillWorld({BTC: []}, clock=ManualClock())
    world = FillWorld({BTC: [*range(1, 12), 14]}, other.tape)
    other.clock.advance(world.clock.monotonic_s() - other.clock.monotonic_s() + skew_s)
    other.hear(10, 14)
    other.find()
    other.keeper.record(other.sender.instruments)
    world.turn()
    assert world.gaps() == [(11, 11, "FILLED"), (12, 13, "OPEN")]
    known_s = world.clock.monotonic_s()
    world.turns()
    assert world.gaps()[1] == (12, 13, "UNFILLABLE")
    assert ABSENT_S <= world.clock.monotonic_s() - known_s < 2 * ABSENT_S


def test_a_feed_that_starts_again_waits_before_it_believes_an_absence():
    world = FillWorld({BTC: [1, 5]})
    world.hear(1, 5)
    world.find()
    world.turn()
    again = world.again()
    again.turn()
    assert again.gaps() == [(2, 4, "OPEN")]
    again.turns()
    assert again.gaps() == [(2, 4, "UNFILLABLE")]


def test_an_absence_is_as_old_as_the_question_that_found_it():
    world = FillWorld({BTC: [*range(1, 12), 20]})
    world.hear(10, 14)
    world.find()
    world.stuck = True
    world.turn()  # the tape takes longer than an absence must last
    world.stuck = False
    world.history.ids[BTC] = list(range(1, 21))  # the venue had them a moment later
    world.turns()
    assert world.gaps() == [(11, 13, "FILLED")]


def test_what_the_lake_defers_is_on_the_tape_and_not_fetched():
    world = FillWorld(ALL)
    world.hear(10, 15)
    world.find()
    now_us = world.clock.now_us()
    shed = (BTC, 16, 30, now_us, Cause.SHED, GapState.OPEN, now_us)
    world.tape.gap_log().publish([GapEvent(*shed, f"{LAKE}run")])
    for _ in range(20):
        world.clock.advance(world.turn())
    assert world.ids() == [11, 12, 13, 14]
    assert world.gaps() == [(11, 14, "FILLED"), (16, 30, "OPEN")]
    assert world.filler.counters()["open_ids"] == 0
    world.hear(20)  # again, by another connection
    world.turn()
    assert world.gaps()[1] == (16, 30, "OPEN"), "only a lake writer closes it"


def test_gaps_of_a_shed_instrument_wait_and_others_are_filled():
    world = FillWorld(ALL)
    shed = {BTC}
    world.filler.fills = lambda instrument: instrument not in shed
    world.hear(10, 15)
    world.hear(10, 15, line=1)
    world.find()
    for _ in range(10):
        world.clock.advance(world.turn())
    assert world.gaps() == [(11, 14, "OPEN")]
    assert world.gaps(ETH) == [(11, 14, "FILLED")]
    assert {symbol for symbol, *_ in world.history.asked} == {"ETHUSDT"}
    assert world.filler.counters()["open_ids"] == 4
    shed.clear()
    world.turns()
    assert world.gaps() == [(11, 14, "FILLED")]


def test_a_shed_instrument_is_not_asked_for_although_it_is_silent():
    world = FillWorld(ALL)
    world.filler.fills = lambda instrument: False
    world.exchange()
    world.clock.advance(limits.FEED_STALE_S + 1)
    world.turn()
    assert world.history.asked == []
