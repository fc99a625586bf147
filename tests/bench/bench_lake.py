"""The lake worker: trades a second from a real broker to committed Iceberg, on one core.

The worker runs alone on the first core (consume, decode, check, fold, sort, write, fsync, commit),
the broker on the second. Beside it, in the same run and on the same core: the rate at which a plain
`confluent_kafka.Consumer` takes the same messages, and the bare writing of the same rows as
Parquet. One message is one trade of three symbols, about 75 bytes, lz4 batches.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from k2.clock import SystemClock
from k2.lake.commit.trade_files import Part, write_files
from k2.lake.iceberg.catalog import open_catalog
from k2.lake.iceberg.snapshot import SnapshotReader
from k2.lake.iceberg.tables import ensure_tables
from k2.market.events import Label, Trade, TradeColumns
from k2.market.instrument import Instrument
from k2.settings import environment, load
from k2.tape import topics
from k2.tape.avro.trade_codec import encode_trade
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.partition_map import PartitionMap
from k2.tape.schema_registry import SchemaStore
from servers.local import broker as kafka
from servers.local import registry as apicurio
from servers.local.artifacts import Artifacts
from servers.local.child_process import Child
from servers.processes import lake
from servers.runtime import Runtime
from tests.conftest import free_ports
from tests.support.eventually import eventually

TRADES = 1_600_000
COMMITTED = 1_500_000  # in full batches: the rest waits for the commit interval
BATCH_BYTES = 32 * 2**20  # commits of half a million rows
SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
START_US = 1_700_000_000_000_000
CLOCK = SystemClock()


def measure():
    """Name, value, unit of each figure."""
    with tempfile.TemporaryDirectory() as folder:
        return _measure(Path(folder))


def _measure(folder):
    found = Artifacts(load().cache_dir, CLOCK)
    found.ensure(lambda *_: None)
    ports, others = kafka.BrokerPorts(*free_ports(2)), apicurio.RegistryPorts(*free_ports(2))
    broker = Child(
        kafka.prepare(folder / "kafka", ports, found.jars("kafka"), "5" * 32), folder / "b.log"
    )
    registry = Child(
        apicurio.prepare(folder / "registry", others, found.unpacked("registry")), folder / "r.log"
    )
    try:
        eventually(lambda: kafka.answers(ports), 50)
        eventually(lambda: apicurio.answers(others), 50)
        env = environment() | {
            "K2_DATA_DIR": str(folder),
            "K2_TAPE__BOOTSTRAP": kafka.bootstrap(ports),
            "K2_TAPE__REGISTRY_URL": apicurio.url(others),
            "K2_LAKE__COMMIT_BYTES_MAX": str(BATCH_BYTES),
        }
        _run("produce", env, None)
        registry.stop(grace_s=5)
        _pin(broker.pid, {1})
        consume = _run("consume", env, {0})
        write = _run("write", env, {0})
        worker = _run("worker", env, {0})
    finally:
        registry.stop(grace_s=5)
        broker.stop(grace_s=5)
    return [
        ("lake worker, broker to committed Iceberg", worker["rate"], "trades/s"),
        ("lake worker, by its CPU seconds", worker["cpu_rate"], "trades/CPU s"),
        ("bare consume of the same messages", consume["rate"], "messages/s"),
        ("bare Parquet write of such rows", write["rate"], "rows/s"),
        ("worker ÷ bare consume", worker["rate"] / consume["rate"], "ratio"),
        ("bytes a trade, before compaction", worker["bytes"], "B"),
        ("lake worker RSS", worker["rss"] / 2**20, "MiB"),
    ]


def _run(what, env, cores):
    """One step in a process of its own, on these cores."""
    command = [sys.executable, "-m", "tests.bench.bench_lake", what]
    done = subprocess.run(
        command,
        env=env,
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _pin(pid, cores):
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), cores)


def market(rows):
    """Random trades of the symbols in turn: a walk of prices in ticks, heavy-tailed sizes."""
    chance = np.random.default_rng(7)
    number = np.arange(rows, dtype=np.int64)
    event_time = START_US + np.cumsum(chance.exponential(300.0, rows)).astype(np.int64)
    quantity = np.zeros((rows, 2), dtype=np.int64)
    quantity[:, 0] = np.exp(chance.normal(7, 2, rows)).astype(np.int64) * 1000 + 1000
    return TradeColumns(
        offset=number,
        labels=tuple(Label("BINANCE", s, s[:-4], "USDT", "crypto", "simulated") for s in SYMBOLS),
        label=(number % len(SYMBOLS)).astype(np.int32),
        trade_id=number // len(SYMBOLS),
        event_time=event_time,
        receive_time=event_time + chance.integers(2000, 40_000, rows),
        price=4_000_000_000_000 + np.cumsum(chance.integers(-2, 3, rows)) * 1_000_000,
        quantity=quantity,
        side=(chance.random(rows) < 0.5).astype(np.uint8),
        vendor_data=None,
        fault=np.zeros(rows, dtype=np.uint8),
    )


def produce(settings):
    """Put the trades on the tape."""
    schemas = SchemaStore(settings.tape.registry_url, settings.data_dir / "schemas", SystemClock())
    schema_id = topics.deploy(settings.tape, schemas)
    board = CompactedTopic(settings.tape.bootstrap, topics.PARTITIONS)
    placement = PartitionMap(
        board, topics.topic_id(settings.tape), settings.tape.partitions_per_tier
    )
    homes = [placement.place(Instrument("BINANCE", symbol)) for symbol in SYMBOLS]
    board.close()
    labels = [Label("BINANCE", s, s[:-4], "USDT", "crypto", "simulated") for s in SYMBOLS]
    producer = Producer(
        {
            "bootstrap.servers": settings.tape.bootstrap,
            "linger.ms": 20,
            "compression.type": "lz4",
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    rows = market(TRADES)
    columns = (rows.event_time, rows.receive_time, rows.price, rows.quantity[:, 0], rows.side)
    for number, values in enumerate(zip(*map(np.ndarray.tolist, columns), strict=True)):
        one = number % len(SYMBOLS)
        event_time, received, price, quantity, side = values
        trade = Trade(labels[one], number // 3, event_time, received, price, quantity, side, {})
        message = encode_trade(trade, schema_id)
        while True:
            try:
                producer.produce(settings.tape.topic, message, SYMBOLS[one], homes[one])
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush(60)
    return {}


def consume(settings):
    """Measure the client's own rate: value, offset and partition taken out of every message."""
    consumer = Consumer({"bootstrap.servers": settings.tape.bootstrap, "group.id": "bare"})
    partitions = range(topics.partition_count(settings.tape))
    consumer.assign([TopicPartition(settings.tape.topic, one, 0) for one in partitions])
    count, began = 0, 0.0
    while count < TRADES:
        messages = consumer.consume(10_000, 1.0)
        began = began or CLOCK.monotonic_s()
        count += len([(one.value(), one.offset(), one.partition()) for one in messages])
    rate = count / (CLOCK.monotonic_s() - began)
    consumer.close()
    return {"rate": rate}


