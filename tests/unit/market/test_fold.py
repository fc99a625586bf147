import numpy as np

from k2 import limits
from k2.market.events import Fault
from k2.market.fold import (
    NOTHING_SEEN,
    FoldState,
    Verdict,
    accept_ids,
    contains,
    fold,
    from_table,
    to_table,
)
from k2.market.instrument import Instrument
from tests.support.trades import NOW_US, columns

BTC = Instrument("BINANCE", "BTCUSDT")
ETH = Instrument("BINANCE", "ETHUSDT")


def verdicts(state, batch):
    after, judged, *_ = fold(state, batch)
    return after, [Verdict(verdict).name for verdict in judged]


def test_consecutive_ids_are_one_interval():
    state, judged = verdicts(FoldState(), columns([1, 2, 3]))
    state, more = verdicts(state, columns([4, 5]))
    assert judged + more == ["ACCEPTED"] * 5
    assert state.seen[BTC].intervals.tolist() == [[1, 5]]
    assert (state.accepted, state.duplicate, state.dead) == (5, 0, 0)


def test_a_repeated_id_is_a_duplicate_in_the_batch_and_across_batches():
    state, judged = verdicts(FoldState(), columns([1, 2, 2, 3]))
    assert judged == ["ACCEPTED", "ACCEPTED", "DUPLICATE", "ACCEPTED"]
    state, judged = verdicts(state, columns([1, 4]))
    assert judged == ["DUPLICATE", "ACCEPTED"]


def test_late_ids_fill_the_hole_and_join_the_intervals():
    state = fold(FoldState(), columns([1, 2, 5, 6])).state
    assert state.seen[BTC].holes() == [(3, 4)]
    state, judged = verdicts(state, columns([4, 3]))
    assert judged == ["ACCEPTED", "ACCEPTED"]
    assert state.seen[BTC].intervals.tolist() == [[1, 6]]
    assert state.seen[BTC].holes() == []
    assert state.seen[BTC].count == 6


def test_an_id_far_below_everything_seen_is_exact():
    state = fold(FoldState(), columns([10**12])).state
    state, judged = verdicts(state, columns([1, 1, 10**12]))
    assert judged == ["ACCEPTED", "DUPLICATE", "DUPLICATE"]


def test_faulty_records_are_dead_and_touch_nothing():
    batch = columns([1, 2, 3], faults=[Fault.NONE, Fault.TRUNCATED, Fault.NONE])
    state, judged = verdicts(FoldState(), batch)
    assert judged == ["ACCEPTED", "DEAD", "ACCEPTED"]
    assert state.seen[BTC].intervals.tolist() == [[1, 1], [3, 3]]
    assert (state.accepted, state.duplicate, state.dead) == (2, 0, 1)


def test_an_all_faulty_batch_keeps_the_state():
    before = fold(FoldState(), columns([1])).state
    after, judged = verdicts(before, columns([2, 3], faults=[Fault.BAD_MAGIC] * 2))
    assert judged == ["DEAD", "DEAD"]
    assert after.seen == before.seen


def test_instruments_are_apart():
    batch = columns([7, 7, 7], symbols=["BTCUSDT", "ETHUSDT", "BTCUSDT"])
    state, judged = verdicts(FoldState(), batch)
    assert judged == ["ACCEPTED", "ACCEPTED", "DUPLICATE"]
    assert set(state.seen) == {BTC, ETH}


def test_the_greatest_event_time_is_kept_even_when_a_later_trade_is_older():
    state = fold(FoldState(), columns([1, 2], times=[NOW_US + 5, NOW_US])).state
    state = fold(state, columns([3], times=[NOW_US - 9])).state
    assert state.seen[BTC].time_max_us == NOW_US + 5


def test_a_duplicate_does_not_move_the_greatest_event_time():
    state = fold(FoldState(), columns([1], times=[NOW_US])).state
    state = fold(state, columns([1], times=[NOW_US + 9])).state
    assert state.seen[BTC].time_max_us == NOW_US


def test_the_old_state_stays_as_it_was():
    before = fold(FoldState(), columns([1, 2])).state
    copy = before.seen[BTC].intervals.copy()
    fold(before, columns([3, 1, 9]))
    assert np.array_equal(before.seen[BTC].intervals, copy)
    assert before.accepted == 2


