"""What the layout of files and the reading of them give, before and after, in one run.

The same 5 M rows of 30 symbols lie twice in files of an hour each: as K2 writes them, and as it
wrote them before (quantity 128 bits wide, row groups of 131,072 rows). The files of before are read
as they were then: footers read again for each statement, rows put in order by all their keys. Each
question is asked of both in turns; its figure is the median.
"""

import statistics
import tempfile
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.typedef import Record

from k2 import limits
from k2.clock import SystemClock
from k2.lake.commit import trade_files
from k2.lake.iceberg.catalog import local_path
from k2.market import schema
from k2.market.events import DAY_US, decimal_array, no_vendor, widen
from k2.market.files import FileIndex
from k2.market.offsets import FileStat, OffsetVector, TimeRange
from k2.query import batches, execute
from k2.query.plan import LakeFacts, plan_lake
from k2.query.request import Order, TradesRequest
from k2.query.shapes.bars import Bars
from k2.query.shapes.vwap import Vwap
from k2.query.view import OpenQuery
from tests.support.lake_world import LakeWorld

CLOCK = SystemClock()
FILES = 5
FILE_ROWS = 1_000_000
HOUR_US = 3_600_000_000
START_US = 20_000 * DAY_US
SYMBOLS = tuple(f"COIN{number:02}USDT" for number in range(30))
SYMBOL = SYMBOLS[7]
END = OffsetVector(0, (FILES * FILE_ROWS,))
TRADE = schema.arrow_schema(schema.TRADE)
FAST, SLOW = 20, 3  # times that a question is asked
ROW_GROUP_ROWS_BEFORE = 131_072

