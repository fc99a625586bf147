"""Joins, markouts, summaries, symbols and availability equal their oracles, on any trades."""

import decimal
import itertools
import tempfile
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2.clock import SystemClock
from k2.market import schema
from k2.market.instrument import Instrument
from k2.market.offsets import TimeRange
from k2.query import execute, sql
from k2.query.plan import plan_union
from k2.query.provenance import Vouched, holes_table, vouched_table
from k2.query.request import TRADES, TradesRequest, validated
from k2.query.shapes.asof import RIGHT, Asof, Direction
from k2.query.shapes.availability import Availability
from k2.query.shapes.bar_grid import BarGrid
from k2.query.shapes.markouts import Markouts
from k2.query.shapes.shape import HOLES, VOUCHED, Extent
from k2.query.shapes.summary import Summary
from k2.query.shapes.symbols import Symbols
from k2.query.view import OpenQuery
from tests.property.test_execute import on_disk
from tests.property.test_union import happen, ranges, steps
from tests.support import join_oracles
from tests.support.join_oracles import Print
from tests.support.tape_world import HOMES, World
from tests.support.trades import is_buy, price_of, quantity_of

TRADE = schema.arrow_schema(schema.TRADE)
DAY_US = 86_400_000_000
NOON_US = int(datetime(2026, 10, 25, 12, tzinfo=UTC).timestamp()) * 1_000_000
EXCHANGES, SYMBOLS = ("BINANCE", "BINANCE_UM"), ("BTC", "ETH", "SOL")
quiet = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

decimals = st.one_of(st.integers(1, 40), st.integers(1, 10**18 - 1))


few_ids = st.integers(0, 30)
ALWAYS = TimeRange()


def prints_of(times, ids=few_ids):
    """Trades with distinct identities."""
    prices = decimals.map(lambda units: Decimal(units).scaleb(-8))
    return st.lists(
        st.builds(
            Print,
            times,
            st.sampled_from(EXCHANGES),
            st.sampled_from(SYMBOLS),
            ids,
            st.sampled_from(["BUY", "SELL"]),
            prices,
            st.integers(1, 10**11).map(lambda units: Decimal(units).scaleb(-8)),
        ),
        max_size=40,
        unique_by=lambda one: one[1:4],
    )


close_times = st.integers(NOON_US, NOON_US + 40)
some_ranges = ranges.map(
    lambda given: TimeRange(
        *(us if us is None else NOON_US + us for us in (given.start_us, given.end_us))
    )
)


def inside(times):
    return lambda one: times.overlaps(one.event_time, one.event_time)


@pytest.fixture(scope="module")
def database():
    made = duckdb.connect(":memory:")
    for setting in ("threads = 1", "TimeZone = 'UTC'", "asof_loop_join_threshold = 0"):
        made.execute(f"SET {setting}")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def exact():
    with decimal.localcontext(prec=80):
        yield


def table_of(prints):
    rest = dict.fromkeys(("base", "quote", "asset_class", "source"), "X")
    rest |= {"vendor_data": [], "tape_epoch": 0, "tape_partition": 0, "tape_offset": 0}
    rows = [one._asdict() | {"receive_time": one.event_time} | rest for one in prints]
    return pa.Table.from_pylist(rows, schema=TRADE)


def rows_of(database, prints, shape, *, symbols=(), times=ALWAYS, vouched=None):
    """The rows of the answer over `prints`, which are cut to what the shape reads."""
    request = validated(TradesRequest(symbols=symbols, range=times, shape=shape)).resolved(0)
    read = [one for one in prints if inside(request.read_range)(one)]
    moments = [one.event_time for one in read] or [0]
    holes = holes_table(vouched or {})
    of_one = len({one.exchange for one in read}) < 2
    extent = Extent(symbols, request.range, min(moments), max(moments), holes.num_rows > 0, of_one)
    tables = {sql.TAIL_TABLE: table_of(read), VOUCHED: vouched_table(vouched or {}), HOLES: holes}
    for name, table in tables.items():
        database.register(name, table)
    statement = sql.shaped_rows(request, None, {}, request.shape.statement(extent))
    found = database.sql(statement.text, params=list(statement.parameters)).to_arrow_table()
    return plain(found.cast(request.output_schema))


def plain(table):
    """Rows with times as microseconds."""
    for at, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(at, field.name, table.column(at).cast("int64"))
    return table.to_pylist()


def print_of(row, prefix=""):
    values = [row[prefix + name] for name in Print._fields]
    return None if row[prefix + "trade_id"] is None else Print(*values)


