"""The comparison alone; with a lake and a tape it is in test_verify."""

import numpy as np

from k2.lake.verify.verify_gaps import compare_gaps
from k2.market.fold import FoldState, Seen
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapEvent, GapState, fold_all

BTC, ETH = Instrument("BINANCE", "BTCUSDT"), Instrument("BINANCE", "ETHUSDT")


def state(*intervals):
    return Seen(np.array(intervals, dtype=np.int64), 0)


def filled(instrument, first, last):
    return GapEvent(
        instrument, first, last, 5, Cause.OUTAGE, GapState.FILLED, 5, "feed", filled_at_us=6
    )


def test_instruments_and_partitions_are_judged_apart():
    states = {
        0: FoldState({BTC: state((1, 4), (8, 9))}),
        1: FoldState({ETH: state((1, 4), (8, 9))}),
    }
    ledger = fold_all([filled(BTC, 6, 20), filled(ETH, 5, 5)])
    compared = compare_gaps(ledger, states, {0})
    assert [(one.partition, one.count, one.offsets) for one in compared.problems] == [(0, 2, (6,))]
    assert compared.missing == {"OPEN": 0, "FILLED": 3, "UNFILLABLE": 0, "VOID": 0, "UNTOLD": 3}


def test_without_holes_there_is_nothing_to_say():
    compared = compare_gaps(fold_all([filled(BTC, 1, 9)]), {0: FoldState()}, {0})
    assert (compared.problems, sum(compared.missing.values())) == ([], 0)
