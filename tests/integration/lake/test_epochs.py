"""Tapes that no longer fit the lake, on a real Kafka: refused by name, and the way out."""

import json
import shutil
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager
from itertools import count

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from k2.clock import SystemClock
from k2.lake.catalog import open_catalog
from k2.lake.commit import Committer, PartitionBatch
from k2.lake.intake import identity_of
from k2.lake.snapshot import SnapshotReader
from k2.lake.tables import TRADES
from k2.market.events import Label, Trade
from k2.market.gaps import Cause, GapState
from k2.market.instrument import Instrument
from k2.market.offsets import ReadToken
from k2.query.execute import Executor
from k2.query.request import Consistency, TradesRequest
from k2.query.sides import LakeSide
from k2.query.view import QueryView
from k2.tape import topics
from k2.tape.board import Board
from k2.tape.codec import Decoder, encode_trade
from k2.tape.consumer import TapeReader
from k2.tape.gap_log import GapLog
from k2.tape.placement import Placement
from k2.tape.registry import SchemaStore
from k2.tape.tail import Tail
from k2.tape.topics import TapeAdmin
from servers.local import broker as kafka
from servers.local.process import Child
from tests.conftest import free_ports, run
from tests.eventually import eventually
from tests.integration.servers.wire import deployed, environment, running
from tests.trades import NOW_US

SYMBOLS = ("BTCUSDT", "ETHUSDT")
_numbers = count()

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