def test_at_the_bound_of_intervals_what_would_begin_another_waits_among_the_dead(monkeypatch):
    monkeypatch.setattr(limits, "INTERVALS_PER_KEY_MAX", 3)
    batch = columns([1, 3, 5, 7, 8, 6, 5, 2, 8, 10], symbols=["BTCUSDT"] * 9 + ["ETHUSDT"])
    state, verdicts, _, faults = fold(FoldState(), batch)
    a, u, d = Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.DEAD
    # 2 joins two, which makes room for 8
    assert verdicts.tolist() == [a, a, a, d, d, a, u, a, a, a]
    assert state.seen[BTC].intervals.tolist() == [[1, 3], [5, 6], [8, 8]]
    assert (state.accepted, state.duplicate, state.dead) == (7, 1, 2)
    found = faults.tolist()
    assert found == [0, 0, 0, Fault.TOO_MANY_HOLES, Fault.TOO_MANY_HOLES, 0, 0, 0, 0, 0]


def test_a_hundred_thousand_intervals_are_kept_exactly():
    every_other = np.arange(0, 2 * limits.INTERVALS_PER_KEY_MAX, 2)
    full = fold(FoldState(), columns(every_other)).state
    assert len(full.seen[BTC].intervals) == limits.INTERVALS_PER_KEY_MAX
    last = int(every_other[-1])
    state, verdicts, *_ = fold(full, columns([last + 1, last + 3, 7, 8]))
    a, u, d = Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.DEAD
    assert verdicts.tolist() == [a, d, a, u]
    assert from_table(to_table({0: state}), {0: (3, 1, 1)})[0].seen == state.seen


def test_an_empty_batch_changes_nothing():
    state, judged = verdicts(FoldState(), columns([]))
    assert judged == []
    assert state == FoldState()


def test_the_published_form_reads_back_equal():
    batch = columns([1, 2, 9, 4], symbols=["BTCUSDT", "BTCUSDT", "BTCUSDT", "ETHUSDT"])
    first = fold(FoldState(), batch).state
    second = fold(FoldState(), columns([5], symbols="SOLUSDT")).state
    states = {0: first, 2: second, 3: FoldState(dead=4)}
    counters = {p: (s.accepted, s.duplicate, s.dead) for p, s in states.items()}
    assert from_table(to_table(states), counters) == states
    assert from_table(to_table(states), {2: counters[2]}) == {
        2: second
    }  # the others' rows are no harm


def test_seen_differs_by_intervals_and_by_time():
    state = fold(FoldState(), columns([1])).state
    other = fold(FoldState(), columns([2])).state
    later = fold(FoldState(), columns([1], times=[NOW_US + 1])).state
    assert state.seen[BTC] != other.seen[BTC]
    assert state.seen[BTC] != later.seen[BTC]
    assert state.seen[BTC] != "anything else"


def test_only_an_accepted_id_below_an_earlier_one_is_late():
    before = fold(FoldState(), columns([1, 2, 9])).state
    batch = columns([10, 12, 9, 11, 13, 5, 1], symbols=["BTCUSDT"] * 6 + ["ETHUSDT"])
    assert fold(before, batch).late == {BTC: 5}  # 11 and 5; 9 is a duplicate
    assert fold(before, columns([10, 11, 15])).late == {}


def test_intervals_contain_the_ids_from_their_first_to_their_last():
    intervals = fold(FoldState(), columns([2, 3, 7])).state.seen[BTC].intervals
    ids = np.arange(1, 9)
    assert ids[contains(intervals, ids)].tolist() == [2, 3, 7]
    assert not contains(NOTHING_SEEN.intervals, ids).any()


def test_ids_go_into_intervals_in_order_or_out_of_it():
    none = np.empty((0, 2), np.int64)
    ascending, new = accept_ids(none, np.array([1, 2, 5]))
    assert (ascending.tolist(), new.tolist()) == ([[1, 2], [5, 5]], [True] * 3)
    intervals, new = accept_ids(ascending, np.array([4, 3, 5]))
    assert (intervals.tolist(), new.tolist()) == ([[1, 5]], [True, True, False])