@quiet
@given(
    prints=prints_of(close_times),
    left=st.sampled_from([("ETH",), ("ETH", "SOL"), ("BTC",)]),
    times=some_ranges,
    tolerance_us=st.none() | st.integers(0, 20),
    direction=st.sampled_from(Direction),
)
def test_each_left_trade_is_beside_the_nearest_right_one(
    database, prints, left, times, tolerance_us, direction
):
    shape = Asof(right="BTC", tolerance_us=tolerance_us, direction=direction)
    rows = rows_of(database, prints, shape, symbols=left, times=times)
    assert [(print_of(row), print_of(row, RIGHT)) for row in rows] == join_oracles.asof(
        prints,
        left,
        "BTC",
        inside(times),
        tolerance_us=tolerance_us,
        backward=direction is Direction.BACKWARD,
    )


@quiet
@given(
    prints=prints_of(close_times),
    times=some_ranges,
    horizons=st.lists(st.integers(1, 50), min_size=1, max_size=4),
)
def test_a_markout_is_what_the_price_moved_for_the_aggressor(database, prints, times, horizons):
    rows = rows_of(database, prints, Markouts(tuple(horizons)), times=times)
    found = [(print_of(row), row["horizon_us"], row["price_then"], row["markout"]) for row in rows]
    horizons = set(horizons)
    assert found == join_oracles.markouts(prints, inside(times), horizons, times.end_us)


@quiet
@given(prints=prints_of(close_times), times=some_ranges)
def test_symbols_are_those_that_have_trades(database, prints, times):
    rows = rows_of(database, prints, Symbols(), times=times)
    expected = join_oracles.symbols(list(filter(inside(times), prints)))
    assert [tuple(row.values()) for row in rows] == expected


DAY = date(2026, 10, 25)  # in Berlin one of 25 hours


@quiet
@given(
    prints=prints_of(st.integers(-15, 15).map(lambda hours: NOON_US + hours * 3_600_000_000)),
    zone=st.sampled_from(["UTC", "Europe/Berlin"]),
    holes=st.lists(st.tuples(st.sampled_from(SYMBOLS), st.integers(0, 30)), max_size=2),
)
def test_a_summary_is_the_day_in_one_row(database, prints, zone, holes):
    shape = Summary(DAY.isoformat(), zone)
    times = shape.aligned(TimeRange())
    missing = {one: [[at, at]] for one, at in holes}
    vouched = {
        Instrument("BINANCE", symbol): vouched_for(times.end_us, 3, missing.get(symbol, []))
        for symbol in ("BTC", "ETH")
    }
    rows = rows_of(database, prints, shape, vouched=vouched)
    finals = [row.pop("final") for row in rows]
    of_day = list(filter(inside(times), prints))
    later = [one for one in prints if one.event_time >= times.end_us]
    assert rows == join_oracles.summary(of_day, DAY, times.end_us, later)
    for row, final in zip(rows, finals, strict=True):
        first, last = row["first_trade_id"], row["last_trade_id"]
        touched = any(
            low - 1 <= last and high + 1 >= first for low, high in missing.get(row["symbol"], [])
        )
        known = (row["exchange"], row["symbol"]) in {("BINANCE", "BTC"), ("BINANCE", "ETH")}
        assert final == (known and first > 3 and not touched)


def vouched_for(until_us, from_id, missing, filling=()):
    return Vouched(-(2**63), until_us, from_id, ranges_of(missing), ranges_of(filling))


def ranges_of(pairs):
    return (
        pa.array([number for pair in pairs for number in pair], pa.int64())
        .to_numpy()
        .reshape(-1, 2)
    )


def runs(ids):
    """Ids as ascending, disjoint, inclusive ranges."""
    numbered = enumerate(sorted(ids))
    groups = [list(some) for _, some in itertools.groupby(numbered, lambda pair: pair[1] - pair[0])]
    return [[some[0][1], some[-1][1]] for some in groups]


ids_sets = st.sets(st.integers(0, 40), max_size=8)