class Site:
    """A topic, a lake, and what happens to them."""

    def __init__(self, folder, broker, registry):
        topic = f"lake.epochs.{next(_numbers)}"
        self.settings, self.schema_id = deployed(broker, registry, folder, topic)

    @property
    def tape(self):
        return self.settings.tape

    def move(self, **changes):
        """Other settings of the tape."""
        tape = self.tape.model_copy(update=changes)
        self.settings = self.settings.model_copy(update={"tape": tape})

    def deploy(self):
        schemas = SchemaStore(self.tape.registry_url, self.settings.data_dir / "schemas")
        self.schema_id = topics.deploy(self.tape, schemas)

    def homes(self):
        with closing(Board(self.tape.bootstrap, topics.PARTITIONS)) as board:
            placement = Placement(board, topics.topic_id(self.tape), self.tape.partitions_per_tier)
            return {one: placement.place(Instrument("BINANCE", one)) for one in SYMBOLS}

    def put(self, ids, homes=None, patience_s=30):
        """Trades of every symbol, acknowledged when this returns."""
        homes = homes or self.homes()
        with closing(Producer({"bootstrap.servers": self.tape.bootstrap})) as producer:
            for number in ids:
                for symbol in SYMBOLS:
                    label = Label("BINANCE", symbol, symbol[:-4], "USDT", "crypto", "simulated")
                    at = NOW_US + number * 1000
                    trade = Trade(label, number, at, at + 500, 100 + number, 7, number & 1, {})
                    message = encode_trade(trade, self.schema_id)
                    producer.produce(self.tape.topic, message, symbol, homes[symbol])
            assert producer.flush(patience_s) == 0

    def promise(self, number):
        """Publish, as a feed does, that every symbol is acknowledged up to this id."""
        with closing(Board(self.tape.bootstrap, topics.HIGH_WATER)) as board:
            for symbol in SYMBOLS:
                board.put(f"BINANCE:{symbol}", {"trade_id": number}, wait_s=10)

    def lost(self):
        """Symbols and ids that the ledger says an epoch lost."""
        schemas = SchemaStore(self.tape.registry_url, self.settings.data_dir / "schemas")
        with closing(GapLog(self.tape.bootstrap, schemas)) as log:
            events = log.advance()
        return [
            (event.instrument.symbol, event.first_id, event.last_id)
            for event in events
            if event.cause is Cause.EPOCH and event.state is GapState.OPEN
        ]

    def facts(self):
        with closing(TapeAdmin(self.tape.bootstrap)) as admin:
            return admin.facts(self.tape.topic)

    def newest(self):
        with closing(open_catalog(self.settings, SystemClock())) as catalog:
            return SnapshotReader(catalog).current()

    def write(self, rows):
        """Run the writer until the lake holds so many rows."""
        with running("lake", self.settings, K2_LAKE__COMMIT_INTERVAL_S="0.3"):
            eventually(lambda: (newest := self.newest()) and newest.rows_total >= rows, 60)

    def ran(self, name, *arguments):
        """Exit code and the last line of a process that ends by itself."""
        done = subprocess.run(
            [sys.executable, "-m", "servers", name, *arguments],
            env=environment(self.settings),
            check=False,
            capture_output=True,
            text=True,
        )
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    def in_lake(self):
        """(symbol, trade id) of every row, sorted."""
        with closing(open_catalog(self.settings, SystemClock())) as catalog:
            rows = catalog.load_table(TRADES).scan().to_arrow()
        found = zip(rows["symbol"].to_pylist(), rows["trade_id"].to_pylist(), strict=True)
        return sorted(found)

    @contextmanager
    def view(self):
        """What a query server has, in this process: asks for rows as tuples."""
        tape, clock, facts = self.tape, SystemClock(), self.facts()
        with ExitStack() as stack:
            admin = stack.enter_context(closing(TapeAdmin(tape.bootstrap)))
            board = stack.enter_context(closing(Board(tape.bootstrap, topics.PARTITIONS)))
            catalog = stack.enter_context(closing(open_catalog(self.settings, SystemClock())))
            placement = Placement(board, facts.topic_id, tape.partitions_per_tier)
            schemas = SchemaStore(tape.registry_url, self.settings.data_dir / "schemas")
            tail = Tail(
                reader_factory=lambda start: TapeReader.assigned(tape, start),
                decoder=Decoder(schemas),
                placement=placement,
                clock=clock,
            )
            view = QueryView(
                lake=LakeSide(SnapshotReader(catalog), facts.partitions, facts.topic_id),
                tail=tail,
                ends=lambda: admin.log_ends(tape.topic, facts.partitions),
                placement=placement,
                clock=clock,
                source="simulated",
            )
            executor = stack.enter_context(
                closing(
                    Executor(
                        clock=clock,
                        warehouse=self.settings.warehouse,
                        temp_dir=self.settings.data_dir / "tmp",
                    )
                )
            )
            view.start()
            stack.callback(view.close)

            def ask(**fields):
                planned = view.plan(TradesRequest(**fields))
                opened = view.open(planned.request, planned.snapshot_id, planned.end)
                return [row for batch in executor.run(opened) for row in batch.to_pylist()]

            yield ask


def remake(site):
    admin = AdminClient({"bootstrap.servers": site.tape.bootstrap})
    admin.delete_topics([site.tape.topic])[site.tape.topic].result(30)

    def gone():
        return site.tape.topic not in admin.list_topics(timeout=10).topics

    eventually(gone, 30)
    site.deploy()


def recreated(site, _):
    """Only new trades are on the new topic."""
    remake(site)
    return "TOPIC_RECREATED"


def repartitioned(site, _):
    """The same with another partition count in the settings."""
    site.move(partitions_per_tier=2)
    remake(site)
    return "PARTITIONS_CHANGED"


def overtaken(site, _):
    """Retention removes what was never committed."""
    admin = AdminClient({"bootstrap.servers": site.tape.bootstrap})
    end = site.facts().log_end
    homes = {*site.homes().values()}
    removed = [TopicPartition(site.tape.topic, home, end[home]) for home in homes]
    for future in admin.delete_records(removed).values():
        future.result(30)
    return "RETENTION_OVERTOOK"


def truncated(site, _):
    """The broker has lost the last records that the lake went past."""
    with closing(open_catalog(site.settings, SystemClock())) as catalog:
        identity = identity_of(site.facts(), site.newest().positions.epoch)
        writer = Committer(catalog=catalog, clock=SystemClock(), tape=identity, writer_id="w")
        positions, states, _ = writer.base()
        home = site.homes()["BTCUSDT"]
        past = site.facts().log_end[home] + 5
        writer.commit([PartitionBatch(home, positions[home], past, (), states[home])])
    return "TAPE_TRUNCATED"


