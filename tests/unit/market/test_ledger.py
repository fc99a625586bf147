"""An event of the ledger says one thing, and says it without contradiction."""

import dataclasses
from dataclasses import replace

import pytest

from k2.market import schema
from k2.market.events import Fault
from k2.market.instrument import Instrument
from k2.market.ledger import (
    LAKE,
    Cause,
    GapEvent,
    GapState,
    Ledger,
    check_gap,
    fold_all,
    gap_of,
    is_deferred,
    reopened,
    unfillable,
    void,
)

TIME_US = 1_700_000_000_000_000
OPEN = GapEvent(
    Instrument("BINANCE", "BTCUSDT"), 5, 9, TIME_US, Cause.SEQUENCE, GapState.OPEN, TIME_US, "feed"
)
FILLED = dataclasses.replace(OPEN, state=GapState.FILLED, filled_at_us=TIME_US)
UNFILLABLE = dataclasses.replace(OPEN, state=GapState.UNFILLABLE, reason="gone")
VOID = dataclasses.replace(OPEN, state=GapState.VOID)


def test_a_gap_that_cannot_be_filled_says_why_until_it_is_open_again():
    assert unfillable(OPEN, "gone") == UNFILLABLE
    assert reopened(UNFILLABLE) == reopened(FILLED) == OPEN


def test_only_a_lake_writer_defers():
    shed = replace(OPEN, cause=Cause.SHED)
    assert is_deferred(replace(shed, feed=f"{LAKE}run"))
    assert not is_deferred(shed)
    assert not is_deferred(replace(OPEN, feed=f"{LAKE}run"))


@pytest.mark.parametrize("event", [OPEN, FILLED, UNFILLABLE, VOID])
def test_an_event_is_its_columns_and_back(event):
    values = event.values()
    assert list(values) == [field.name for field in schema.GAP.fields if field.on_tape]
    assert gap_of(values) == event
    assert check_gap(event) is Fault.NONE


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        (OPEN, {"instrument": Instrument("", "BTCUSDT")}),
        (OPEN, {"instrument": Instrument("BINANCE", "")}),
        (OPEN, {"instrument": Instrument("BINANCE", "B" * 300)}),
        (OPEN, {"filled_at_us": TIME_US}),
        (OPEN, {"reason": "why"}),
        (FILLED, {"filled_at_us": None}),
        (UNFILLABLE, {"reason": None}),
        (VOID, {"filled_at_us": TIME_US}),
        (VOID, {"reason": "why"}),
    ],
)
def test_an_event_that_contradicts_itself_is_bad(event, changes):
    changed = dataclasses.replace(event, **changes)
    assert check_gap(changed) is Fault.BAD_VALUE
    assert gap_of(changed.values()) is Fault.BAD_VALUE


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        (OPEN, {"first_id": -1}),
        (OPEN, {"first_id": 10}),
        (OPEN, {"last_id": 2**63}),
        (OPEN, {"detected_us": 0}),
        (OPEN, {"recorded_us": 0}),
        (FILLED, {"filled_at_us": 0}),
    ],
)
def test_numbers_and_times_lie_in_their_range(event, changes):
    assert check_gap(dataclasses.replace(event, **changes)) is Fault.OUT_OF_RANGE


@pytest.mark.parametrize("change", [{"cause": "WEATHER"}, {"state": "LOST"}])
def test_an_unknown_word_is_bad(change):
    assert gap_of(OPEN.values() | change) is Fault.BAD_VALUE


def test_a_column_that_is_lacking_is_bad():
    values = OPEN.values()
    del values["feed"]
    assert gap_of(values) is Fault.BAD_VALUE


def test_the_words_are_those_that_the_columns_explain():
    docs = {field.name: field.doc for field in schema.GAP.fields}
    assert all(cause.value in docs["cause"] for cause in Cause)
    assert all(state.value in docs["state"] for state in GapState)


BTC, ETH = Instrument("BINANCE", "BTCUSDT"), Instrument("BINANCE", "ETHUSDT")


def event(first, last, state=GapState.OPEN, *, instrument=BTC, at=1, cause=Cause.SEQUENCE, **more):
    filled = at if state is GapState.FILLED else None
    return GapEvent(instrument, first, last, at, cause, state, at, "feed", filled, **more)


def told(*events, intervals_max=100):
    ledger = Ledger(intervals_max)
    for each in events:
        ledger.apply(each)
    return ledger


def shown(ledger, instrument=BTC):
    return [(gap.first_id, gap.last_id, gap.state.value) for gap in ledger.gaps([instrument])]


