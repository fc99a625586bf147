"""An event of the ledger says one thing, and says it without contradiction."""

import dataclasses

import pytest

from k2.market import schema
from k2.market.events import Fault
from k2.market.gaps import Cause, GapEvent, GapState, check_gap, gap_of
from k2.market.instrument import Instrument

TIME_US = 1_700_000_000_000_000
OPEN = GapEvent(
    Instrument("BINANCE", "BTCUSDT"), 5, 9, TIME_US, Cause.SEQUENCE, GapState.OPEN, TIME_US, "feed"
)
FILLED = dataclasses.replace(OPEN, state=GapState.FILLED, filled_at_us=TIME_US)
UNFILLABLE = dataclasses.replace(OPEN, state=GapState.UNFILLABLE, reason="gone")
VOID = dataclasses.replace(OPEN, state=GapState.VOID)


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
