"""The writer as a process, on a real Kafka, killed while it works."""

import json
import sys
from itertools import count

import pytest
from confluent_kafka import Producer

from k2.clock import SystemClock
from k2.lake.commit.event_files import view_of
from k2.lake.iceberg.catalog import open_catalog
from k2.lake.iceberg.snapshot import SnapshotReader
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT, GAPS_LAYOUT, TRADES, ensure_tables
from k2.market.events import Label, Trade
from k2.market.instrument import Instrument, first_partition
from k2.market.ledger import Cause, GapEvent, GapState
from k2.settings import LakeSettings, Settings, TapeSettings, environment
from k2.tape import topics
from k2.tape.avro.trade_codec import encode_trade
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.gap_topic import GapLog
from k2.tape.partition_map import PartitionMap
from k2.tape.schema_registry import SchemaStore
from servers.local.child_process import Child, ChildCommand
from tests.support.commanded import commanded
from tests.support.eventually import eventually
from tests.support.trades import NOW_US

KILLS = 3
WAVE = 500
SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
_numbers = count()

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


class Site:
    """A topic of its own on the shared Kafka, a lake of its own, and their writer."""

    def __init__(self, folder, broker, registry):
        self.folder = folder
        tape = TapeSettings(
            bootstrap=broker, registry_url=registry, topic=f"lake.writer.{next(_numbers)}"
        )
        lake = LakeSettings(commit_interval_s=0.3)
        self.settings = Settings(data_dir=folder, tape=tape, lake=lake)
        self.schemas = SchemaStore(registry, folder / "schemas", SystemClock())
        self.schema_id = topics.deploy(tape, self.schemas)
        self.home = {}
        self.place(*SYMBOLS)
        self.producer = Producer({"bootstrap.servers": broker, "linger.ms": 5})
        self.catalog = open_catalog(self.settings, SystemClock())
        ensure_tables(self.catalog)
        self.snapshots = SnapshotReader(self.catalog)
        self.env = environment() | {
            "K2_DATA_DIR": str(folder),
            "K2_TAPE__BOOTSTRAP": broker,
            "K2_TAPE__REGISTRY_URL": registry,
            "K2_TAPE__TOPIC": tape.topic,
            "K2_LAKE__COMMIT_INTERVAL_S": str(lake.commit_interval_s),
        }

    def place(self, *symbols):
        """Give symbols their partitions."""
        tape = self.settings.tape
        board = CompactedTopic(tape.bootstrap, topics.PARTITIONS)
        placement = PartitionMap(board, topics.topic_id(tape), tape.partitions_per_tier)
        self.home |= {one: placement.place(Instrument("BINANCE", one)) for one in symbols}
        board.close()

    def put(self, first, many):
        """Trades of every symbol; each tenth twice, and some garbage between them."""
        for number in range(first, first + many):
            for symbol in SYMBOLS:
                message = self._message(symbol, number)
                for _ in range(2 if number % 10 == 0 else 1):
                    self._send(symbol, message)
            if number % 100 == 0:
                self._send("BTCUSDT", b"garbage")
            self.producer.poll(0)
        assert self.producer.flush(30) == 0

    def put_unplaced(self, symbol, number):
        """A trade of a symbol that nobody has placed, where it will belong."""
        per_tier = self.settings.tape.partitions_per_tier
        self.home[symbol] = first_partition(Instrument("BINANCE", symbol), per_tier)
        self._send(symbol, self._message(symbol, number))
        assert self.producer.flush(30) == 0

    def _message(self, symbol, number):
        label = Label("BINANCE", symbol, symbol[:-4], "USDT", "crypto", "simulated")
        at = NOW_US + number * 1000
        trade = Trade(label, number, at, at + 500, 100 + number, 7, number & 1, {})
        return encode_trade(trade, self.schema_id)

    def _send(self, symbol, message):
        self.producer.produce(self.settings.tape.topic, message, symbol, self.home[symbol])

    def start(self):
        """The writer's process, serving."""
        command = ChildCommand((sys.executable, "-m", "servers", "lake"), self.env)
        child = Child(command, self.folder / "logs" / "lake.log", piped=True)
        with child.stdout as lines:
            assert json.loads(lines.readline())["event"] == "serving"
        return child

    def committed(self):
        snapshot = self.snapshots.current()
        return snapshot.rows_total if snapshot else 0

    def await_rows(self, rows):
        eventually(lambda: self.committed() >= rows, 60, 0.05)

    def tell(self, first, many):
        """Gap events, one for each id."""
        log = GapLog(self.settings.tape.bootstrap, self.schemas)
        log.publish(
            [
                GapEvent(
                    Instrument("BINANCE", "BTCUSDT"), number, number, NOW_US, Cause.SEQUENCE,
                    GapState.OPEN, NOW_US, self.settings.tape.topic,
                )
                for number in range(first, first + many)
            ]
        )  # fmt: skip
        log.close()

    def gaps(self):
        """Ids of the rows of `ops.gaps` that `tell` made, in the order of the tape."""
        view = view_of(self.catalog, GAPS_LAYOUT)
        ours = [("feed", "==", self.settings.tape.topic)]
        return [row["first_id"] for row in view.newest(["first_id"], ours)][::-1]

    def letters(self):
        """Rows of `ops.dead_letters` that are of this topic."""
        view = view_of(self.catalog, DEAD_LETTERS_LAYOUT)
        ours = [("origin", "==", self.settings.tape.topic)]
        columns = ["origin_partition", "origin_offset", "fault", "value"]
        return [*view.newest(columns, ours)]

    def verified(self):
        """Exit code and report of `verify`."""
        return commanded(self.settings, "verify")

    def close(self):
        self.producer.close()
        self.catalog.close()


