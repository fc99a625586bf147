"""Hybrid queries while trades arrive, the tail's own rate, and a wide range against a bare scan.

In one process: real messages through the real decoder, fold and window (no broker, so the figures
are the query server's own), a lake of 5 M rows in 50 files of one commit each, and queries from
the plan to the last batch. The tail holds what came after the last commit.
"""

import gc
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from k2.clock import SystemClock
from k2.market import schema
from k2.market.events import Label, Trade, decimal_array, no_vendor, widen
from k2.market.fold import FoldState, Seen
from k2.market.instrument import Instrument
from k2.market.offsets import FileStat, OffsetVector, TimeRange
from k2.query.execute import Executor
from k2.query.lake_snapshots import LakeSide
from k2.query.request import Order, TradesRequest
from k2.query.view import QueryView
from k2.tail.tail import Tail
from k2.tape.avro.trade_codec import Decoder, encode_trade
from k2.tape.consumer import RawBatch
from tests.fakes.coverage import FakeCoverage
from tests.fakes.lake import FakeSnapshots, lake_snapshot
from tests.support.messages import SCHEMA_ID, Schemas

CLOCK = SystemClock()
SYMBOLS = ("BNBUSDT", "BTCUSDT", "ETHUSDT")
FILES = 50
FILE_ROWS = 100_000
STEP_US = 100  # between two trades of the lake: 10,000 a second
START_US = 1_700_000_000_000_000
LAKE_ROWS = FILES * FILE_ROWS
TAPE_US = START_US + LAKE_ROWS * STEP_US  # where the tail's trades begin
BATCH = 50
QUERIES = 1000
TRADE = schema.arrow_schema(schema.TRADE)


