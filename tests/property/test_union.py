"""The union of lake and tail is the accepted rows below E, whatever happens meanwhile.

Records arrive late, twice and out of order; the writer commits and compacts, the tail evicts and
restarts, between the plan of a query and its execution, in any order that Hypothesis finds.
"""

from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from k2.market.instrument import Instrument
from k2.market.offsets import TimeRange
from k2.query.plan import MissingReason, MissingSide, RowsOverTime, plan_lake, plan_union
from k2.query.request import Consistency, Order, TradesRequest, validated
from tests.support.tape_world import EXCHANGE, HOMES, World, in_order, read

times = st.integers(0, 60)


def records(symbols):
    return st.lists(
        st.tuples(st.sampled_from(symbols), st.integers(0, 80), times), min_size=1, max_size=80
    )


some_times = st.lists(times, min_size=1, max_size=5)
half_evict = st.tuples(st.just("half_evict"), some_times, some_times, some_times)
anything = st.lists(
    st.one_of(
        st.tuples(st.just("print"), st.just(0), records(["BTCUSDT", "ETHUSDT"])),
        st.tuples(st.just("print"), st.just(1), records(["SOLUSDT"])),
        st.tuples(st.just("commit")),
        st.tuples(st.just("compact")),
        st.tuples(st.just("evict"), st.integers(0, 5), st.sampled_from([0, 10_000, 10**9])),
        half_evict,
        st.tuples(st.just("restart_tail")),
        st.tuples(st.just("expire"), st.integers(1, 3)),
    ),
    max_size=10,
)
steps = st.tuples(anything, st.lists(half_evict, max_size=1)).map(lambda both: [*both[0], *both[1]])
ranges = st.tuples(st.none() | times, st.none() | times).map(
    lambda pair: TimeRange(*(sorted(pair) if None not in pair else pair))
)
pauses = st.lists(
    st.one_of(
        anything.filter(len).map(lambda some: some[0]),
        st.tuples(st.sampled_from(["pause", "resume"]), st.integers(0, 1)),
    ),
    max_size=14,
)
requests = st.builds(
    TradesRequest,
    symbols=st.lists(st.sampled_from(sorted(HOMES)), max_size=2).map(tuple),
    range=ranges,
    limit=st.none() | st.integers(1, 100),
    order=st.sampled_from(Order),
).map(validated)


# ETH's chunk straddles the low, BTC's is gone; and a range that begins on the floor.
STRADDLING = [("half_evict", [50], [10], [20])]
OF_ETH = TradesRequest(symbols=("ETHUSDT",), range=TimeRange(40))
aims = st.none() | st.integers(-1, 1)


def aimed(request, facts, aim):
    """The request with its start on the floor of what the tail lacks, or a moment beside it."""
    floor = max(facts.time_max_below.values(), default=None)
    if aim is None or floor is None:
        return request
    start, end = floor + aim, request.range.end_us
    return replace(request, range=TimeRange(start, end if end is None else max(start, end)))


def happen(world, what):
    for name, *arguments in what:
        getattr(world, name)(*arguments)


def asked_by(request):
    symbols = request.symbols or tuple(HOMES)
    return {Instrument(EXCHANGE, symbol) for symbol in symbols}, {HOMES[one] for one in symbols}


def parts_of(plan, rows, request):
    over_time = RowsOverTime(plan)
    while (part := over_time.take(rows, descending=request.order is Order.DESC)) is not None:
        yield part