@quiet
@given(
    prints=prints_of(st.integers(-90, 90), st.integers(0, 40)),
    zone=st.sampled_from(["UTC", "Europe/Berlin"]),
    ledger=st.none() | st.tuples(ids_sets, ids_sets),
    asked=st.none() | st.integers(-3, 3),
)
def test_availability_is_what_the_ids_of_the_days_show(database, prints, zone, ledger, asked):
    known, (void, filling) = ledger is not None, ledger or (set(), set())
    # Ids grow with time but for some disorder, so that holes lie within and between days.
    prints = [
        one._replace(event_time=NOON_US + one.trade_id // 6 * DAY_US + one.event_time * 600_000_000)
        for one in prints
    ]
    of = {Instrument(*one.of): [] for one in prints}
    for one in prints:
        of[Instrument(*one.of)].append(one.trade_id)
    gone = {name: set(range(min(ids), max(ids))) - set(ids) - void for name, ids in of.items()}
    vouched = {
        name: vouched_for(0, min(ids), runs(gone[name]), runs(filling)) for name, ids in of.items()
    }
    shape = Availability(zone, block_ids=4)
    times = (
        TimeRange()
        if asked is None
        else TimeRange(NOON_US + asked * DAY_US, NOON_US + (asked + 1) * DAY_US)
    )
    rows = rows_of(database, prints, shape, times=times, vouched=vouched if known else None)

    grid = BarGrid("1d", zone)
    read = list(filter(inside(shape.widened(shape.aligned(times))), prints))
    edges = grid.edges(NOON_US - 30 * DAY_US, NOON_US + 60 * DAY_US)
    began = [us for us in edges if inside(shape.aligned(times))(Print(us, "", "", 0))]
    expected = join_oracles.availability(
        read,
        lambda us: sum(edge <= us for edge in edges) - 1,
        {(*name, each) for name, ids in gone.items() for each in ids} if known else None,
        {(*name, each) for name in of for each in filling} if known else (),
        {tuple(name): min(ids) for name, ids in of.items()} if known else None,
    )
    named = [(date_of(edges[day], zone), *rest) for day, *rest in expected if edges[day] in began]
    assert [tuple(row.values()) for row in rows] == named


def date_of(edge_us, zone):
    midday = datetime.fromtimestamp((edge_us + DAY_US // 2) // 10**6, UTC)
    return midday.date()


SHAPES = st.sampled_from(
    [
        Asof(right="BTCUSDT"),
        Asof(right="BTCUSDT", tolerance_us=3, direction=Direction.FORWARD),
        Markouts((2, 10)),
        Symbols(),
    ]
)


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


def expected_of(world, request, end):
    """The answer by definition: the accepted rows below E, and nothing else, joined."""
    wide = replace(
        request, symbols=request.read_symbols, range=request.read_range, shape=TRADES, limit=None
    )
    prints = [
        Print(
            *row[:4],
            "BUY" if is_buy(row.trade_id) else "SELL",
            Decimal(price_of(row.trade_id)).scaleb(-8),
            Decimal(quantity_of(row.trade_id)).scaleb(-8),
        )
        for row in world.expected(wide, end)
    ]
    shape, times = request.shape, request.range
    if isinstance(shape, Asof):
        backward = shape.direction is Direction.BACKWARD
        bounds = {"tolerance_us": shape.tolerance_us, "backward": backward}
        return join_oracles.asof(prints, request.symbols, shape.right, inside(times), **bounds)
    if isinstance(shape, Markouts):
        return join_oracles.markouts(prints, inside(times), shape.horizons_us, times.end_us)
    return join_oracles.symbols(prints)


def shown(shape, row):
    if isinstance(shape, Asof):
        return print_of(row), print_of(row, RIGHT)
    if isinstance(shape, Markouts):
        return print_of(row), row["horizon_us"], row["price_then"], row["markout"]
    return tuple(row.values())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    happened=st.tuples(steps, steps),
    shape=SHAPES,
    symbols=st.lists(st.sampled_from(sorted(HOMES)), min_size=1, max_size=2).map(tuple),
    times=ranges,
)
def test_the_answer_is_made_of_the_accepted_rows_below_the_end(
    executor, folder, happened, shape, symbols, times
):
    world, (before, meanwhile) = World(), happened
    happen(world, before)
    end, pinned = world.end, world.snapshots[-1]
    happen(world, meanwhile)
    request = validated(TradesRequest(symbols=symbols, range=times, shape=shape)).resolved(0)
    read = {Instrument("BINANCE", symbol) for symbol in request.read_symbols}
    partitions = {HOMES[one.symbol] for one in read}
    facts, view = world.tail(read, end)
    for snapshot in (pinned, world.snapshots[-1]):
        plan = plan_union(request, partitions, snapshot.facts(), facts, end)
        if plan.missing:
            assert snapshot is pinned  # the tail lacks rows that a newer one has
            continue
        opened = OpenQuery(request, on_disk(plan, snapshot.files, folder), view.held, None)
        given_ = executor.run(opened)
        table = pa.Table.from_batches(list(given_), schema=given_.schema)
        assert table.schema == shape.schema
        found = [shown(shape, row) for row in plain(table)]
        assert found == expected_of(world, request, end)