def measure():
    """Name, value, unit of each figure."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(folder, _write_lake(folder))
        figures = [*_queries(server), *_tail_rate(server), *_wide(server)]
        rss = psutil.Process().memory_info().rss
        server.close()
    return [*figures, ("RSS of the benchmark's process", rss / 2**20, "MiB")]


class Arrivals:
    """A reader whose batches come at a set rate, or as fast as they are taken (rate 0).

    One symbol a batch, in turns. The records repeat; `decode` gives each its own id and time.
    """

    def __init__(self):
        self.rate = 5_000.0
        self._decoder = Decoder(Schemas())
        self._values = {symbol: _messages(symbol) for symbol in SYMBOLS[1:]}
        self._last = dict.fromkeys(SYMBOLS, 0)
        self._sent = self._reads = 0
        self._read_s = CLOCK.monotonic_s()
        self._pause = threading.Event()

    def read(self, max_records, timeout_s):
        due, rate = max_records // 2, self.rate  # which another thread sets
        if rate:
            self._pause.wait(BATCH / rate)
            now_s = CLOCK.monotonic_s()
            due = int(min((now_s - self._read_s) * rate, due)) // BATCH * BATCH
            self._read_s = now_s if due == max_records // 2 else self._read_s + due / rate
        if not due:
            return []
        self._reads += 1
        symbol = SYMBOLS[1 + self._reads % 2]
        first, self._sent = LAKE_ROWS + self._sent, self._sent + due
        values = (self._values[symbol] * (due // 1000 + 1))[:due]
        return [RawBatch(0, np.arange(first, first + due), values, first + due)]

    def decode(self, batch):
        columns = self._decoder.decode(batch)
        now_us = CLOCK.now_us()
        return replace(
            columns,
            trade_id=LAKE_ROWS + self._ids(columns.labels[0].symbol, len(columns)),
            event_time=TAPE_US + (batch.offset - LAKE_ROWS) * 200,
            receive_time=np.full(len(columns), max(now_us, TAPE_US)),
        )

    def _ids(self, symbol, count):
        first = self._last[symbol]
        self._last[symbol] += count
        return np.arange(first, first + count)

    def pause(self, partitions):
        pass

    resume = seek = pause

    def close(self):
        pass


class Homes:
    """All symbols live in partition 0."""

    def __init__(self):
        self._known = {Instrument("BINANCE", symbol): 0 for symbol in SYMBOLS}

    def known(self):
        return self._known

    refresh = known

    def refresh_for(self, instruments):
        return self._known


class Server:
    """The inside of a query server."""

    def __init__(self, folder, files):
        self.folder = folder
        positions = OffsetVector(0, (LAKE_ROWS,))
        snapshots = FakeSnapshots()
        seen = Seen(np.array([[0, LAKE_ROWS - 1]]), TAPE_US - STEP_US)
        state = FoldState({Instrument("BINANCE", symbol): seen for symbol in SYMBOLS})
        snapshots.commit(lake_snapshot(1, positions), files, {0: state})
        self.arrivals = Arrivals()
        self.tail = Tail(
            reader_factory=lambda _: self.arrivals,
            decoder=self.arrivals,
            placement=Homes(),
            clock=CLOCK,
        )
        self.view = QueryView(
            lake=LakeSide(snapshots, 1, "1"),
            tail=self.tail,
            coverage=FakeCoverage(lambda: self.tail.position().offsets),
            placement=Homes(),
            clock=CLOCK,
            source="simulated",
        )
        self.executor = Executor(clock=CLOCK, warehouse=str(folder), temp_dir=folder / "tmp")
        self.view.start()

    def close(self):
        self.view.close()
        self.executor.close()

    def ask(self, request):
        """Seconds from the plan to the last batch, and the answer."""
        started = CLOCK.monotonic_s()
        planned = self.view.plan(request)
        opened = self.view.open(planned.request, planned.snapshot_id, planned.end)
        answer = self.executor.run(opened)
        for _ in answer:
            pass
        return CLOCK.monotonic_s() - started, answer


def _queries(server):
    """Each question, n = 1,000, while 5,000 trades a second arrive."""
    _wait(2.5)  # the tail holds what the hybrid range needs
    newest = {"limit": 1000, "order": Order.DESC}
    around = TimeRange(TAPE_US - 100_000, TAPE_US + 200_000)
    questions = {
        "last 1,000 of a symbol, from the tail": TradesRequest(symbols=("BTCUSDT",), **newest),
        "last 1,000 of a symbol, from the lake": TradesRequest(symbols=("BNBUSDT",), **newest),
        "range over the cut, lake and tail": TradesRequest(symbols=("BTCUSDT",), range=around),
    }
    figures = []
    for name, request in questions.items():
        times, answer = [], None
        for _ in range(QUERIES):
            took_s, answer = server.ask(request)
            times.append(took_s * 1000)
        rows = answer.rows_lake + answer.rows_tail
        figures += [
            (f"{name} p50 ({rows} rows)", float(np.percentile(times, 50)), "ms"),
            (f"{name} p99", float(np.percentile(times, 99)), "ms"),
        ]
    return figures


def _tail_rate(server):
    """How fast the tail takes records in, alone and while one client asks without pause."""
    request = TradesRequest(symbols=("BTCUSDT",), limit=1000, order=Order.DESC)
    server.arrivals.rate = 0
    alone = _rate(server, lambda: _wait(0.1), 2.0)
    times = []
    asked = _rate(server, lambda: times.append(server.ask(request)[0] * 1000), 4.0)
    server.arrivals.rate = 50_000
    server.view.maintain()
    paced = []
    at_50 = _rate(server, lambda: paced.append(server.ask(request)[0] * 1000), 5.0)
    server.arrivals.rate = 1_000
    return [
        ("tail ingest, alone", alone, "records/s"),
        ("tail ingest, queries running", asked, "records/s"),
        ("p99 of those queries", float(np.percentile(times, 99)), "ms"),
        ("tail ingest held at 50,000/s, queries running", at_50, "records/s"),
        ("p99 of queries at 50,000/s", float(np.percentile(paced, 99)), "ms"),
    ]


def _wide(server):
    """All trades of one symbol, and of all, in order; beside the same scan without order."""
    files = str(server.folder / "*.parquet")
    figures = []
    for name, request, where in (
        ("one symbol", TradesRequest(symbols=("BTCUSDT",), range=TimeRange(None, TAPE_US)),
         "WHERE symbol = 'BTCUSDT'"),
        ("all symbols", TradesRequest(range=TimeRange(None, TAPE_US)), ""),
    ):  # fmt: skip
        gc.collect()
        started, size = CLOCK.monotonic_s(), 0
        planned = server.view.plan(request)
        opened = server.view.open(planned.request, planned.snapshot_id, planned.end)
        for batch in server.executor.run(opened):
            size += batch.nbytes
        ours = size / (CLOCK.monotonic_s() - started) / 1e9
        started, size = CLOCK.monotonic_s(), 0
        with duckdb.connect(config={"threads": 2, "memory_limit": "512MB"}) as bare:
            query = bare.sql(f"SELECT * FROM read_parquet('{files}') {where}")
            for batch in query.to_arrow_reader(16_384):
                size += batch.nbytes
        scan = size / (CLOCK.monotonic_s() - started) / 1e9
        figures += [
            (f"wide range, {name}, in order", ours, "GB/s"),
            (f"bare DuckDB scan, {name}, no order", scan, "GB/s"),
        ]
    return figures


def _rate(server, do, seconds):
    before, started = server.tail.stats().records, CLOCK.monotonic_s()
    while CLOCK.monotonic_s() - started < seconds:
        do()
    return (server.tail.stats().records - before) / (CLOCK.monotonic_s() - started)


def _wait(seconds):
    threading.Event().wait(seconds)


def _messages(symbol):
    label = Label("BINANCE", symbol, symbol.removesuffix("USDT"), "USDT", "crypto", "simulated")
    trades = (
        Trade(label, 10**9 + i, TAPE_US, TAPE_US, 4 * 10**12 + i, 10**7 + i, i % 2, {})
        for i in range(1000)
    )
    return [encode_trade(trade, SCHEMA_ID) for trade in trades]


def _write_lake(folder):
    """Files as a writer commits them: 10 s each, three symbols, sorted by symbol and time."""
    stats = []
    for number in range(FILES):
        path = folder / f"{number}.parquet"
        table = _file_rows(number)
        pq.write_table(
            table, path, compression="zstd", compression_level=1, store_decimal_as_integer=True,
            use_dictionary=[*schema.LABEL_COLUMNS, "side"], row_group_size=131_072,
            column_encoding=dict.fromkeys(
                ("trade_id", "event_time", "receive_time", "price", "tape_offset"),
                "DELTA_BINARY_PACKED",
            ),
        )  # fmt: skip
        first = START_US + number * FILE_ROWS * STEP_US
        stats.append(
            FileStat(
                str(path), path.stat().st_size, len(table), "BINANCE", SYMBOLS[0], SYMBOLS[-1],
                first, first + (FILE_ROWS - 1) * STEP_US,
            )
        )  # fmt: skip
    return stats


def _file_rows(number):
    order = np.arange(FILE_ROWS) + number * FILE_ROWS
    symbol = order % len(SYMBOLS)
    at = np.argsort(symbol, kind="stable")
    order, symbol = order[at], symbol[at]
    noise = np.random.default_rng(number)
    texts = {
        "exchange": ["BINANCE"] * 3, "symbol": list(SYMBOLS), "quote": ["USDT"] * 3,
        "base": [one.removesuffix("USDT") for one in SYMBOLS],
        "asset_class": ["crypto"] * 3, "source": ["simulated"] * 3,
    }  # fmt: skip
    arrays = {name: pa.array(of).take(pa.array(symbol)) for name, of in texts.items()}
    price = 4 * 10**12 + np.cumsum(noise.integers(-1000, 1001, FILE_ROWS))
    quantity = widen(noise.integers(1, 10**9, FILE_ROWS))
    times = START_US + order * STEP_US
    arrays |= {
        "trade_id": pa.array(order),
        "event_time": pa.array(times).view(TRADE.field("event_time").type),
        "receive_time": pa.array(times + 50_000).view(TRADE.field("receive_time").type),
        "price": decimal_array(widen(price), TRADE.field("price").type),
        "quantity": decimal_array(quantity, TRADE.field("quantity").type),
        "side": pa.array(schema.SIDES).take(pa.array(noise.integers(0, 2, FILE_ROWS))),
        "vendor_data": no_vendor(FILE_ROWS),
        "tape_epoch": pa.array(np.zeros(FILE_ROWS, np.int32)),
        "tape_partition": pa.array(np.zeros(FILE_ROWS, np.int32)),
        "tape_offset": pa.array(order),
    }
    return pa.table([arrays[name] for name in TRADE.names], schema=TRADE)