@settings(max_examples=400, deadline=None)
@given(before=steps, meanwhile=steps, request=requests, aim=aims, rows=st.integers(1, 200))
@example(before=STRADDLING, meanwhile=[], request=OF_ETH, aim=None, rows=9)
@example(before=STRADDLING, meanwhile=[], request=OF_ETH, aim=0, rows=9)
def test_the_union_is_the_accepted_rows_below_the_end(before, meanwhile, request, aim, rows):
    world = World()
    happen(world, before)
    end, pinned = world.end, world.snapshots[-1]
    happen(world, meanwhile)

    instruments, partitions = asked_by(request)
    facts, view = world.tail(instruments, end)
    request = aimed(request, facts, aim)
    snapshot = pinned
    plan = plan_union(request, partitions, snapshot.facts(), facts, end)
    if plan.missing:
        snapshot = world.snapshots[-1]
        plan = plan_union(request, partitions, snapshot.facts(), facts, end)
    assert plan.missing == ()
    expected = world.expected(request, end)
    assert read(plan, request, snapshot.files, view) == expected

    newest = world.snapshots[-1]
    again = plan_union(request, partitions, newest.facts(), facts, end)
    assert again.missing == ()
    assert read(again, request, newest.files, view) == expected

    in_parts = [
        row
        for part in parts_of(plan, rows, request)
        for row in read(part, request, snapshot.files, view)
    ]
    assert in_parts[: request.limit] == expected
    assert not plan.skips_lake or not len(plan.files)


@settings(max_examples=300, deadline=None)
@given(before=pauses, meanwhile=pauses, request=requests, aim=aims)
def test_a_paused_partition_is_answered_exactly_or_deferred_by_name(
    before, meanwhile, request, aim
):
    world = World()
    happen(world, before)
    end = world.end
    happen(world, meanwhile)
    instruments, partitions = asked_by(request)
    facts, view = world.tail(instruments, end)
    request = aimed(request, facts, aim)
    newest = world.snapshots[-1]
    plan = plan_union(request, partitions, newest.facts(), facts, end)
    lacking = tuple(
        p for p in sorted(partitions) if max(facts.position[p], newest.positions[p]) < end[p]
    )
    assert set(lacking) <= world.paused.keys()
    deferred = (MissingSide(MissingReason.DEFERRED, lacking),) if lacking else ()
    assert plan.missing == deferred
    if not deferred:
        assert read(plan, request, newest.files, view) == world.expected(request, end)


@settings(max_examples=100, deadline=None)
@given(before=steps, after=steps, request=requests)
def test_a_snapshot_answers_the_same_for_ever(before, after, request):
    world = World()
    happen(world, before)
    snapshot = world.snapshots[-1]
    expected = world.expected(request, snapshot.positions)
    happen(world, after)
    _, view = world.tail(set(), None)
    for kept in (snapshot, world.snapshots[-1]):  # S itself, or any newer one cut at O(S)
        plan = plan_lake(request, kept.facts(), snapshot.positions)
        assert read(plan, request, kept.files, view) == expected
    assert in_order(expected, request) == expected


@settings(max_examples=400, deadline=None)
@given(before=steps, lives=st.lists(steps, max_size=3), request=requests)
def test_a_token_answers_the_same_for_ever(before, lives, request):
    world = World()
    happen(world, before)
    end = world.end
    expected = world.expected(request, end)
    instruments, partitions = asked_by(request)
    for what in [[], *lives]:
        happen(world, what)
        facts, view = world.tail(instruments, end)
        snapshot = world.covering(end)
        plan = plan_union(request, partitions, snapshot.facts(), facts, end)
        if plan.missing:
            snapshot = world.snapshots[-1]
            plan = plan_union(request, partitions, snapshot.facts(), facts, end)
        assert plan.missing == ()
        assert read(plan, request, snapshot.files, view) == expected


@settings(max_examples=200, deadline=None)
@given(before=steps, meanwhile=steps, request=requests, aim=aims)
def test_a_range_skips_the_lake_only_when_the_lake_has_nothing_for_it(
    before, meanwhile, request, aim
):
    world = World()
    happen(world, before)
    end = world.end
    happen(world, meanwhile)
    instruments, partitions = asked_by(request)
    facts, view = world.tail(instruments, end)
    request = aimed(request, facts, aim)
    plan = plan_union(request, partitions, None, facts, end)
    if not plan.missing:
        assert plan.skips_lake
        assert read(plan, request, {}, view) == world.expected(request, end)


def test_consistency_is_about_which_rows_not_which_order():
    assert {one.value for one in Consistency} == {"UNION", "COMMITTED", "AS_OF"}
