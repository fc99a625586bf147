"""Shapes of 10 M trades against bare DuckDB on the same files, in one run.

The statements of bare DuckDB are what one would write: buckets by integers, exact sums, ties in
time left to chance. It has the threads and the memory of K2's executor; the two take turns. What
they cost is compared by processor time, which other work on the machine hardly changes.
"""

import statistics
import tempfile
from pathlib import Path

import duckdb
import psutil

from k2 import limits
from k2.clock import SystemClock
from k2.query.request import TradesRequest, validated
from k2.query.shapes.asof import Asof
from k2.query.shapes.bars import Bars
from k2.query.shapes.vwap import Vwap
from tests.bench.bench_read_path import SYMBOLS, Site, rows_of
from tests.support.lake_world import LakeWorld

CLOCK = SystemClock()
FILES = 10
TIMES = 5
LEFT, RIGHT = SYMBOLS[3], SYMBOLS[7]
QUESTIONS = {
    "bars of 1 min": (
        TradesRequest(shape=Bars("1m")),
        "SELECT symbol, exchange, epoch_us(event_time) // 60000000 AS bar,"
        " arg_min(price, event_time), max(price), min(price), arg_max(price, event_time),"
        " sum(quantity), sum(price::DECIMAL(38,8) * quantity), count(*),"
        " sum(CASE WHEN side = 'BUY' THEN quantity ELSE 0 END)"
        " FROM read_parquet(?) GROUP BY ALL ORDER BY bar, exchange, symbol",
    ),
    "vwap": (
        TradesRequest(shape=Vwap()),
        "SELECT exchange, symbol, min(event_time), max(event_time), sum(quantity),"
        " sum(price::DECIMAL(38,8) * quantity), count(*) FROM read_parquet(?)"
        " GROUP BY ALL ORDER BY ALL",
    ),
    "asof": (
        TradesRequest(symbols=(LEFT,), shape=Asof(RIGHT)),
        f"SELECT l.*, r.* FROM (FROM read_parquet(?) WHERE symbol = '{LEFT}') l ASOF LEFT JOIN"
        f" (FROM read_parquet(?) WHERE symbol = '{RIGHT}') r ON l.event_time >= r.event_time"
        " ORDER BY l.event_time, l.trade_id",
    ),
}


def measure():
    """Name, value, unit of each figure."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = LakeWorld(folder)
        site = Site(folder, "after")
        for number in range(FILES):
            site.write(world, rows_of(number), number)
        world.close()
        figures = []
        for name_, (request, statement) in QUESTIONS.items():
            figures += _compared(site, name_, validated(request).resolved(0), statement)
        site.close()
    return figures


def _compared(site, name, request, statement):
    paths = [stat.path for stat in site.stats]
    shaped, bare = [], []
    with duckdb.connect(
        config={
            "threads": limits.QUERY_THREADS,
            "memory_limit": f"{limits.QUERY_MEMORY_BYTES_MAX}B",
            "temp_directory": str(site.folder / "bare"),
        }
    ) as database:
        database.execute("SET TimeZone = 'UTC'; SET parquet_metadata_cache = TRUE")
        for _ in range(TIMES):
            bare.append(_cost(_read_bare, database, statement, paths))
            shaped.append(_cost(Site.ask, site, request))
    (ours_s, ours_cpu), (theirs_s, theirs_cpu) = map(_medians, (shaped, bare))
    return [
        (f"{name}, 10 M rows", ours_s, "s"),
        (f"{name}, bare DuckDB", theirs_s, "s"),
        (f"{name} ÷ bare DuckDB", ours_cpu / theirs_cpu, "x"),
    ]


def _medians(costs):
    return [statistics.median(of) for of in zip(*costs, strict=True)]


def _read_bare(database, statement, paths):
    relation = database.sql(statement, params=[paths] * statement.count("?"))
    for _ in relation.to_arrow_reader(65_536):
        pass


def _cost(do, *arguments):
    """Seconds of waiting, and of processors."""
    began_s, before = CLOCK.monotonic_s(), psutil.Process().cpu_times()
    do(*arguments)
    after = psutil.Process().cpu_times()
    worked_s = after.user + after.system - before.user - before.system
    return CLOCK.monotonic_s() - began_s, worked_s


if __name__ == "__main__":
    for name, value, unit in measure():
        print(f"{name:48}{value:12,.3f} {unit}")