@pytest.fixture
def site(tmp_path, broker, registry):
    site = Site(tmp_path, broker, registry)
    yield site
    site.close()


@pytest.mark.slow
def test_every_trade_is_in_the_lake_once_whatever_kills_the_writer(site):
    for kill in range(KILLS):
        writer = site.start()
        site.put(kill * WAVE, WAVE)
        site.tell(kill * 10, 10)
        site.await_rows(kill * WAVE * 2 + 1)  # each life ends at another moment of its work
        writer.kill()
    writer = site.start()
    site.put(KILLS * WAVE, 100)
    total = (KILLS * WAVE + 100) * len(SYMBOLS)
    site.await_rows(total)
    assert writer.stop(grace_s=20) == 0
    rows = site.catalog.load_table(TRADES).scan().to_arrow()
    found = zip(rows["symbol"].to_pylist(), rows["trade_id"].to_pylist(), strict=True)
    want = [(symbol, number) for symbol in SYMBOLS for number in range(KILLS * WAVE + 100)]
    assert sorted(found) == sorted(want)
    code, report = site.verified()
    assert (code, report["ok"], report["problems"]) == (0, True, [])
    assert (report["accepted"], report["uncommitted"]) == (total, 0)
    dead = KILLS * WAVE // 100 + 1
    assert report["dead"] == dead
    letters = site.letters()
    assert len(letters) == len({row["origin_offset"] for row in letters}) == dead
    assert {(row["fault"], row["value"]) for row in letters} == {("BAD_MAGIC", b"garbage")}
    assert site.gaps() == list(range(10 * KILLS))
    assert report["holes_total"] == 0


def test_a_stopping_writer_commits_what_it_has(site):
    site.env["K2_LAKE__COMMIT_INTERVAL_S"] = "3600"
    writer = site.start()
    site.put(0, 50)
    eventually(lambda: pending(site, writer) == 150, 30)
    assert site.committed() == 0
    assert writer.stop(grace_s=20) == 0
    assert site.committed() == 150


def pending(site, writer):
    """Rows that the writer holds, by its heartbeat."""
    board = CompactedTopic(site.settings.tape.bootstrap, topics.HEARTBEATS)
    try:
        beat = board.read_all().get("lake")
    finally:
        board.close()
    return beat["counters"].get("pending_rows") if beat and beat["pid"] == writer.pid else None


def test_verify_says_what_is_wrong(site):
    writer = site.start()
    site.put(0, 100)
    site.await_rows(300)
    writer.stop(grace_s=20)
    with site.catalog.load_table(TRADES).transaction() as transaction:
        transaction.delete("trade_id == 99")
    code, report = site.verified()
    assert code == 1
    assert {one["kind"] for one in report["problems"]} == {"LOST"}
    assert sum(one["count"] for one in report["problems"]) == 3
