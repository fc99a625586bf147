from k2.feed.history import Answer
from k2.feed.pages import judge, newest_page, runs_of, without
from k2.feed.source import Malformed
from k2.market.events import Fault
from k2.market.gaps import Cause, GapEvent, GapState
from k2.market.instrument import Instrument
from tests.messages import trade

BTC = Instrument("BINANCE", "BTCUSDT")


def gap(first, last):
    return GapEvent(BTC, first, last, 0, Cause.SEQUENCE, GapState.OPEN, 0, "feed")


def never(first, last):
    return False


def answer(*ids, malformed=None, void=()):
    trades = tuple(trade(trade_id=each) for each in ids)
    return Answer(trades, malformed or {}, max(ids), frozenset(void))


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
    verdict = judge(page, answer(1, 4, 6), 8, lambda first, last: first >= 6)
    assert spans(verdict.settled) == [(2, 3)]
    assert verdict.settled[0].state is GapState.UNFILLABLE
    assert verdict.deferred == ((7, 8), (9, 9))


def test_each_absence_says_why():
    malformed = {3: Malformed(Fault.BAD_VALUE, "price x")}
    page = newest_page([gap(1, 6)], [], 100)
    verdict = judge(page, answer(1, malformed=malformed), 4, never)
    assert [(each.first_id, each.last_id, each.reason) for each in verdict.settled] == [
        (2, 2, "the venue does not have it"),
        (3, 3, "the venue's answer cannot be stored: price x"),
        (4, 4, "the venue does not have it"),
        (5, 6, "the venue has not printed it: its newest id is 4"),
    ]
    none = judge(page, answer(1), None, never).settled[0].reason
    assert none.endswith("its newest id is none")


def test_what_was_printed_without_a_trade_needs_no_waiting():
    page = newest_page([gap(1, 6)], [], 100)
    verdict = judge(page, answer(1, 6, void={2, 3}), 6, lambda first, last: True)
    assert [(*spans([each])[0], each.state) for each in verdict.settled] == [(2, 3, GapState.VOID)]
    assert verdict.deferred == ((4, 5),)


def test_ids_as_runs():
    assert list(runs_of([])) == []
    assert list(runs_of([1, 2, 3, 7, 9, 10])) == [(1, 3), (7, 7), (9, 10)]