def moved(site, other_broker):
    """Another cluster, as empty as a new broker's folder."""
    site.move(bootstrap=other_broker())
    site.deploy()
    return "CLUSTER_CHANGED"


@pytest.fixture
def other_broker(tmp_path, artifacts):
    """Starts another Kafka when it is called; its bootstrap address."""
    with ExitStack() as stack:

        def start():
            ports = kafka.BrokerPorts(*free_ports(2))
            folder = tmp_path / "other"
            command = kafka.prepare(folder, ports, artifacts.jars("kafka"), "6" * 32)
            address = kafka.bootstrap(ports)
            runs = contextmanager(run)(
                command, folder / "log", lambda: kafka.answers(ports), address
            )
            return stack.enter_context(runs)

        yield start


@pytest.mark.parametrize("misfortune", [recreated, repartitioned, overtaken, truncated, moved])
def test_a_tape_that_does_not_fit_is_refused_and_a_new_epoch_goes_on(
    tmp_path, broker, registry, misfortune, other_broker
):
    site = Site(tmp_path, broker, registry)
    site.put(range(50))
    site.write(rows=100)
    before = site.newest()
    token = ReadToken(before.topic_id, before.positions)
    as_of = {"consistency": Consistency.AS_OF, "as_of_snapshot": before.snapshot_id}
    of_token = {"consistency": Consistency.AS_OF, "as_of_token": token}
    with site.view() as ask:
        held = ask(**as_of)
        assert ask(**of_token) == held
    assert len(held) == 100
    site.put(range(50, 60))  # acknowledged, and not committed
    site.promise(59)
    told = len(site.lost())
    reason = misfortune(site, other_broker)
    survived = misfortune is truncated

    for name in ("lake", "query"):
        code, said = site.ran(name)
        assert (code, said["event"], said["reason"]) == (6, "failed", reason)
        assert "k2 tape new-epoch" in said["message"]
    code, said = site.ran("new-epoch", "--yes")
    assert (code, said["ended"], said["epoch"], said["reason"]) == (0, True, 0, reason)
    assert said["lost"] == (20 if misfortune is overtaken else None)

    site.put(range(45, 55))  # in part what the lake has, in part what was lost
    site.put(range(70, 80))
    kept = {*range(55), *range(70, 80)} | ({*range(50, 60)} if survived else set())
    site.write(rows=2 * len(kept))
    site.put(range(75, 90))  # of the tail
    whole = sorted(kept | {*range(75, 90)})

    assert site.in_lake() == sorted((symbol, number) for symbol in SYMBOLS for number in kept)
    promised = [(symbol, 50, 59) for symbol in SYMBOLS] if misfortune is not moved else []
    assert site.lost()[told if promised else 0 :] == promised
    newest = site.newest()
    assert newest.positions.epoch == 1
    assert [end.epoch for end in newest.epochs.past] == [0]
    with site.view() as ask:
        for symbol in SYMBOLS:
            assert [row["trade_id"] for row in ask(symbols=(symbol,))] == whole
        assert ask(**as_of) == held
        assert ask(**of_token) == held
    code, report = site.ran("verify")
    assert (code, report["problems"], report["epoch"]) == (0, [], 1)
    assert report["rows_of_earlier_epochs"] == 100
    lost = {(hole["first_id"], hole["last_id"]) for hole in report["holes"]}
    assert lost == {(60 if survived else 55, 69)}


def test_a_restored_older_lake_goes_on_where_it_stands(tmp_path, broker, registry):
    site = Site(tmp_path, broker, registry)
    site.put(range(10))
    site.write(rows=20)
    older = tmp_path / "older"
    shutil.copytree(tmp_path / "lake", older)
    site.put(range(10, 30))
    site.write(rows=60)
    shutil.rmtree(tmp_path / "lake")
    older.rename(tmp_path / "lake")
    assert site.newest().rows_total == 20
    site.write(rows=60)
    assert site.in_lake() == sorted((symbol, one) for symbol in SYMBOLS for one in range(30))
    code, report = site.ran("verify")
    assert (code, report["problems"], report["epoch"]) == (0, [], 0)


