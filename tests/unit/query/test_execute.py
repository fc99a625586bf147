import threading
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2 import limits
from k2.clock import ManualClock
from k2.errors import Data, K2Error, Overloaded, Reason, Unavailable
from k2.market import schema
from k2.market.events import decimal_array, no_vendor, widen
from k2.market.files import FileIndex
from k2.market.offsets import FileStat, OffsetVector
from k2.query.execute import Executor
from k2.query.plan import LakeFacts, plan_lake
from k2.query.request import Order, TradesRequest
from k2.query.view import OpenQuery
from tests.support.eventually import eventually
from tests.support.trades import NOW_US

ZERO = OffsetVector(0, (0,))
TRADE = schema.arrow_schema(schema.TRADE)


def make_executor(folder, clock=None, **bounds):
    return Executor(
        clock=clock or ManualClock(NOW_US),
        warehouse=f"file://{folder}",
        temp_dir=folder / "tmp",
        **bounds,
    )


@pytest.fixture
def executor(tmp_path):
    made = make_executor(tmp_path)
    yield made
    made.close()


def table_of(rows, entries=None):
    """Rows of one symbol in random order of time."""
    noise = np.random.default_rng(1)
    times = NOW_US + noise.permutation(rows)
    constant = ("BINANCE", "BTCUSDT", "BTC", "USDT", "crypto", "simulated")
    arrays = dict(
        zip(schema.LABEL_COLUMNS, (pa.repeat(one, rows) for one in constant), strict=True)
    )
    digits = TRADE.field("price").type, TRADE.field("quantity").type
    arrays |= {
        "trade_id": pa.array(np.arange(rows)),
        "event_time": pa.array(times).view(TRADE.field("event_time").type),
        "receive_time": pa.array(times).view(TRADE.field("receive_time").type),
        "price": decimal_array(widen(np.arange(rows) + 10**17), digits[0]),
        "quantity": decimal_array(widen(np.arange(rows) + 1), digits[1]),
        "side": pa.repeat("BUY", rows),
        "vendor_data": no_vendor(rows) if entries is None else entries,
        "tape_epoch": pa.array(np.zeros(rows, np.int32)),
        "tape_partition": pa.array(np.zeros(rows, np.int32)),
        "tape_offset": pa.array(np.arange(rows)),
    }
    return pa.table([arrays[name] for name in TRADE.names], schema=TRADE)


def opened(folder, table=None, **fields):
    path = folder / "rows.parquet"
    if table is not None:
        pq.write_table(table, path, store_decimal_as_integer=True)
    rows = 150_000 if table is None else len(table)
    stat = FileStat(str(path), 1, rows, "BINANCE", "BTCUSDT", "BTCUSDT", NOW_US, NOW_US + rows)
    request = TradesRequest(**fields)
    plan = plan_lake(request, LakeFacts(ZERO, FileIndex([stat])), ZERO)
    return OpenQuery(request, plan, {}, None)


def test_a_large_answer_comes_in_order_in_small_batches(executor, tmp_path):
    query = opened(tmp_path, table_of(300_000))
    times, ids = [], []
    for batch in executor.run(query):
        assert batch.schema == TRADE
        assert batch.nbytes <= limits.FLIGHT_BATCH_BYTES_MAX
        times.append(batch.column("event_time").cast("int64").to_numpy())
        ids.append(batch.column("trade_id").to_numpy())
    assert (np.diff(np.concatenate(times)) == 1).all()
    assert len(np.unique(np.concatenate(ids))) == 300_000


@pytest.mark.parametrize("part_bytes", [10**9, 10**6])
def test_each_batch_has_the_key_of_its_last_row_and_one_ends_where_asked(
    executor, tmp_path, monkeypatch, part_bytes
):
    monkeypatch.setattr("k2.query.admission.PART_BYTES_MAX", part_bytes)
    whole = pa.Table.from_batches(executor.run(opened(tmp_path, table_of(150_000))))
    answer = executor.run(opened(tmp_path, columns=("price",)))
    answer.resume_after = 77_777
    ends, given = set(), 0
    for batch in answer:
        given += batch.num_rows
        last = whole.slice(given - 1, 1)
        assert answer.last_key == (
            last["event_time"].cast("int64")[0].as_py(), "BINANCE", "BTCUSDT",
            last["trade_id"][0].as_py(),
        )  # fmt: skip
        ends.add(given)
    assert {77_777, 150_000} < ends


