"""Shapes on a tape in memory and real files: alone, after a commit, under a token, too large."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Context, Decimal
from fractions import Fraction

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from k2 import limits
from k2.errors import Data, Invalid, Overloaded, Reason, Unavailable
from k2.market.offsets import TimeRange
from k2.query import execute
from k2.query.request import Consistency, Order, TradesRequest, validated
from k2.query.shapes import exact
from k2.query.shapes.bars import Bars, Fill
from k2.query.shapes.latest import Latest
from k2.query.shapes.shape import Extent, too_large
from k2.query.shapes.summary import Summary
from k2.query.shapes.trades import TradeRows
from k2.query.shapes.twap import Twap
from k2.query.shapes.vwap import Vwap
from tests.support import shape_oracle
from tests.support.eventually import eventually
from tests.support.query_stack import QueryStack
from tests.support.trades import NOW_US

SECOND_US = 1_000_000
BARS = Bars("1s", Fill.NONE, "UTC")
EVERY = (BARS, Vwap(), Twap(), Latest())
named = pytest.mark.parametrize("shape", EVERY, ids=lambda shape: shape.name)
NOW_S = NOW_US // SECOND_US * SECOND_US


@pytest.fixture
def stack(tmp_path):
    with QueryStack(tmp_path) as made:
        yield made


def send(stack, symbol, ids, **more):
    """A trade every 0.4 s from a full second on."""
    stack.send(symbol, ids, step_us=400_000, start_us=NOW_S, **more)


def answer(stack, shape, **fields):
    table, stream = stack.ask(shape=shape, **fields)
    assert table.schema == stream.opened.request.output_schema
    return table.to_pylist(), stream


# --- the same rows, whatever happens --------------------------------------------------------------


@named
def test_a_shape_is_the_same_before_and_after_a_commit_and_under_its_token(stack, shape):
    send(stack, "BTCUSDT", range(1, 10))
    send(stack, "SOLUSDT", range(1, 4))
    before, stream = answer(stack, shape)
    token = stream.opened.provenance.token
    assert (stream.rows_lake, stream.rows_tail) == (0, 12)
    stack.commit()
    stack.view.maintain()
    after, stream = answer(stack, shape)
    assert after == before
    assert stream.rows_tail == 0
    assert 0 < stream.rows_lake <= 12
    committed, _ = answer(stack, shape, consistency=Consistency.COMMITTED)
    assert committed == before
    send(stack, "BTCUSDT", range(10, 20))
    again, _ = answer(stack, shape, consistency=Consistency.AS_OF, as_of_token=token)
    pinned, _ = answer(stack, shape, consistency=Consistency.AS_OF, as_of_snapshot=1)
    assert [_data(row) for row in again] == [_data(row) for row in before]
    assert [_data(row) for row in pinned] == [_data(row) for row in before]
    assert answer(stack, shape)[0] != before


def _data(row):
    """A row without what is known of it."""
    return {name: value for name, value in row.items() if name != "final"}


@named
def test_order_limit_and_columns_are_those_of_its_rows(stack, shape):
    send(stack, "BTCUSDT", range(1, 10))
    send(stack, "SOLUSDT", range(1, 4))
    whole, _ = answer(stack, shape)
    name = shape.order[0]
    back, _ = answer(stack, shape, order=Order.DESC, limit=2, columns=("symbol", name))
    assert back == [{"symbol": row["symbol"], name: row[name]} for row in whole[:-3:-1]]
    with pytest.raises(Invalid) as caught:
        stack.plan(shape=shape, columns=("nothing",))
    assert caught.value.reason is Reason.UNKNOWN_COLUMN
    assert shape.schema.names[-1] in caught.value.message


@named
def test_no_trade_makes_no_row(stack, shape):
    send(stack, "BTCUSDT", range(1, 10))
    late = TimeRange(NOW_US + 3600 * SECOND_US, None)
    assert answer(stack, shape, range=late)[0] == []
    stack.commit()
    stack.view.maintain()
    assert answer(stack, shape, range=late)[0] == []


@named
def test_a_stream_is_resumed_by_number_and_digest(stack, shape):
    send(stack, "BTCUSDT", range(1, 10))
    send(stack, "ETHUSDT", range(1, 10))
    planned = stack.plan(shape=shape)
    whole, stream = stack.read(planned)
    opened = stack.view.open(planned.request, planned.snapshot_id, planned.end)
    resumed = stack.executor.run(opened)
    resumed.resume_after = 1
    sizes, keys = zip(*((batch.num_rows, resumed.last_key) for batch in resumed), strict=True)
    assert sizes == (1, len(whole) - 1)
    assert keys[1] == stream.last_key
    assert len(set(keys)) == 2


@named
def test_a_file_that_cannot_be_read_is_an_error(stack, shape):
    send(stack, "BTCUSDT", range(1, 10))
    stack.commit()
    stack.view.maintain()
    planned = stack.plan(shape=shape)
    for path in stack.folder.glob("*.parquet"):
        path.unlink()
    with pytest.raises(Unavailable) as caught:
        stack.read(planned)
    assert caught.value.reason is Reason.LAKE_UNAVAILABLE


@named
def test_an_answer_ends_at_its_deadline(stack, shape):
    send(stack, "BTCUSDT", range(1, 10))
    planned = stack.plan(shape=shape)
    opened = stack.view.open(planned.request, planned.snapshot_id, planned.end)
    late = stack.executor.run(opened, deadline_s=0.0)
    with pytest.raises(Overloaded) as caught:
        next(late)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED


# --- bars -----------------------------------------------------------------------------------------


def final(stack, **fields):
    rows, _ = answer(stack, BARS, **fields)
    return [(int(row["bar_start"].timestamp() - NOW_S / 1e6), row["final"]) for row in rows]


def test_a_bar_is_final_when_nothing_can_be_missing_in_it(stack):
    send(stack, "BTCUSDT", range(1, 12))  # 0.4 s to 4.4 s
    stack.promise("BTCUSDT", 0, 11)
    # The first one may lack trades of before the feed listened; the last one goes on.
    assert final(stack) == [(0, False), (1, True), (2, True), (3, True), (4, False)]
    cut = TimeRange(NOW_S + SECOND_US, NOW_S + 2_500_000)
    assert final(stack, range=cut) == [(1, True), (2, False)]


def test_a_bar_beside_missing_ids_is_not_final(stack):
    send(stack, "BTCUSDT", [*range(1, 8), *range(9, 14)])  # 8 is of 3.2 s; 7 of 2.8, 9 of 3.6
    assert final(stack) == [(0, False), (1, True), (2, False), (3, False), (4, True), (5, False)]
    send(stack, "BTCUSDT", [8])
    assert final(stack) == [(0, False), (1, True), (2, True), (3, True), (4, True), (5, False)]


def test_no_bar_is_final_where_nothing_is_vouched_for(stack):
    send(stack, "BTCUSDT", range(1, 12))
    planned = stack.plan(shape=BARS)
    opened = stack.view.open(planned.request, planned.snapshot_id, planned.end)
    assert opened.vouched
    unknown = stack.executor.run(replace(opened, vouched={}))
    assert not any(row["final"] for batch in unknown for row in batch.to_pylist())


def test_bars_begin_with_the_bar_of_the_start_of_the_range(stack):
    send(stack, "BTCUSDT", range(1, 12))
    rows, stream = answer(stack, BARS, range=TimeRange(NOW_S + 1_900_000, None))
    assert rows[0]["count"] == 2  # of 1.2 s and 1.6 s
    assert stream.opened.provenance.range == TimeRange(NOW_S + SECOND_US, None)
    assert stack.plan(shape=BARS, last_us=1).request.range.start_us % SECOND_US == 0


def test_filled_bars_cover_the_range_of_each_instrument_with_trades(stack):
    send(stack, "BTCUSDT", [3])  # at 1.2 s
    send(stack, "SOLUSDT", [1])
    cut = TimeRange(NOW_S, NOW_S + 3 * SECOND_US)
    prev, _ = answer(stack, replace(BARS, fill=Fill.PREV), range=cut, symbols=("BTCUSDT",))
    assert [(row["count"], row["close"]) for row in prev] == [
        (0, None),
        (1, Decimal("0.000001")),
        (0, Decimal("0.000001")),
    ]
    null, _ = answer(stack, replace(BARS, fill=Fill.NULL), range=cut)
    assert [row["open"] is None for row in null] == [True, False, False, True, True, True]
    open_, _ = answer(stack, replace(BARS, fill=Fill.NULL))
    assert len(open_) == 2


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
@pytest.mark.parametrize("every", ["8h", "1d", "1mo"])
def test_bars_of_hours_days_and_months_are_filled(stack, every, zone):
    day_us = 24 * 3600 * SECOND_US
    stack.send("BTCUSDT", [1, 30], step_us=day_us, start_us=NOW_US - 40 * day_us)
    rows, _ = answer(stack, Bars(every, Fill.PREV, zone))
    starts = [int(row["bar_start"].timestamp()) * SECOND_US for row in rows]
    ends = [shape_oracle.bar_of(start, every, zone)[1] for start in starts]
    assert starts[1:] == ends[:-1]
    assert (rows[0]["count"], rows[-1]["count"]) == (1, 1)
    assert len(rows) == {"8h": 88, "1d": 30, "1mo": 2}[every]


def test_too_many_filled_bars_are_refused(stack, monkeypatch):
    monkeypatch.setattr(limits, "BARS_FILLED_MAX", 10)
    long = TimeRange(NOW_S, NOW_S + 11 * SECOND_US)
    with pytest.raises(Invalid, match="11 filled bars"):
        stack.plan(shape=replace(BARS, fill=Fill.PREV), range=long)
    send(stack, "BTCUSDT", [1, 100])
    assert len(answer(stack, BARS, range=long)[0]) == 1
    with pytest.raises(Invalid, match="39 filled bars"):
        stack.ask(shape=replace(BARS, fill=Fill.PREV))


def test_a_bar_of_24_hours_is_one_of_a_day():
    asked = validated(TradesRequest(shape=Bars("24h")))
    assert asked.shape == Bars("1d")
    for wrong in (Bars("7m"), Bars("1m", Fill.NONE, "Nowhere")):
        with pytest.raises(Invalid):
            validated(TradesRequest(shape=wrong))


def test_bars_before_the_first_trade_have_the_price_of_the_last_one_before_the_range(stack):
    for at, price in ((1, 5), (3, 100), (10, 160)):  # at 0.4 s, 1.2 s and 4.0 s
        send(stack, "BTCUSDT", [at], price=price)
    shape = replace(BARS, fill=Fill.PREV)
    seeded, stream = answer(stack, shape, range=TimeRange(NOW_S + 2 * SECOND_US, None))
    last, own = Decimal("0.000001"), Decimal("0.0000016")
    assert [(row["count"], row["open"], row["close"]) for row in seeded] == [
        (0, last, last),
        (0, last, last),
        (1, own, own),
    ]
    assert stream.opened.provenance.range == TimeRange(NOW_S + 2 * SECOND_US, None)
    null, _ = answer(stack, replace(BARS, fill=Fill.NULL), range=TimeRange(NOW_S + 3 * SECOND_US))
    assert [row["close"] is None for row in null] == [True, False]
    # One that rested for more than an hour has no price there.
    later = NOW_S + 4000 * SECOND_US
    stack.send("BTCUSDT", [11], step_us=0, start_us=later)
    rested, _ = answer(stack, shape, range=TimeRange(later - SECOND_US, None))
    assert [row["close"] is None for row in rested] == [True, False]
    assert answer(stack, shape, range=TimeRange(NOW_S + 5 * SECOND_US, later))[0] == []


def test_bars_read_an_hour_before_their_range_only_for_the_last_close():
    hour_us, times = 3600 * SECOND_US, TimeRange(NOW_US, NOW_US + SECOND_US)
    prev = replace(BARS, fill=Fill.PREV)
    assert prev.widened(times) == TimeRange(NOW_US - hour_us, NOW_US + SECOND_US)
    assert prev.widened(TimeRange(None, NOW_US)) == TimeRange(None, NOW_US)
    assert BARS.widened(times) == replace(BARS, fill=Fill.NULL).widened(times) == times
    assert prev.stretch_us == SECOND_US + hour_us


# --- means over time ------------------------------------------------------------------------------

DAY = datetime.fromtimestamp(NOW_S / 1e6, UTC).date().isoformat()
RUNNING = TimeRange(NOW_S, NOW_S + 60 * SECOND_US)


def test_a_mean_over_a_range_that_goes_on_ends_with_the_newest_trade_of_all(stack):
    for at, price in ((1, 100), (2, 160)):
        stack.send("BTCUSDT", [at], step_us=SECOND_US, start_us=NOW_S, price=price)
    stack.send("SOLUSDT", [4], step_us=SECOND_US, start_us=NOW_S, price=7)
    btc, sol = answer(stack, Twap(), range=RUNNING)[0]
    newest = datetime.fromtimestamp(NOW_S / 1e6 + 4, UTC)
    assert (btc["end_time"], sol["end_time"]) == (newest, newest)
    assert btc["twap"] == Decimal("0.0000014")  # 1 s of 100 and 2 s of 160
    assert sol["twap"] == Decimal("0.00000007")  # no time has passed
    assert answer(stack, Twap(), range=TimeRange(NOW_S))[0] == [btc, sol]  # nor has it an end
    (day,) = answer(stack, Summary(DAY), symbols=("SOLUSDT",))[0]
    assert (day["twap"], day["count"]) == (sol["twap"], 1)
    days = answer(stack, Summary(DAY))[0]
    assert [day["twap"] for day in days] == [btc["twap"], sol["twap"]]


def test_a_mean_over_a_range_that_has_ended_is_one_until_its_end(stack):
    stack.send("BTCUSDT", [1], step_us=SECOND_US, start_us=NOW_S)
    running, stream = answer(stack, Twap(), range=RUNNING)
    token = stream.opened.provenance.token
    stack.send("BTCUSDT", [2], step_us=0, start_us=RUNNING.end_us)
    stack.commit()
    stack.view.maintain()
    (ended,), stream = answer(stack, Twap(), range=RUNNING)
    assert ended["end_time"] == datetime.fromtimestamp(RUNNING.end_us / 1e6, UTC)
    assert ended["count"] == 1
    assert stream.opened.provenance.range == RUNNING
    again, _ = answer(
        stack, Twap(), range=RUNNING, consistency=Consistency.AS_OF, as_of_token=token
    )
    assert again == running


@pytest.mark.parametrize("shape", [Twap(), Summary(DAY)], ids=lambda shape: shape.name)
def test_trades_after_a_range_do_not_make_its_mean_incomplete(shape):
    times = shape.aligned(RUNNING)
    read = TimeRange(times.start_us, times.end_us + 3600 * SECOND_US)
    assert shape.widened(times) == read
    assert shape.complete_over(times) == times
    assert shape.stretch_us == 3600 * SECOND_US
    assert Vwap().complete_over(times) == times
    assert replace(BARS, fill=Fill.PREV).complete_over(times) != times


# --- exact decimals -------------------------------------------------------------------------------

LARGEST = 10**38 - 1
EXACT = Context(prec=60)


@pytest.mark.parametrize(("shape", "of_bar"), [(BARS, True), (Vwap(), False)], ids=["bars", "vwap"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
@pytest.mark.parametrize(("price", "quantity"), [(10**18 - 1, LARGEST // 10), (1, LARGEST)])
def test_a_sum_that_does_not_fit_names_its_row(stack, shape, of_bar, zone, price, quantity):
    send(stack, "BTCUSDT", range(1, 10))
    send(stack, "SOLUSDT", [5, 6], price=price, quantity=quantity)  # at 2.0 s and 2.4 s
    if of_bar:
        shape = replace(shape, every="1s" if zone == "UTC" else "8h", zone=zone)
    with pytest.raises(Data) as caught:
        stack.ask(shape=shape)
    assert caught.value.reason is Reason.VALUE_TOO_LARGE
    metadata = caught.value.metadata
    assert (metadata["exchange"], metadata["symbol"]) == ("BINANCE", "SOLUSDT")
    assert "SOLUSDT" in caught.value.message
    if of_bar:
        start = datetime.fromisoformat(metadata["bar_start"])
        begin_us = shape.grid.floor(NOW_S + 2 * SECOND_US)
        assert start == datetime.fromtimestamp(begin_us / 1e6, UTC)
    else:
        assert "bar_start" not in metadata


def test_the_greatest_values_that_fit_are_exact(stack):
    quantity = 10**38 - 1 - 5
    stack.send("SOLUSDT", [1], price=1, quantity=quantity)
    (row,) = answer(stack, Vwap())[0]
    assert row["volume"] == Decimal(quantity).scaleb(-8, EXACT)
    assert row["quote_volume"] == Decimal(quantity).scaleb(-16, EXACT)
    assert row["vwap"] == Decimal("0.00000001")


def test_an_error_without_a_bar_names_the_instrument():
    assert "bar" not in too_large("vwap", "E", "S", None).message.replace("bars", "")


numbers = st.integers(-(10**17), 10**17)


@settings(max_examples=200, deadline=None)
@given(pairs=st.lists(st.tuples(numbers, st.integers(0, 10**17)), min_size=1, max_size=20))
@example(pairs=[(1, 2), (3, 2), (5, 2), (-1, 2), (-3, 2), (7, 4), (5, 4), (1, 0), (0, 3)])
def test_quotients_are_rounded_half_to_even(pairs):
    values = pa.table(
        {
            "n": pa.array([n for n, _ in pairs], pa.decimal128(38, 0)),
            "d": pa.array([d for _, d in pairs], pa.decimal128(38, 0)),
        }
    )
    with duckdb.connect() as database:
        database.register("given", values)
        chosen = "SELECT n::HUGEINT AS n, d::HUGEINT AS d FROM given"
        rounded = exact.rounded_price("n", "d")
        found = database.sql(f"SELECT {rounded} FROM ({chosen})").fetchall()
    for (n, d), (price,) in zip(pairs, found, strict=True):
        assert price == (Decimal(round(Fraction(n, d))).scaleb(-8) if d else None)


# --- the newest -----------------------------------------------------------------------------------


def test_the_newest_trades_are_found_without_reading_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "_ROWS_FIRST", 1000)
    with QueryStack(tmp_path) as stack:
        for at in range(8):
            ids = range(at * 1000, at * 1000 + 1000)
            stack.send("BTCUSDT", ids)
            stack.commit()
        stack.send("SOLUSDT", [1])  # as old as the second trade of the other
        stack.commit()
        stack.view.maintain()
        eventually(lambda: stack.tail.position() == stack.committed)
        rows, stream = answer(stack, Latest(), consistency=Consistency.COMMITTED)
        assert [(row["symbol"], row["trade_id"]) for row in rows] == [
            ("BTCUSDT", 7999),
            ("SOLUSDT", 1),
        ]
        assert stream.rows_lake <= 2000


# --- the seam -------------------------------------------------------------------------------------


def test_a_shape_leaves_times_and_symbols_as_they_are_unless_it_says_otherwise():
    shape = Vwap()
    times = TimeRange(1, 2)
    assert shape.aligned(times) == shape.widened(times) == times
    assert (shape.read_symbols(("A",)), shape.stretch_us) == (("A",), 0)
    assert BARS.stretch_us == SECOND_US


def test_rows_need_no_statement():
    for shape in (TradeRows(), Latest()):
        assert shape.columns == tuple(shape.schema.names)
        with pytest.raises(NotImplementedError, match=shape.name):
            shape.statement(Extent())


def test_a_limit_of_rows_of_a_shape_does_not_bound_what_is_read():
    assert TradesRequest(limit=5).rows_read_max == 5
    assert TradesRequest(limit=5, shape=BARS).rows_read_max is None
