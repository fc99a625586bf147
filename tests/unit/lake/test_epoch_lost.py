"""Ids reported as lost when an epoch ends: all that were covered or filled and not seen."""

import numpy as np
import pytest

from k2 import limits
from k2.errors import Reason, Unavailable
from k2.lake.ingest.epoch_transition import StartedEpoch, lost_ids
from k2.market.coverage import Coverage
from k2.market.events import Fault
from k2.market.fold import FoldState, Seen
from k2.market.ledger import LAKE, Cause, GapEvent, GapState, Ledger, check_gap, fold_all
from tests.support.trades import NOW_US
from tests.support.writer_world import BTC, ETH, begun, ended, pumped


def open_gap(instrument, first, last):
    return GapEvent(instrument, first, last, NOW_US, Cause.EPOCH, GapState.OPEN, NOW_US, "lake")


def ledger_of(*told):
    """Of BTC: first id, last id, state."""
    ledger = Ledger()
    for first, last, state in told:
        ledger.apply(GapEvent(BTC, first, last, NOW_US, Cause.OUTAGE, state, NOW_US, "feed"))
    return ledger


def lost(*intervals, promise=None, ledger=None):
    """Of BTC: the ids that may be lost, where the lake has seen these intervals."""
    seen = {BTC: Seen(np.array(intervals), 5)} if intervals else {}
    promises = {BTC: Coverage(*promise)} if promise else {}
    events = lost_ids({0: FoldState(seen)}, promises, ledger or Ledger(), NOW_US, "lake")
    assert all(check_gap(event) is Fault.NONE for event in events)
    return [(event.first_id, event.last_id) for event in events]


def test_what_was_promised_and_not_seen_is_in_the_ledger_before_the_epoch_begins(world):
    world.put(1, 2, 3, 4, 5)
    pumped(world)
    ended(world)
    told = []

    def tell(states):
        assert world.epoch == 0
        promises = {BTC: Coverage(0, 9), ETH: Coverage(2, 3)}  # of ETH the lake has nothing
        told.extend(lost_ids(states, promises, Ledger(), NOW_US, "lake"))
        raise Unavailable(Reason.REGISTRY_UNAVAILABLE, "away")

    with pytest.raises(Unavailable):
        begun(world, tell=tell)
    assert told == [open_gap(BTC, 6, 9), open_gap(ETH, 3, 3)]
    assert world.epoch == 0
    assert begun(world).adopted
    assert begun(world, tell=tell) == StartedEpoch(1)


@pytest.mark.parametrize(
    ("promise", "found"),
    [
        ((99, 120), [(100, 120)]),
        ((-1, 0), [(0, 0)]),
        ((120, 120), []),  # nothing was heard yet, or it is not known where that was
        (None, []),
    ],
)
def test_of_an_instrument_without_a_row_all_that_was_promised_is_lost(promise, found):
    assert lost(promise=promise) == found


def test_what_was_promised_below_the_first_row_is_lost(monkeypatch):
    monkeypatch.setattr(limits, "SEQUENCE_REORDER_MAX", 100)
    assert lost((100, 105), promise=(96, 105)) == [(97, 99)]
    assert lost((100, 105), promise=(99, 105)) == []
    assert lost((100, 105), promise=(102, 105)) == []


def test_holes_that_may_have_been_out_of_order_are_lost(monkeypatch):
    monkeypatch.setattr(limits, "SEQUENCE_REORDER_MAX", 4)
    intervals = (1, 2), (10, 10), (20, 20)
    assert lost(*intervals, promise=(0, 22)) == [(16, 19), (21, 22)]
    assert lost(*intervals, promise=(22, 22)) == [(16, 19), (21, 22)]
    assert lost(*intervals, promise=(0, 1)) == [(16, 19)]  # the promise lags behind the lake
    assert lost(*intervals) == []  # nobody listened


def test_what_the_ledger_calls_filled_is_lost_wherever_it_is_not_seen():
    ledger = ledger_of(
        (1, 2, GapState.FILLED),
        (3, 4, GapState.OPEN),
        (12, 14, GapState.FILLED),
        (16, 17, GapState.UNFILLABLE),
        (29, 40, GapState.FILLED),
    )
    assert lost((8, 10), (20, 30), ledger=ledger) == [(1, 2), (12, 14), (31, 40)]
    assert lost(ledger=ledger) == [(1, 2), (12, 14), (29, 40)]


def test_what_a_writer_deferred_ends_with_the_epoch():
    shed = GapEvent(BTC, 4, 8, NOW_US - 1, Cause.SHED, GapState.OPEN, NOW_US - 1, f"{LAKE}before")
    ledger = fold_all([shed])
    states = {0: FoldState({BTC: Seen(np.array([[1, 5]]), NOW_US)})}
    events = lost_ids(states, {BTC: Coverage(0, 9)}, ledger, NOW_US, f"{LAKE}run")
    for event in events:
        ledger.apply(event)
    have = [(gap.first_id, gap.last_id, gap.state, gap.cause) for gap in ledger.gaps()]
    assert have == [(4, 5, GapState.FILLED, Cause.SHED), (6, 9, GapState.OPEN, Cause.EPOCH)]