def test_an_event_paints_over_what_it_covers():
    ledger = told(event(10, 19), event(13, 15, GapState.FILLED, at=9))
    assert shown(ledger) == [(10, 12, "OPEN"), (13, 15, "FILLED"), (16, 19, "OPEN")]
    assert [gap.first_id for gap in ledger.open(BTC)] == [10, 16]
    filled = ledger.within(BTC, 14, 14)[0]
    assert (filled.first_id, filled.last_id, filled.filled_at_us) == (14, 14, 9)


def test_a_settled_interval_can_be_opened_again():
    ledger = told(event(1, 9, GapState.UNFILLABLE, reason="gone"), event(4, 5, at=3))
    assert shown(ledger) == [(1, 3, "UNFILLABLE"), (4, 5, "OPEN"), (6, 9, "UNFILLABLE")]
    assert ledger.open(BTC)[0].reason is None


def test_an_id_that_was_printed_without_a_trade_is_not_missed_again():
    ledger = told(event(1, 9), void(event(4, 4)), event(3, 12, at=5))
    assert shown(ledger) == [(1, 3, "OPEN"), (4, 4, "VOID"), (5, 9, "OPEN"), (10, 12, "OPEN")]
    ledger.apply(event(4, 4, GapState.FILLED))
    assert shown(ledger)[1] == (4, 4, "FILLED"), "a trade says more than its absence"


def test_open_over_open_keeps_when_and_why_it_was_first_missed():
    ledger = told(
        event(10, 19, at=1, cause=Cause.DISCONNECT), event(5, 25, at=2, cause=Cause.OUTAGE)
    )
    found = [(gap.first_id, gap.last_id, gap.cause.value, gap.detected_us) for gap in ledger.gaps()]
    assert found == [(5, 9, "OUTAGE", 2), (10, 19, "DISCONNECT", 1), (20, 25, "OUTAGE", 2)]


def test_pages_of_one_backfill_become_one_interval_again():
    first = event(1, 100)
    pages = [
        replace(first, first_id=low, last_id=low + 24, state=GapState.FILLED, filled_at_us=low)
        for low in (76, 51, 26, 1)
    ]
    ledger = told(first, *pages)
    assert shown(ledger) == [(1, 100, "FILLED")]
    assert next(ledger.gaps()).filled_at_us == 76


def test_neighbours_that_differ_stay_apart():
    assert len(shown(told(event(1, 5, at=1), event(6, 9, at=2)))) == 2
    reasons = [event(at, at, GapState.UNFILLABLE, reason=str(at)) for at in (1, 2)]
    assert len(shown(told(*reasons))) == 2


def test_repeating_events_changes_nothing():
    events = [event(1, 9), event(3, 4, GapState.FILLED), event(20, 30)]
    once, twice = told(*events), told(*events, events[1], events[2])
    assert shown(once) == shown(twice)


def test_instruments_are_apart():
    ledger = told(event(1, 2), event(1, 2, instrument=ETH))
    assert len(list(ledger.gaps())) == 2
    assert shown(ledger, ETH) == [(1, 2, "OPEN")]
    assert ledger.within(Instrument("X", "Y"), 1, 2) == ()
    assert list(ledger.gaps([Instrument("X", "Y")])) == []


def test_the_oldest_settled_interval_is_forgotten_first():
    events = [event(0, 1), event(10, 11, GapState.FILLED), event(20, 21, GapState.FILLED)]
    ledger = told(*events, event(30, 31), intervals_max=3)
    assert shown(ledger) == [(0, 1, "OPEN"), (20, 21, "FILLED"), (30, 31, "OPEN")]
    assert (ledger.forgotten, ledger.joined) == (1, 0)


def test_what_was_printed_without_a_trade_is_forgotten_last():
    events = [event(0, 1), void(event(5, 5)), event(10, 11, GapState.FILLED), event(20, 21)]
    ledger = told(*events, intervals_max=3)
    assert shown(ledger) == [(0, 1, "OPEN"), (5, 5, "VOID"), (20, 21, "OPEN")]
    ledger.apply(event(30, 31))
    assert shown(ledger) == [(0, 1, "OPEN"), (20, 21, "OPEN"), (30, 31, "OPEN")]


def test_too_many_open_gaps_are_joined_never_forgotten():
    ledger = told(*(event(at, at) for at in range(0, 10, 2)), intervals_max=3)
    assert shown(ledger) == [(0, 4, "OPEN"), (6, 6, "OPEN"), (8, 8, "OPEN")]
    assert ledger.joined == 2


def test_fold_all_applies_events_in_order():
    events = [event(10, 19), event(13, 15, GapState.FILLED, at=9)]
    assert [*fold_all(events).gaps()] == [*told(*events).gaps()]
