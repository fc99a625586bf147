"""The whole stack on this machine: start, freshness, query latency, Flight rate, memory.

A warm start (artefacts fetched, data directory new and then resumed), then the synthetic market at
1,000 trades/s, of three symbols. Freshness is taken by a Flight client in a process of its own: it
asks for the newest rows over and over, and for each trade it first sees takes the time since K2
received the frame. It is judged by a bare loop that runs at the same time, in a process of its own
on the same broker: a record is produced and consumed, and as many rows come from a bare Flight
server. So both wait for the same two processors. Flight's rate stands beside a bare pyarrow Flight
server that sends the same rows.
"""

from __future__ import annotations

import itertools
import json
import select
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.flight as fl  # noqa: TID251 the bare peer of the data plane
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import k2client
from k2.clock import SystemClock
from tests.chaos.account import SYMBOLS
from tests.chaos.stack import Stack

CLOCK = SystemClock()
RATE = 1000
WARM_S = 15.0  # the broker's compiler is at work meanwhile: answers take up to ten times as long
FRESH_S = 40.0
QUERIES = 1000
EXPORTS = 5
ROWS_MIN = 60_000
SYMBOL = "BTCUSDT"
NEWEST = {"columns": ["symbol", "trade_id", "receive_time"], "limit": 400, "order": "desc"}
BARE_TOPIC = "bench.bare"
BARE_PAUSE_S = 0.01


def measure() -> list[tuple[str, float, str]]:
    """Name, value, unit of each figure."""
    with tempfile.TemporaryDirectory() as folder:
        options = (Path(folder) / "data", "--venue", "synthetic", "--rate", str(RATE))
        environment = {"K2_FEED__SYMBOLS": ",".join(SYMBOLS)}
        first_s, _ = _started(Stack(*options, environment=environment))
        stack = Stack(*options, environment=environment)
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
        _ages(k2, WARM_S)
        with _beside(str(stack.addresses["broker"]), k2.trades(None, **NEWEST).to_arrow()) as loops:
            ages = _ages(k2, FRESH_S)
        latencies = _latencies(k2)
        while len(table := k2.trades(None).to_arrow()) < ROWS_MIN:
            CLOCK.sleep(1.0)
        ours = _best(lambda: k2.trades(None).to_arrow())
    with _sent(table) as location, _read_from(location) as read:
        bare = _best(read)
    fresh_ms, loop_ms = _quantile(ages, 99), _quantile(loops, 99)
    return [
        (f"freshness p50 at {RATE} trades/s (n={len(ages)})", _quantile(ages, 50), "ms"),
        ("freshness p99", fresh_ms, "ms"),
        (f"bare produce, consume, Flight p50 (n={len(loops)})", _quantile(loops, 50), "ms"),
        ("bare produce, consume, Flight p99", loop_ms, "ms"),
        ("freshness p99 ÷ p99 of the bare loop", fresh_ms / loop_ms, "ratio"),
        (f"last 1,000 of a symbol p50 (n={QUERIES})", _quantile(latencies, 50), "ms"),
        ("last 1,000 of a symbol p99", _quantile(latencies, 99), "ms"),
        (f"Flight, {len(table):,} rows in canonical order", ours / 1e9, "GB/s"),
        ("bare pyarrow Flight, the same rows", bare / 1e9, "GB/s"),
        ("Flight in order ÷ bare Flight", ours / bare, "ratio"),
        ("RSS of the whole stack", _rss(stack) / 2**20, "MiB"),
        *_lake_size(stack),
    ]


def _quantile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def _ages(k2: k2client.Client, seconds: float) -> list[float]:
    """Milliseconds from a frame's receipt to the answer that first held its trade, of each."""
    ages: list[float] = []
    seen: dict[str, int] = {}
    end = CLOCK.monotonic_s() + seconds
    while CLOCK.monotonic_s() < end:
        rows = k2.trades(None, **NEWEST).to_arrow()
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


def _best(read: Callable[[], pa.Table]) -> float:
    """Bytes a second of the fastest of a few reads."""
    rates = []
    for _ in range(EXPORTS):
        begun = CLOCK.monotonic_s()
        size = read().nbytes
        rates.append(size / (CLOCK.monotonic_s() - begun))
    return max(rates)


@contextmanager
def _beside(bootstrap: str, table: pa.Table) -> Iterator[list[float]]:
    """Run the bare loop in a process of its own, and give its milliseconds at the end."""
    loops: list[float] = []
    with _sent(table) as location:
        looping = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.bench_stack", bootstrap, location],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield loops
            loops += json.loads(looping.communicate(timeout=30)[0])  # the end of its input ends it
        finally:
            looping.kill()
            looping.wait(10)


def _bare_loops(bootstrap: str, read: Callable[[], pa.Table]) -> list[float]:
    """Milliseconds to produce a record, consume it and read from a bare Flight server, of each."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(BARE_TOPIC, 1, 1)])[BARE_TOPIC].result(10)
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bare"})
    consumer.assign([TopicPartition(BARE_TOPIC, 0, 0)])
    taken: list[float] = []
    with closing(consumer):
        while not select.select([sys.stdin], [], [], BARE_PAUSE_S)[0]:
            begun = CLOCK.monotonic_s()
            producer.produce(BARE_TOPIC, b"%d" % len(taken))
            producer.poll(0)
            (message,) = consumer.consume(1, 10.0)
            assert message.value() == b"%d" % len(taken)
            read()
            taken.append((CLOCK.monotonic_s() - begun) * 1e3)
    producer.flush(10)
    return taken[1:]  # the first one also connects


@contextmanager
def _sent(table: pa.Table) -> Iterator[str]:
    """Give the location of a Flight server that sends these rows, in a process of its own."""
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
            yield f"grpc://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()
            server.wait(10)


@contextmanager
def _read_from(location: str) -> Iterator[Callable[[], pa.Table]]:
    with fl.connect(location) as client:
        yield lambda: client.do_get(fl.Ticket(b"rows")).read_all()


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
    if len(sys.argv) > 2:
        with _read_from(sys.argv[2]) as rows:
            print(json.dumps(_bare_loops(sys.argv[1], rows)))
    else:
        with pa.memory_map(sys.argv[1]) as source:
            server_of_rows = _BareServer(pa.ipc.open_file(source).read_all())
            print(server_of_rows.port, flush=True)
            server_of_rows.serve()