class OwnBroker:
    """A Kafka that can lose power."""

    def __init__(self, folder, artifacts):
        self.ports = kafka.BrokerPorts(*free_ports(2))
        self.folder = folder
        self.command = kafka.prepare(folder, self.ports, artifacts.jars("kafka"), "7" * 32)
        self.address = kafka.bootstrap(self.ports)
        self.child = None
        self.start()

    def start(self):
        self.child = Child(self.command, self.folder / "log")
        eventually(lambda: kafka.answers(self.ports), 60)

    def lose_power(self, topic, partition):
        """It ends at once, and half of what it wrote of a partition never reached the disk."""
        self.child.kill()
        (log,) = (self.folder / "data" / f"{topic}-{partition}").glob("*.log")
        with log.open("r+b") as file:
            file.truncate(log.stat().st_size // 2)

    def close(self):
        self.child.stop(grace_s=5)


def test_a_broker_that_lost_records_and_got_others_is_known(tmp_path, registry, artifacts):
    with closing(OwnBroker(tmp_path / "kafka", artifacts)) as broker:
        site = Site(tmp_path / "k2", broker.address, registry)
        for first in range(0, 50, 10):  # some batches
            site.put(range(first, first + 10))
        site.write(rows=100)
        home = site.homes()["BTCUSDT"]
        before = site.facts().log_end[home]
        broker.lose_power(site.tape.topic, home)
        broker.start()
        kept = site.facts().log_end[home]
        assert 0 < kept < before
        site.put(range(100, 150))  # above every position again
        assert site.facts().log_end[home] > before
        code, said = site.ran("lake")
        assert (code, said["reason"]) == (6, "TAPE_TRUNCATED")
        assert "filled again" in said["message"]
        code, said = site.ran("new-epoch", "--yes")
        assert (code, said["ended"], said["reason"]) == (0, True, "TAPE_TRUNCATED")
        site.write(rows=200)
        ids = [*range(50), *range(100, 150)]
        assert site.in_lake() == sorted((symbol, one) for symbol in SYMBOLS for one in ids)
        code, report = site.ran("verify")
        assert (code, report["problems"]) == (0, [])


def test_a_query_server_does_not_follow_the_lake_into_another_epoch(tmp_path, broker, registry):
    site = Site(tmp_path, broker, registry)
    site.put(range(5))
    site.write(rows=10)
    server = subprocess.Popen(
        [sys.executable, "-m", "servers", "query"],
        env=environment(site.settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert json.loads(server.stdout.readline())["event"] == "serving"
        assert site.ran("new-epoch", "--force")[1]["ended"]
        site.write(rows=10)  # begins the next epoch
        said = [json.loads(line) for line in server.stdout]
        assert (server.wait(30), said[-1]["reason"]) == (6, "EPOCH_ENDED")
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    code, report = site.ran("verify")
    assert (code, report["problems"], report["epoch"]) == (0, [], 1)


def test_a_topic_that_is_made_again_under_a_running_writer_ends_it(tmp_path, broker, registry):
    site = Site(tmp_path, broker, registry)
    site.put(range(10))
    writer = subprocess.Popen(
        [sys.executable, "-m", "servers", "lake"],
        env=environment(site.settings, K2_LAKE__COMMIT_INTERVAL_S="0.3"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert json.loads(writer.stdout.readline())["event"] == "serving"
        eventually(lambda: (newest := site.newest()) and newest.rows_total == 20, 60)
        remake(site)
        site.put(range(20, 50))  # above the reader's position: it goes on there
        said = [json.loads(line) for line in writer.stdout]
        assert (writer.wait(60), said[-1]["reason"]) == (6, "TOPIC_RECREATED")
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    assert site.newest().rows_total == 20
