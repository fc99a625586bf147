"""The whole stack on this machine: start, freshness, query latency, Flight rate, memory.

A warm start (artefacts fetched, data directory new and then resumed), then the synthetic market at
1,000 trades/s. Freshness is taken by a Flight client in a process of its own: it asks for
the newest rows over and over, and for each trade it first sees takes the time since K2 received the
frame. Flight's rate stands beside a bare pyarrow Flight server that sends the same rows.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.flight as fl  # noqa: TID251 the bare peer of the data plane

import k2client
from k2.clock import SystemClock
from tests.chaos.stack import Stack

CLOCK = SystemClock()
RATE = 1000
FRESH_S = 40.0
QUERIES = 1000
EXPORTS = 5
ROWS_MIN = 60_000
SYMBOL = "BTCUSDT"


def measure() -> list[tuple[str, float, str]]:
    """Name, value, unit of each figure."""
    with tempfile.TemporaryDirectory() as folder:
        options = (Path(folder) / "data", "--venue", "synthetic", "--rate", str(RATE))
        first_s, _ = _started(Stack(*options))
        stack = Stack(*options)
        again_s, control = _started(stack, leave=True)
        try:
            figures = _measured(stack, control)
        finally:
            stack.__exit__()
    return [
        ("start of a new data directory", first_s, "s"),
        ("warm start, resumed", again_s, "s"),
        *figures,
    ]


def _started(stack: Stack, leave: bool = False) -> tuple[float, str]:
    begun = CLOCK.monotonic_s()
    stack.__enter__()
    took = CLOCK.monotonic_s() - begun
    if not leave:
        stack.__exit__()
    return took, str(stack.addresses["control"])


def _measured(stack: Stack, control: str) -> list[tuple[str, float, str]]:
    with k2client.connect(control) as k2:
        ages = _ages(k2)
        latencies = _latencies(k2)
        while len(table := k2.trades(None).to_arrow()) < ROWS_MIN:
            CLOCK.sleep(1.0)
        ours = _best(lambda: k2.trades(None).to_arrow())
    return [
        (f"freshness p50 at {RATE} trades/s (n={len(ages)})", _quantile(ages, 50), "ms"),
        ("freshness p99", _quantile(ages, 99), "ms"),
        (f"last 1,000 of a symbol p50 (n={QUERIES})", _quantile(latencies, 50), "ms"),
        ("last 1,000 of a symbol p99", _quantile(latencies, 99), "ms"),
        (f"Flight, {len(table):,} rows in canonical order", ours / 1e9, "GB/s"),
        ("bare pyarrow Flight, the same rows", _bare(table) / 1e9, "GB/s"),
        ("RSS of the whole stack", _rss(stack) / 2**20, "MiB"),
        *_lake_size(stack),
    ]


def _quantile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def _ages(k2: k2client.Client) -> list[float]:
    """Milliseconds from a frame's receipt to the answer that first held its trade, of each."""
    ages: list[float] = []
    seen: dict[str, int] = {}
    end = CLOCK.monotonic_s() + FRESH_S
    columns = ["symbol", "trade_id", "receive_time"]
    while CLOCK.monotonic_s() < end:
        rows = k2.trades(None, columns=columns, limit=400, order="desc").to_arrow()
        now_us = CLOCK.now_us()
        symbols, ids = rows.column("symbol").to_pylist(), rows.column("trade_id").to_pylist()
        received = rows.column("receive_time").cast(pa.int64()).to_pylist()
        newest = dict(seen)
        for symbol, trade_id, received_us in zip(symbols, ids, received, strict=True):
            if symbol in seen and trade_id > seen[symbol]:
                ages.append((now_us - received_us) / 1e3)
            newest[symbol] = max(trade_id, newest.get(symbol, -1))
        seen = newest
    return ages


def _latencies(k2: k2client.Client) -> list[float]:
    """Milliseconds of plan and rows together, one question after the other."""
    taken = []
    for _ in itertools.repeat(None, QUERIES):
        begun = CLOCK.monotonic_s()
        rows = k2.trades(SYMBOL, limit=1000, order="desc").to_arrow()
        taken.append((CLOCK.monotonic_s() - begun) * 1e3)
        assert len(rows)
    return taken


def _best(read) -> float:
    """Bytes a second of the fastest of a few reads."""
    rates = []
    for _ in range(EXPORTS):
        begun = CLOCK.monotonic_s()
        size = read().nbytes
        rates.append(size / (CLOCK.monotonic_s() - begun))
    return max(rates)


def _bare(table: pa.Table) -> float:
    """The same rows from a Flight server that does nothing else, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.bench_stack", str(path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            with fl.connect(f"grpc://127.0.0.1:{port}") as client:
                return _best(lambda: client.do_get(fl.Ticket(b"rows")).read_all())
        finally:
            server.terminate()
            server.wait(10)


class _BareServer(fl.FlightServerBase):
    def __init__(self, table: pa.Table) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._table = table

    def do_get(self, context: object, ticket: fl.Ticket) -> fl.RecordBatchStream:
        return fl.RecordBatchStream(self._table)


def _rss(stack: Stack) -> int:
    """Resident bytes of every process of the stack, the supervisor among them."""
    pids = [process["pid"] for process in stack.json("status")["processes"]]
    pids.append(stack.json("status")["supervisor_pid"])
    return sum(psutil.Process(pid).memory_info().rss for pid in pids if pid)


def _lake_size(stack: Stack) -> list[tuple[str, float, str]]:
    newest = stack.json("snapshots")["snapshots"][0]
    each = int(newest["bytes_total"]) / max(1, int(newest["rows_total"]))
    return [("bytes a trade in small commits, before compaction", each, "B")]


if __name__ == "__main__":
    with pa.memory_map(sys.argv[1]) as source:
        bare = _BareServer(pa.ipc.open_file(source).read_all())
        print(bare.port, flush=True)
        bare.serve()
