"""Each shape is what its oracle makes of the accepted rows below E, before and after a commit."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from k2.clock import SystemClock
from k2.market import schema
from k2.market.instrument import Instrument
from k2.market.offsets import TimeRange
from k2.query import execute
from k2.query.plan import plan_union
from k2.query.provenance import assurance_of
from k2.query.request import TRADES, Order, TradesRequest, validated
from k2.query.shapes.bars import Bars, Fill
from k2.query.shapes.latest import Latest
from k2.query.shapes.twap import Twap
from k2.query.shapes.vwap import Vwap
from k2.query.view import OpenQuery
from tests.property.test_execute import on_disk
from tests.property.test_union import asked_by, happen, pauses, ranges, steps
from tests.support import shape_oracle
from tests.support.tape_world import EXCHANGE, HOMES, World

# Of the world's times, 0 to 60: microseconds, or moments around a change of clocks in Europe.
FINE = (0, 50_000)
COARSE = (1_774_656_000_000_000, 3_600_000_000)  # hours from 2026-03-28T00:00Z on
symbols = st.lists(st.sampled_from(sorted(HOMES)), max_size=2).map(tuple)
zones = st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Havana"])
fills = st.sampled_from(Fill)
scaled_bars = st.one_of(
    st.tuples(
        st.just(FINE),
        st.builds(Bars, st.sampled_from(["100ms", "500ms", "1s"]), fills, zones),
    ),
    st.tuples(
        st.just(COARSE),
        st.builds(Bars, st.sampled_from(["1h", "8h", "1d", "24h", "1w", "1mo"]), fills, zones),
    ),
)


class ScaledWorld(World):
    """A world whose times are other ones."""

    def __init__(self, scale):
        self.scale = scale
        super().__init__()

    def time(self, moment):
        begin, unit = self.scale
        return None if moment is None else begin + moment * unit

    def print(self, partition, records):
        super().print(partition, [(name, number, self.time(at)) for name, number, at in records])


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def executor(folder):
    made = execute.Executor(
        clock=SystemClock(), warehouse=f"file://{folder}", temp_dir=folder / "t"
    )
    yield made
    made.close()


class Moment:
    """A request planned at a moment of a world; read later, as the world has become."""

    def __init__(self, world, executor, folder, **asked):
        times = asked.pop("range")
        scaled = TimeRange(world.time(times.start_us), world.time(times.end_us))
        self.request = validated(TradesRequest(range=scaled, **asked)).resolved(0)
        self.world, self.executor, self.folder = world, executor, folder
        self.end, self.pinned = world.end, world.snapshots[-1]
        self.states = dict(world.judged)

    def rows(self):
        """The rows that the answer is made of."""
        whole = replace(self.request, limit=None, order=Order.ASC, shape=TRADES, columns=())
        return self.world.expected(whole, self.end)

    def beside(self):
        """The rows of before the range, and those of after it."""
        start, end = self.request.range.start_us, self.request.range.end_us
        wide = replace(self.request, limit=None, order=Order.ASC, shape=TRADES, columns=())
        every = self.world.expected(replace(wide, range=TimeRange()), self.end)
        before = [row for row in every if start is not None and row.event_time < start]
        return before, [row for row in every if end is not None and row.event_time >= end]

    def seen(self):
        """All rows below E, by instrument."""
        every = self.world.expected(TradesRequest(), self.end)
        return shape_oracle.by_instrument(every)

    def answers(self):
        """Rows, read from the snapshot of the plan and from the newest one."""
        instruments, partitions = asked_by(self.request)
        facts, view = self.world.tail(instruments, self.end)
        for snapshot in (self.pinned, self.world.snapshots[-1]):
            plan = plan_union(self.request, partitions, snapshot.facts(), facts, self.end)
            if not plan.missing:
                on = on_disk(plan, snapshot.files, self.folder)
                yield self._answer(OpenQuery(self.request, on, view.held, None))

    def _answer(self, opened):
        known = assurance_of(None, self.states, None, {})
        opened = replace(opened, vouched=known.vouched, newest_us=self._newest(known))
        given_ = self.executor.run(opened)
        table = pa.Table.from_batches(list(given_), schema=given_.schema)
        assert table.schema == self.request.output_schema
        return tuples(table)

    def _newest(self, known):
        asked, _ = asked_by(self.request)
        return {name: us for name, us in known.newest_us.items() if name in asked}


def tuples(table):
    columns = [
        (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        for column in table.columns
    ]
    return list(zip(*columns, strict=True))


def world_of(scale, happened):
    world = ScaledWorld(scale)
    happen(world, happened)
    return world


def in_order(rows, asked):
    rows = list(rows)
    return (rows[::-1] if asked["order"] is Order.DESC else rows)[: asked["limit"]]


asked_of = st.fixed_dictionaries(
    {
        "symbols": symbols,
        "range": ranges,
        "limit": st.none() | st.integers(1, 20),
        "order": st.sampled_from(Order),
    }
)
examples = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


BACKWARDS = [("half_evict", [2], [0], [0])]  # a later id of an earlier time
ALL = {"symbols": (), "range": TimeRange(), "limit": None, "order": Order.ASC}
# An instrument that rests while another trades, before and after the end of a range.
RUNNING = [("print", 0, [("BTCUSDT", 1, 10), ("ETHUSDT", 1, 12), ("ETHUSDT", 2, 20)])]
RUN = ALL | {"range": TimeRange(0, 15)}
# The newest trade before the range, within an hour of it and not.
SEEDED = [("print", 0, [("BTCUSDT", 1, 3), ("BTCUSDT", 2, 9), ("ETHUSDT", 1, 2)])]
SEEDED += [("print", 0, [("BTCUSDT", 3, 12), ("ETHUSDT", 2, 12)])]


@examples
@example(scaled=(FINE, Bars("100ms")), before=BACKWARDS, meanwhile=[], asked=ALL)
@example(
    scaled=(COARSE, Bars("1h", Fill.PREV)),
    before=SEEDED,
    meanwhile=[("commit",)],
    asked=ALL | {"range": TimeRange(10, 14)},
)
@example(
    scaled=(FINE, Bars("100ms", Fill.PREV, "Asia/Kathmandu")),
    before=SEEDED,
    meanwhile=[],
    asked=ALL | {"range": TimeRange(10, 14)},
)
@given(scaled=scaled_bars, before=steps, meanwhile=steps, asked=asked_of)
def test_bars(executor, folder, scaled, before, meanwhile, asked):
    scale, shape = scaled
    world = world_of(scale, before)
    moment = Moment(world, executor, folder, shape=shape, **asked)
    happen(world, meanwhile)
    shape = moment.request.shape
    times, (earlier, _) = moment.request.range, moment.beside()
    expected = shape_oracle.bars(moment.rows(), shape, times, moment.seen(), earlier)
    for rows in moment.answers():
        assert rows == in_order(expected, asked)


@examples
@example(scale=FINE, before=RUNNING, meanwhile=[], asked=RUN)
@example(scale=FINE, before=RUNNING, meanwhile=[], asked=RUN | {"range": TimeRange(0, 40)})
@example(scale=COARSE, before=RUNNING, meanwhile=[], asked=RUN | {"range": TimeRange(0, 19)})
@given(
    scale=st.sampled_from([FINE, COARSE]),
    before=steps | pauses,
    meanwhile=steps | pauses,
    asked=asked_of,
)
def test_means(executor, folder, scale, before, meanwhile, asked):
    world = world_of(scale, before)
    volume = Moment(world, executor, folder, shape=Vwap(), **asked)
    time = Moment(world, executor, folder, shape=Twap(), **asked)
    happen(world, meanwhile)
    expected = list(shape_oracle.vwap(volume.rows()))
    assert all(rows == in_order(expected, asked) for rows in volume.answers())
    _, later = time.beside()
    expected = list(shape_oracle.twap(time.rows(), time.request.range, later))
    assert all(rows == in_order(expected, asked) for rows in time.answers())


@examples
@given(happened=st.tuples(steps, steps), asked=asked_of, known=st.booleans())
def test_latest(executor, folder, monkeypatch, happened, asked, known):
    monkeypatch.setattr(execute, "_ROWS_FIRST", 5)  # so that there are several parts
    monkeypatch.setattr(execute, "_ROWS_MAX", 8)
    before, meanwhile = happened
    world = world_of((0, 1), before)
    names = ("exchange", "symbol", "event_time", "trade_id", "tape_offset")
    moment = Moment(world, executor, folder, shape=Latest(), columns=names, **asked)
    if not known:
        moment._newest = lambda _: None
    happen(world, meanwhile)
    expected = [
        (row.exchange, row.symbol, row.event_time, row.trade_id, row.offset)
        for row in shape_oracle.latest(moment.rows())
    ]
    for rows in moment.answers():
        assert rows == in_order(expected, asked)


def test_the_instruments_of_the_world_are_those_of_the_oracle():
    assert {Instrument(EXCHANGE, name) for name in HOMES} == asked_by(TradesRequest())[0]
    assert schema.TRADE.columns == TRADES.columns