def test_every_statement_runs_by_the_settings_of_the_database(executor):
    names = ("parquet_metadata_cache", "TimeZone", "preserve_insertion_order", "threads")
    asked = ", ".join(f"current_setting('{name}')" for name in names)
    cursor = executor._database.cursor()
    assert cursor.sql(f"SELECT {asked}").fetchall() == [(True, "UTC", True, limits.QUERY_THREADS)]


def test_the_newest_rows_in_the_other_direction(executor, tmp_path):
    query = opened(tmp_path, table_of(300_000), limit=3, order=Order.DESC, columns=("event_time",))
    (batch,) = executor.run(query)
    assert batch.column(0).cast("int64").to_pylist() == [
        NOW_US + 299_999, NOW_US + 299_998, NOW_US + 299_997,
    ]  # fmt: skip


def test_wide_rows_are_cut_until_they_fit(executor, tmp_path):
    text = "x" * 100_000
    entries = pa.array([[("k", text)]] * 100, pa.map_(pa.string(), pa.string()))
    batches = list(executor.run(opened(tmp_path, table_of(100, entries))))
    assert sum(batch.num_rows for batch in batches) == 100
    assert all(batch.nbytes <= limits.FLIGHT_BATCH_BYTES_MAX for batch in batches)
    assert batches[0].column("vendor_data").to_pylist()[0] == [("k", text)]


def test_a_sort_that_outgrows_the_memory_goes_to_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("k2.query.execute._ROWS_FIRST", 10**7)
    monkeypatch.setattr("k2.query.admission.PART_BYTES_MAX", 10**6)
    executor = make_executor(tmp_path, memory_bytes=96 * limits.MIB)
    rows = sum(batch.num_rows for batch in executor.run(opened(tmp_path, table_of(600_000))))
    assert rows == 600_000
    executor.close()


def test_too_little_memory_is_an_overload(tmp_path):
    executor = make_executor(tmp_path, memory_bytes=2 * limits.MIB)
    with pytest.raises(Overloaded) as caught:
        list(executor.run(opened(tmp_path, table_of(200_000))))
    assert caught.value.reason is Reason.TOO_MANY_QUERIES
    executor.close()


def test_answers_that_are_not_read_share_one_bound(executor, tmp_path):
    executor.memory._bytes_max = 24 * limits.MIB
    query = opened(tmp_path, table_of(300_000))
    paused = [executor.run(query) for _ in range(6)]
    for each in paused:
        next(each)
    assert 0 < executor.memory.held <= 24 * limits.MIB
    expected = list(range(300_000))
    for each in paused[:-1]:
        each.close()
    rest = [row for batch in paused[-1] for row in batch.column("trade_id").to_pylist()]
    assert set(rest) < set(expected)
    assert executor.memory.held == 0


def test_beyond_the_bound_the_rows_are_the_same(executor, tmp_path):
    query = opened(tmp_path, table_of(300_000))
    held = pa.Table.from_batches(list(executor.run(query)))
    executor.memory._bytes_max = 0
    assert pa.Table.from_batches(list(executor.run(query))).equals(held)
    assert executor.memory.held == 0


def test_a_closed_answer_holds_nothing_any_more(executor, tmp_path):
    answer = executor.run(opened(tmp_path, table_of(300_000)))
    next(answer)
    assert executor.memory.held > 0
    answer.close()
    assert executor.memory.held == 0
    assert answer.opened.held == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Out of Memory Error: failed to pin block", Reason.TOO_MANY_QUERIES),
        ("IO Error: no such file", Reason.LAKE_UNAVAILABLE),
        ("anything else", Reason.INTERNAL),
    ],
)
def test_errors_inside_a_stream_have_their_reason_too(executor, tmp_path, text, reason):
    answer = executor.run(opened(tmp_path, table_of(1)))

    def broken():
        yield next(source)
        raise OSError(text)

    source, answer._source = answer._source, broken()
    next(answer)
    with pytest.raises(K2Error) as caught:
        next(answer)
    assert caught.value.reason is reason
    assert not executor._running


