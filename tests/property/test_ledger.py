"""The ledger equals its definition: what each id was last told, id by id."""

import itertools
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapEvent, GapState, Ledger

BTC = Instrument("BINANCE", "BTCUSDT")
IDS = st.integers(min_value=0, max_value=40)


@st.composite
def events(draw):
    first, last = sorted((draw(IDS), draw(IDS)))
    state, at = draw(st.sampled_from(GapState)), draw(st.integers(1, 9))
    cause = draw(st.sampled_from([Cause.SEQUENCE, Cause.OUTAGE]))
    reason = draw(st.sampled_from(["never", "gone"])) if state is GapState.UNFILLABLE else None
    filled = at if state is GapState.FILLED else None
    return GapEvent(BTC, first, last, at, cause, state, at, "feed", filled, reason)


def definition(told):
    known = {}
    for gap in told:
        for each in range(gap.first_id, gap.last_id + 1):
            before = known.get(each)
            kept = (GapState.OPEN, GapState.VOID)
            reopened = before is None or before.state not in kept
            if gap.state is not GapState.OPEN or reopened:
                known[each] = gap
    return known


@given(st.lists(events(), max_size=25))
def test_every_id_has_the_state_it_was_last_told(told):
    ledger = Ledger()
    for gap in told:
        ledger.apply(gap)
    known = definition(told)
    gaps = list(ledger.gaps([BTC]))
    painted = {each: gap for gap in gaps for each in range(gap.first_id, gap.last_id + 1)}
    assert painted.keys() == known.keys()
    for each, gap in painted.items():
        expected = known[each]
        assert (gap.state, gap.cause, gap.reason) == (
            expected.state, expected.cause, expected.reason,
        )  # fmt: skip
        if gap.state is GapState.OPEN:
            assert gap.detected_us == expected.detected_us
        if gap.state is GapState.FILLED:
            assert gap.filled_at_us >= expected.filled_at_us
    for one, other in itertools.pairwise(gaps):
        assert one.last_id < other.first_id, "disjoint and ascending"


@given(st.lists(events(), max_size=25), IDS, IDS)
def test_a_range_is_the_same_intervals_cut_to_it(told, one, other):
    first, last = sorted((one, other))
    ledger = Ledger()
    for gap in told:
        ledger.apply(gap)
    expected = [
        replace(gap, first_id=max(gap.first_id, first), last_id=min(gap.last_id, last))
        for gap in ledger.gaps()
        if gap.first_id <= last and gap.last_id >= first
    ]
    assert list(ledger.within(BTC, first, last)) == expected


def voided(ledger):
    void = [gap for gap in ledger.gaps() if gap.state is GapState.VOID]
    return {each for gap in void for each in range(gap.first_id, gap.last_id + 1)}


@given(st.lists(events(), max_size=40), st.integers(2, 6))
def test_whatever_the_bound_nothing_open_is_forgotten(told, bound):
    ledger = Ledger(bound)
    opened = set()
    for gap in told:
        void = voided(ledger)
        ledger.apply(gap)
        ids = set(range(gap.first_id, gap.last_id + 1))
        opened = opened | (ids - void) if gap.state is GapState.OPEN else opened - ids
        assert len(list(ledger.gaps())) <= bound
        held = {
            each for open_ in ledger.open(BTC) for each in range(open_.first_id, open_.last_id + 1)
        }
        assert opened <= held
