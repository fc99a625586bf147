"""COMPLETE is true, and what is listed as missing is what is missing, id by id."""

from itertools import groupby

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from k2.market.fold import FoldState, Seen
from k2.market.instrument import Instrument
from k2.market.offsets import TimeRange
from k2.query.provenance import Completeness, Expected, completeness, holes_of, united

BTC = Instrument("B", "BTCUSDT")
MOST = 30

ids = st.sets(st.integers(0, MOST), max_size=12)
edges = st.none() | st.integers(0, MOST + 2)
ranges = st.tuples(edges, edges).map(
    lambda pair: TimeRange(*(sorted(pair) if None not in pair else pair))
)


def runs(numbers):
    """Sets of ids as ascending inclusive ranges."""
    grouped = groupby(enumerate(sorted(numbers)), lambda one: one[1] - one[0])
    found = [[one for _, one in run] for _, run in grouped]
    return np.array([(run[0], run[-1]) for run in found], dtype=np.int64).reshape(-1, 2)


def ids_in(pairs):
    return {one for first, last in pairs for one in range(first, last + 1)}


def states_of(numbers, time_us):
    return {0: FoldState({BTC: Seen(runs(numbers), time_us)} if numbers else {})}


@given(st.lists(st.tuples(st.integers(0, MOST), st.integers(0, 5)), max_size=8))
def test_ranges_in_any_order_become_the_fewest(pairs):
    pairs = [(first, first + more) for first, more in pairs]
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    assert united(array[::2], array[1::2]).tolist() == runs(ids_in(pairs)).tolist()


@given(accepted=ids, promised=ids, void=ids, newest=st.integers(0, MOST), times=ranges)
@example(accepted={5}, promised={3, 4, 5, 6}, void={3}, newest=0, times=TimeRange())
@example(accepted=set(), promised={3, 4}, void=set(), newest=0, times=TimeRange())
def test_what_is_promised_and_not_accepted_is_missing(accepted, promised, void, newest, times):
    void -= accepted
    expected = {BTC: Expected(runs(promised), runs(void))}
    holes = holes_of(states_of(accepted, newest), {BTC}, times, expected)
    first, last = min(accepted, default=0), max(accepted, default=-1)
    wanted = (promised | set(range(first, last + 1))) - accepted - void
    if accepted:
        below = times.start_us is None or times.start_us <= newest
        above = times.end_us is None or times.end_us > newest
        wanted = {one for one in wanted if (above if one > last else below)}
    assert [(gap.first_id, gap.last_id) for gap in holes.listed] == [
        tuple(run) for run in runs(wanted).tolist()
    ]
    assert holes.total == len(holes.listed)


@given(accepted=ids, later=ids, promised=ids, void=ids)
@example(accepted={5}, later={8}, promised={6, 7, 9}, void=set())
@example(accepted={5}, later={7}, promised={6, 8}, void={6})
@example(accepted={5}, later={6}, promised={3, 4, 6, 7}, void=set())
def test_of_a_pinned_answer_only_what_is_missing_even_now_counts_at_the_edges(
    accepted, later, promised, void
):
    void -= accepted | later
    expected = {BTC: Expected(runs(promised), runs(void))}
    now = states_of(accepted | later, 0)
    holes = holes_of(states_of(accepted, 0), {BTC}, TimeRange(), expected, now)
    if not accepted:
        assert (holes.total, holes.all_known) == (0, False)
        return
    first, last = min(accepted), max(accepted)
    missing = promised - accepted - later - void
    follows = last + 1
    while follows in void:
        follows += 1
    wanted = {one for one in missing if one < first}
    wanted |= set(range(first, last)) - accepted - void
    while follows in missing:
        wanted.add(follows)
        follows += 1
    assert ids_in((gap.first_id, gap.last_id) for gap in holes.listed) == wanted


@st.composite
def histories(draw):
    """Ids printed in the order of their times: what became of each, and what the feed says."""
    times = sorted(draw(st.lists(st.integers(0, MOST), min_size=1, max_size=12)))
    fates = draw(
        st.lists(st.sampled_from(["row", "row", "dead", "void"]), min_size=12, max_size=12)
    )
    listened = draw(st.booleans())
    acknowledged = len(times) if listened else draw(st.integers(0, len(times)))
    began_after = draw(st.integers(-1, acknowledged - 1))
    promised = acknowledged - 1
    if not listened:  # it died before it could say more
        promised = draw(st.integers(began_after, acknowledged - 1))
    return times, fates, listened, acknowledged, began_after, promised


@given(history=histories(), asked=ranges, pinned=st.booleans())
@example(([5, 6, 7], ["row", "row", "dead"], True, 3, -1, 2), TimeRange(6), False)
@example(([5, 6, 7], ["dead", "row", "row"], True, 3, -1, 2), TimeRange(), False)
@example(([5, 6, 7], ["row", "row", "row"], False, 1, -1, 0), TimeRange(6), False)
@example(([5, 6, 7], ["dead", "row", "row"], False, 2, -1, -1), TimeRange(None, 6), False)
@example(([5, 6, 7], ["row", "row", "row"], False, 1, -1, 0), TimeRange(5, 7), True)
def test_complete_is_true(history, asked, pinned):
    times, fates, listened, acknowledged, began_after, promised = history
    on_tape = range(began_after + 1, acknowledged)
    accepted = {one for one in on_tape if fates[one] == "row"}
    newest = max((times[one] for one in accepted), default=0)
    told = Expected(
        runs(range(began_after + 1, promised + 1)),
        runs(one for one in on_tape if fates[one] == "void"),
        began_after + 1,
        listened,
    )
    states = states_of(accepted, newest)
    holes = holes_of(states, {BTC}, asked, {BTC: told}, states if pinned else None)
    if completeness(holes, ()) is Completeness.COMPLETE:
        ends = [asked.end_us, newest + 1 if pinned else None]
        end = min((one for one in ends if one is not None), default=MOST + 1)
        due = {
            one
            for one in range(began_after + 1, len(times))
            if fates[one] != "void" and (asked.start_us or 0) <= times[one] < end
        }
        if pinned:  # what the venue prints in the very moment of the newest may be above it
            due = {one for one in due if one <= max(accepted) or one in on_tape}
        assert due <= accepted, sorted(due - accepted)