STATEMENTS = {
    "sum of all quantities": "SELECT sum(quantity) FROM read_parquet(?)",
    "exact vwap of each symbol": (
        "SELECT symbol, sum(price::DECIMAL(38,8) * quantity), sum(quantity) FROM read_parquet(?)"
        " GROUP BY symbol"
    ),
}
REQUESTS = {
    "1-minute bars of one symbol": TradesRequest(symbols=(SYMBOL,), shape=Bars(every="1m")),
    "1-minute bars of all symbols": TradesRequest(shape=Bars(every="1m")),
    "vwap of each symbol": TradesRequest(shape=Vwap()),
    "last 1,000 of a symbol": TradesRequest(symbols=(SYMBOL,), limit=1000, order=Order.DESC),
    "an hour of a symbol": TradesRequest(
        symbols=(SYMBOL,), range=TimeRange(START_US + HOUR_US // 2, START_US + 3 * HOUR_US // 2)
    ),
    "export of 5 M rows, in order": TradesRequest(),
}


def measure():
    """Name, value, unit of each figure."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = LakeWorld(folder)
        sites = {"before": Site(folder, "before"), "after": Site(folder, "after")}
        for number in range(FILES):
            rows = rows_of(number)
            for site in sites.values():
                site.write(world, rows, number)
        world.close()
        figures = [*sizes(sites), *asked(sites)]
        for site in sites.values():
            site.close()
    return figures


class Site:
    """Files of one layout, and an executor that reads them."""

    def __init__(self, folder, layout):
        self.layout = layout
        self.folder = folder / layout
        self.folder.mkdir()
        self.stats = []
        self.executor = execute.Executor(
            clock=CLOCK, warehouse=str(folder), temp_dir=folder / "tmp" / layout
        )
        if layout == "before":
            self.executor._database.close()
            self.executor._database = duckdb.connect(
                config={
                    "threads": limits.QUERY_THREADS,
                    "memory_limit": f"{limits.QUERY_MEMORY_BYTES_MAX}B",
                }
            )
            self.executor._database.execute("SET TimeZone = 'UTC'")

    def write(self, world, rows, number):
        """Write a file."""
        start_us = START_US + number * HOUR_US
        table = world.table
        with pytest.MonkeyPatch.context() as patch:
            if self.layout == "before":
                patch.setattr(trade_files, "_narrowed", lambda rows: (rows, False))
                patch.setattr("k2.limits.ROW_GROUP_ROWS", ROW_GROUP_ROWS_BEFORE)
            columns = trade_files.parquet_schema(table.schema())
            file = trade_files.write_sorted(
                table,
                rows.cast(columns).combine_chunks(),
                f"{self.layout}-{number}",
                Record(START_US // DAY_US, "BINANCE"),
            )
        self.stats.append(
            FileStat(
                local_path(file.file_path), file.file_size_in_bytes, len(rows), "BINANCE",
                SYMBOLS[0], SYMBOLS[-1], start_us, start_us + HOUR_US - 1,
                narrow=self.layout == "after",
            )
        )  # fmt: skip

    def compute(self, statement):
        """Answer by one statement over all files."""
        paths = [stat.path for stat in self.stats]
        cursor = self.executor._database.cursor()
        cursor.sql(statement, params=[paths]).to_arrow_table()

    def ask(self, request):
        """Answer a request from the lake."""
        facts = LakeFacts(END, FileIndex(self.stats))
        plan = plan_lake(request, facts, END)
        with pytest.MonkeyPatch.context() as patch:
            if self.layout == "before":
                patch.setattr(execute, "canonical_order", batches.by_all_keys)
            for _ in self.executor.run(OpenQuery(request, plan, {}, None)):
                pass

    def close(self):
        self.executor.close()


def asked(sites):
    """Milliseconds of each question at each site."""
    figures = []
    for questions, do in ((STATEMENTS, Site.compute), (REQUESTS, Site.ask)):
        for name, question in questions.items():
            times = {layout: [] for layout in sites}
            for _ in range(SLOW if "5 M" in name else FAST):
                for layout, site in sites.items():
                    started = CLOCK.monotonic_s()
                    do(site, question)
                    times[layout].append((CLOCK.monotonic_s() - started) * 1000)
            medians = {layout: statistics.median(of) for layout, of in times.items()}
            figures += [(f"{name}, {layout}", value, "ms") for layout, value in medians.items()]
            figures.append((f"{name}, before ÷ after", medians["before"] / medians["after"], "x"))
    return figures


def sizes(sites):
    """Bytes of a row."""
    rows = FILES * FILE_ROWS
    return [
        (f"bytes a row, {layout}", sum(stat.size_bytes for stat in site.stats) / rows, "B")
        for layout, site in sites.items()
    ]


def rows_of(number):
    """An hour of trades: times ascend, a third of them at the moment of the one before."""
    noise = np.random.default_rng(number)
    order = np.arange(FILE_ROWS) + number * FILE_ROWS
    symbol = np.repeat(noise.integers(0, len(SYMBOLS), FILE_ROWS // 2), 2)
    moments = np.sort(noise.integers(0, HOUR_US, FILE_ROWS))
    moments[1::2] = np.where(noise.random(FILE_ROWS // 2) < 2 / 3, moments[::2], moments[1::2])
    texts = {
        "exchange": ["BINANCE"] * len(SYMBOLS), "symbol": list(SYMBOLS),
        "base": [one.removesuffix("USDT") for one in SYMBOLS], "quote": ["USDT"] * len(SYMBOLS),
        "asset_class": ["crypto"] * len(SYMBOLS), "source": ["simulated"] * len(SYMBOLS),
    }  # fmt: skip
    arrays = {name: pa.array(of).take(pa.array(symbol)) for name, of in texts.items()}
    price = 4 * 10**12 + np.cumsum(noise.integers(-1000, 1001, FILE_ROWS)) + symbol * 10**10
    quantity = noise.integers(1, 10**6, FILE_ROWS) * 10_000
    times = START_US + number * HOUR_US + moments
    arrays |= {
        "trade_id": pa.array(order),
        "event_time": pa.array(times).view(TRADE.field("event_time").type),
        "receive_time": pa.array(times + 50_000).view(TRADE.field("receive_time").type),
        "price": decimal_array(widen(price), TRADE.field("price").type),
        "quantity": decimal_array(widen(quantity), TRADE.field("quantity").type),
        "side": pa.array(schema.SIDES).take(pa.array(noise.integers(0, 2, FILE_ROWS))),
        "vendor_data": no_vendor(FILE_ROWS),
        "tape_epoch": pa.array(np.zeros(FILE_ROWS, np.int32)),
        "tape_partition": pa.array(np.zeros(FILE_ROWS, np.int32)),
        "tape_offset": pa.array(order),
    }
    return pa.table([arrays[name] for name in TRADE.names], schema=TRADE)


if __name__ == "__main__":
    for name, value, unit in measure():
        print(f"{name:48}{value:12,.2f} {unit}")
