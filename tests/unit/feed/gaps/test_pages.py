import pytest

from k2 import limits
from k2.feed.gaps.pages import IdReach, judge, newest_page, runs_of, without
from k2.feed.venues.history import HistoryPage
from k2.feed.venues.source import Malformed
from k2.market.events import Fault
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapEvent, GapState
from tests.support.messages import trade

BTC = Instrument("BINANCE", "BTCUSDT")


def gap(first, last):
    return GapEvent(BTC, first, last, 0, Cause.SEQUENCE, GapState.OPEN, 0, "feed")


def never(first, last):
    return False


def answer(*ids, malformed=None, void=()):
    trades = tuple(trade(trade_id=each) for each in ids)
    return HistoryPage(trades, malformed or {}, max(ids), frozenset(void))


def spans(gaps):
    return [(each.first_id, each.last_id) for each in gaps]


def test_a_page_ends_at_the_newest_id_and_takes_all_that_is_near():
    page = newest_page([gap(1, 5), gap(92, 93), gap(95, 100)], [], 10)
    assert (page.first_id, page.last_id) == (92, 100)
    assert spans(page.wanted) == [(92, 93), (95, 100)]
    assert list(page.wanted_ids) == [92, 93, *range(95, 101)]


def test_a_page_holds_as_much_as_one_answer():
    page = newest_page([gap(1, 100)], [], 10)
    assert (page.first_id, page.last_id) == (91, 100)


def test_deferred_runs_are_left_out():
    assert newest_page([gap(1, 5)], [(0, 9)], 10) is None
    page = newest_page([gap(1, 100)], [(95, 200), (90, 91)], 10)
    assert spans(page.wanted) == [(85, 89), (92, 94)]
    assert newest_page([], [], 10) is None


def test_a_run_cuts_a_gap():
    assert spans(without(gap(5, 9), (7, 7))) == [(5, 6), (8, 9)]
    assert spans(without(gap(5, 9), (1, 4))) == [(5, 9)]
    assert without(gap(5, 9), (5, 9)) == []


def test_what_is_absent_is_settled_once_it_was_waited_for():
    page = newest_page([gap(1, 4), gap(6, 9)], [], 100)
    given, reach = answer(1, 4, 6), IdReach(8, None)
    verdict = judge(page, [gap(1, 9)], given, reach, lambda first, last: first >= 6)
    assert spans(verdict.settled) == [(2, 3)]
    assert verdict.settled[0].state is GapState.UNFILLABLE
    assert verdict.young == ((7, 8), (9, 9))


def test_each_absence_says_why():
    malformed = {3: Malformed(Fault.BAD_VALUE, "price x")}
    page = newest_page([gap(1, 6)], [], 100)
    reach = IdReach(4, None)
    verdict = judge(page, [gap(1, 6)], answer(1, malformed=malformed), reach, never)
    assert [(each.first_id, each.last_id, each.reason) for each in verdict.settled] == [
        (2, 2, "the venue does not have it"),
        (3, 3, "the venue's answer cannot be stored: price x"),
        (4, 4, "the venue does not have it"),
        (5, 6, "the venue has not printed it: its newest id is 4"),
    ]
    none = judge(page, [gap(1, 6)], answer(1), IdReach(None, None), never).settled[0].reason
    assert none.endswith("its newest id is none")


def test_what_was_printed_without_a_trade_needs_no_waiting():
    page = newest_page([gap(1, 6)], [], 100)
    reach = IdReach(6, None)
    verdict = judge(page, [gap(1, 6)], answer(1, 6, void={2, 3}), reach, lambda first, last: True)
    assert [(*spans([each])[0], each.state) for each in verdict.settled] == [(2, 3, GapState.VOID)]
    assert verdict.young == ((4, 5),)


def test_a_time_that_cannot_be_proves_nothing():
    malformed = {2: Malformed(Fault.OUT_OF_RANGE, "time 0", of_time=True)}
    page = newest_page([gap(1, 3)], [], 100)
    given = answer(1, 3, malformed=malformed)
    verdict = judge(page, [gap(1, 3)], given, IdReach(3, None), never)
    assert (verdict.settled, verdict.untimely) == ((), ((2, 2),))


FAR = limits.SEQUENCE_JUMP_MAX


@pytest.mark.parametrize(
    ("newest_id", "tape_id", "proven"),
    [
        (4, None, False), (4, 5, False), (4, 6, True), (4, 4 + FAR, True), (4, 5 + FAR, False),
        (None, 6, True), (None, 5 + FAR, True), (None, 6 + FAR, False), (None, None, False),
    ],
)  # fmt: skip
def test_a_higher_id_on_the_tape_proves_one_unless_it_is_absurd(newest_id, tape_id, proven):
    assert IdReach(newest_id, tape_id).proves(5) is proven


def test_all_that_rest_has_not_reached_is_judged_at_once():
    gaps = [gap(1, 5), gap(50, 99), gap(200, 10**9)]
    page = newest_page(gaps, [], 10)
    given = HistoryPage((), {}, None)
    waits = judge(page, gaps, given, IdReach(60, 10**9 + 1), never)
    assert (waits.settled, waits.behind) == ((), ((61, 99), (200, 10**9)))
    assert spans(judge(page, gaps, given, IdReach(60, None), never).settled) == [
        (61, 99), (200, 10**9),
    ]  # fmt: skip


def test_ids_as_runs():
    assert list(runs_of([])) == []
    assert list(runs_of([1, 2, 3, 7, 9, 10])) == [(1, 3), (7, 7), (9, 10)]