def write(settings):
    """The writer alone, files durable, no commit."""
    table = ensure_tables(open_catalog(settings, CLOCK))
    rows = 1_000_000
    columns = market(rows)
    began = CLOCK.monotonic_s()
    for turn in range(3):
        write_files([Part(0, columns)], 0, table, f"bench-{turn}")
    return {"rate": 3 * rows / (CLOCK.monotonic_s() - began)}


class _Assigned(logging.Handler):
    """Notes when the pump got its partitions."""

    def __init__(self):
        super().__init__()
        self.at = self.cpu = 0.0

    def emit(self, record):
        if record.msg == "assigned":
            self.at, self.cpu = CLOCK.monotonic_s(), time.process_time()


def worker(settings):
    """The writer's process as it is run, until the full batches are committed."""
    assigned = _Assigned()
    log = logging.getLogger("k2.lake.ingest.trade_writer")
    log.addHandler(assigned)
    log.setLevel(logging.INFO)
    runtime = Runtime(CLOCK, "b" * 32)
    catalog = open_catalog(settings, CLOCK)
    ensure_tables(catalog)
    found = {}

    def watch():
        snapshots = SnapshotReader(catalog)

        def done():
            snapshot = snapshots.current()
            return snapshot if snapshot and snapshot.rows_total >= COMMITTED else None

        snapshot = eventually(done, 60, interval_s=0.1)
        seconds = CLOCK.monotonic_s() - assigned.at
        found["rate"] = snapshot.rows_total / seconds
        found["cpu_rate"] = snapshot.rows_total / (time.process_time() - assigned.cpu)
        found["bytes"] = snapshot.bytes_total / snapshot.rows_total
        found["rss"] = _peak_rss()
        runtime.stopping.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    lake.run(settings, runtime, [])
    watcher.join()
    return found


def _peak_rss():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    steps = {"produce": produce, "consume": consume, "write": write, "worker": worker}
    print(json.dumps(steps[sys.argv[1]](load())))
