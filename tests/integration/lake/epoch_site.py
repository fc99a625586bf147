"""A topic and a lake on real servers, and all that happens to them when an epoch ends."""

import json
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager
from itertools import count

from confluent_kafka import Producer

from k2.clock import SystemClock
from k2.lake.iceberg.catalog import open_catalog
from k2.lake.iceberg.snapshot import SnapshotReader
from k2.lake.iceberg.tables import TRADES
from k2.market.events import Label, Trade
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapState
from k2.query.execute import Executor
from k2.query.lake_snapshots import LakeSide
from k2.query.request import TradesRequest
from k2.query.view import QueryView
from k2.tail.tail import Tail
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder, encode_trade
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.consumer import TapeReader
from k2.tape.gap_topic import GapLog
from k2.tape.partition_map import PartitionMap
from k2.tape.schema_registry import SchemaStore
from k2.tape.topics import TapeAdmin
from tests.fakes.coverage import FakeCoverage
from tests.integration.servers.wire import deployed, environment, running
from tests.support.commanded import commanded
from tests.support.eventually import eventually
from tests.support.trades import NOW_US

SYMBOLS = ("BTCUSDT", "ETHUSDT")
ROWLESS = "ROWLESSUSDT"
_numbers = count()


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
        schemas = SchemaStore(
            self.tape.registry_url, self.settings.data_dir / "schemas", SystemClock()
        )
        self.schema_id = topics.deploy(self.tape, schemas)

    def homes(self):
        with closing(CompactedTopic(self.tape.bootstrap, topics.PARTITIONS)) as board:
            placement = PartitionMap(
                board, topics.topic_id(self.tape), self.tape.partitions_per_tier
            )
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
        """Publish, as a feed does, that every symbol is acknowledged up to this id.

        So is a symbol of which the lake has no row, from id 5 on.
        """
        with closing(CompactedTopic(self.tape.bootstrap, topics.COVERAGE)) as board:
            for symbol in SYMBOLS:
                board.put(f"BINANCE:{symbol}", {"trade_id": number}, wait_s=10)
            board.put(f"BINANCE:{ROWLESS}", {"began_after": 4, "trade_id": number}, wait_s=10)

    def lost(self):
        """Symbols of the site and ids that the ledger says an epoch lost."""
        schemas = SchemaStore(
            self.tape.registry_url, self.settings.data_dir / "schemas", SystemClock()
        )
        with closing(GapLog(self.tape.bootstrap, schemas)) as log:
            events = log.advance()
        return [
            (event.instrument.symbol, event.first_id, event.last_id)
            for event in events
            if event.cause is Cause.EPOCH
            and event.state is GapState.OPEN
            and event.instrument.exchange == "BINANCE"  # other tests of this broker have others
            and event.instrument.symbol in (*SYMBOLS, ROWLESS)
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
            self.await_rows(rows)

    def await_rows(self, rows):
        """Wait until the lake holds so many rows, at least."""
        with closing(open_catalog(self.settings, SystemClock())) as catalog:
            reader = SnapshotReader(catalog)

            def held():
                newest = reader.current()
                return newest is not None and newest.rows_total >= rows

            eventually(held, 60, 0.1)

    def ran(self, *names):
        """Exit code and last line of processes that end by themselves, started together."""
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "servers", name],
                env=environment(self.settings),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for name in names
        ]
        said = [process.communicate()[0].splitlines()[-1] for process in started]
        codes = [process.returncode for process in started]
        return [*zip(codes, map(json.loads, said), strict=True)]

    def commanded(self, name, *arguments):
        """Exit code and last word of a command."""
        return commanded(self.settings, name, *arguments)

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
            board = stack.enter_context(closing(CompactedTopic(tape.bootstrap, topics.PARTITIONS)))
            catalog = stack.enter_context(closing(open_catalog(self.settings, SystemClock())))
            placement = PartitionMap(board, facts.topic_id, tape.partitions_per_tier)
            schemas = SchemaStore(
                tape.registry_url, self.settings.data_dir / "schemas", SystemClock()
            )
            tail = Tail(
                reader_factory=lambda start: TapeReader.assigned(tape, start),
                decoder=Decoder(schemas),
                placement=placement,
                clock=clock,
            )
            view = QueryView(
                lake=LakeSide(SnapshotReader(catalog), facts.partitions, facts.topic_id),
                tail=tail,
                coverage=FakeCoverage(lambda: admin.log_ends(tape.topic, facts.partitions)),
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