def test_a_passed_deadline_ends_the_answer(tmp_path):
    clock = ManualClock(NOW_US)
    executor = make_executor(tmp_path, clock)
    answer = executor.run(opened(tmp_path, table_of(300_000)), deadline_s=5.0)
    next(answer)
    clock.advance(6)
    with pytest.raises(Overloaded) as caught:
        list(answer)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert list(answer) == []
    eventually(lambda: not executor._running)
    executor.close()


def test_a_deadline_is_kept_inside_a_statement(tmp_path, monkeypatch):
    clock = ManualClock(NOW_US)
    executor = make_executor(tmp_path, clock)
    answer = executor.run(opened(tmp_path, table_of(10)), deadline_s=5.0)
    endless = "SELECT sum(a.range + b.range) FROM range(10000000) a, range(10000000) b"

    def stuck():
        yield answer._cursor.sql(endless).to_arrow_table()

    answer._source = stuck()
    waker = threading.Timer(0.3, clock.advance, [6])
    waker.start()
    with pytest.raises(Overloaded) as caught:
        next(answer)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    executor.close()


def test_closing_frees_a_reader_inside_a_statement(tmp_path):
    executor = make_executor(tmp_path)
    answer = executor.run(opened(tmp_path, table_of(10)))
    endless = "SELECT sum(a.range + b.range) FROM range(10000000) a, range(10000000) b"

    def stuck():
        yield answer._cursor.sql(endless).to_arrow_table()

    answer._source = stuck()
    got = []
    reader = threading.Thread(target=lambda: got.extend(answer))
    reader.start()
    closer = threading.Timer(0.3, answer.close)
    closer.start()
    reader.join(10)
    assert not reader.is_alive()
    assert got == []
    executor.close()


def test_a_closed_answer_has_no_more_rows(executor, tmp_path):
    answer = executor.run(opened(tmp_path, table_of(300_000)))
    next(answer)
    answer.close()
    answer.close()
    assert list(answer) == []
    assert not executor._running


def test_closing_the_executor_ends_its_answers(tmp_path):
    executor = make_executor(tmp_path)
    answer = executor.run(opened(tmp_path, table_of(300_000)))
    next(answer)
    executor.close()
    assert list(answer) == []


def test_a_file_that_is_gone_or_broken_is_named(executor, tmp_path):
    with pytest.raises(Unavailable) as caught:
        list(executor.run(opened(tmp_path)))
    assert caught.value.reason is Reason.LAKE_UNAVAILABLE
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 this is no parquet file PAR1")
    with pytest.raises(Data) as corrupt:
        list(executor.run(opened(tmp_path)))
    assert corrupt.value.reason is Reason.LAKE_CORRUPT


def test_nothing_outside_the_warehouse_can_be_read(executor, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.raises(K2Error) as caught:
        list(executor.run(opened(elsewhere, table_of(1))))
    assert caught.value.reason is Reason.INTERNAL


@pytest.mark.parametrize(
    "name", ["it's", "p[1]", "[!a]", "a*", "a?", "a#b", "r%20s", "{a,b}", "币 安", 'a"b', "a\\b"]
)
def test_a_warehouse_of_any_name_is_read_and_none_beside_it(tmp_path, name):
    for beside in ("p1", "a1", "b", "a"):
        (tmp_path / beside).mkdir()
        opened(tmp_path / beside, table_of(7))
    folder = tmp_path / name
    folder.mkdir()
    executor = make_executor(folder)
    answer = opened(folder, table_of(5))
    path = f"file://{answer.plan.files.stats[0].path}"
    stats = [replace(answer.plan.files.stats[0], path=path)]
    answer = replace(answer, plan=replace(answer.plan, files=FileIndex(stats)))
    assert sum(b.num_rows for b in executor.run(answer)) == 5
    executor.close()
