"""The vectorised fold gives what its record-by-record definition gives."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from k2.market.events import Fault
from k2.market.fold import FoldState, Verdict, fold, from_table, to_table
from k2.market.instrument import Instrument
from tests.support.trades import NOW_US, columns

record = st.tuples(
    st.sampled_from(["BTCUSDT", "ETHUSDT"]),
    st.integers(0, 40),
    st.sampled_from([Fault.NONE] * 9 + [Fault.TRUNCATED]),
    st.sampled_from([0, 0, 0, 0, 1800, 3600, 3601, 9000]),  # seconds, of the event time
)
batches = st.lists(st.lists(record, max_size=30), max_size=6)


def batch_of(records, first_offset=0):
    return columns(
        [trade_id for _, trade_id, _, _ in records],
        symbols=[symbol for symbol, _, _, _ in records],
        faults=[fault for _, _, fault, _ in records],
        times=[NOW_US + second * 1_000_000 for _, _, _, second in records],
        first_offset=first_offset,
    )


def intervals_of(seen, symbol):
    return sum(1 for of, one in seen if of == symbol and (symbol, one - 1) not in seen)


def by_definition(records, intervals_max=100):
    seen, judged, late, newest, reused = set(), [], {}, {}, {}
    for offset, (symbol, trade_id, fault, second) in enumerate(records):
        if fault != Fault.NONE:
            judged.append(fault)
        elif (symbol, trade_id) in seen and second > newest[symbol] + 3600:
            reused.setdefault(symbol, NOW_US + second * 1_000_000)
            judged.append(Fault.REUSED_ID)
        elif (symbol, trade_id) in seen:
            judged.append(Verdict.DUPLICATE)
        elif intervals_of(seen | {(symbol, trade_id)}, symbol) > intervals_max:
            judged.append(Fault.TOO_MANY_HOLES)
        else:
            if any(of == symbol and one > trade_id for of, one in seen):
                late[Instrument("BINANCE", symbol)] = offset
            seen.add((symbol, trade_id))
            newest[symbol] = max(newest.get(symbol, second), second)
            judged.append(Verdict.ACCEPTED)
    return seen, judged, late, newest, reused


def fold_all(groups, intervals_max=None):
    state, judged, late = FoldState(), [], {}
    for group in groups:
        batch = batch_of(group, first_offset=len(judged))
        state, verdicts, late_now, faults = fold(state, batch, intervals_max)
        assert ((verdicts == Verdict.DEAD) == (faults != Fault.NONE)).all()
        judged.extend(
            Fault(fault) if fault else Verdict(verdict)
            for verdict, fault in zip(verdicts.tolist(), faults.tolist(), strict=True)
        )
        late |= late_now
    return state, judged, late


@given(batches, st.sampled_from([1, 2, 3, 5, 8, 100]))
def test_it_judges_as_the_definition_does(groups, intervals_max):
    whole = [record for group in groups for record in group]
    seen, expected, expected_late, newest, reused = by_definition(whole, intervals_max)
    state, judged, late = fold_all(groups, intervals_max)
    assert judged == expected
    assert late == expected_late
    ids = {
        (instrument.symbol, trade_id)
        for instrument, of in state.seen.items()
        for first, last in of.intervals.tolist()
        for trade_id in range(first, last + 1)
    }
    assert ids == seen
    kept = {one.symbol: (of.time_max_us, of.reused_us) for one, of in state.seen.items()}
    assert kept == {
        symbol: (NOW_US + second * 1_000_000, reused.get(symbol))
        for symbol, second in newest.items()
    }
    assert state.accepted == len(seen)
    assert state.accepted + state.duplicate + state.dead == len(expected)


@given(batches)
def test_intervals_are_ascending_with_holes_between(groups):
    state, *_ = fold_all(groups)
    for of in state.seen.values():
        ranges = of.intervals.tolist()
        assert all(first <= last for first, last in ranges)
        assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))


@given(batches, st.sampled_from([1, 2, 3, 5, 8, 100]))
def test_how_a_stretch_of_tape_is_cut_into_batches_does_not_matter(groups, intervals_max):
    whole = [record for group in groups for record in group]
    assert fold_all([whole], intervals_max) == fold_all(groups, intervals_max)


@given(batches)
def test_the_published_state_goes_on_as_the_original(groups):
    state, *_ = fold_all(groups)
    counters = {3: (state.accepted, state.duplicate, state.dead)}
    again = from_table(to_table({3: state}), counters)[3]
    assert again == state
    following = columns([0, 7, 41], symbols=["BTCUSDT", "ETHUSDT", "BTCUSDT"])
    assert fold(again, following).verdicts.tolist() == fold(state, following).verdicts.tolist()


def test_the_key_of_an_instrument_is_its_exchange_and_symbol():
    assert Instrument("BINANCE_UM", "ETHUSDT").key == "BINANCE_UM:ETHUSDT"
