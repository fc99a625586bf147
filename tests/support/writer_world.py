"""A writer between a tape in memory and a real lake, for the tests of pump and verify."""

import threading
from functools import partial
from itertools import count

from k2.errors import Reason
from k2.lake.iceberg.tables import ensure_tables
from k2.lake.ingest.epoch_transition import AvailableTape, begin_epoch, end_epoch
from k2.lake.ingest.tape_check import WriterTape, identity_of
from k2.lake.ingest.trade_writer import LakeWriter
from k2.lake.verify.verification import VerifySources, verify
from k2.market.events import Label, Trade
from k2.market.fold import FoldState
from k2.market.instrument import Instrument, Priorities
from k2.market.schema import TRADE, avro_schema
from k2.settings import LakeSettings
from k2.tape import topics
from k2.tape.acceptance import Acceptance
from k2.tape.avro.trade_codec import Decoder, encode_trade
from k2.tape.partition_map import PartitionMap
from k2.tape.truncation_check import read_marks
from tests.fakes.tape import FakeTape
from tests.support.lake_world import LakeWorld
from tests.support.trades import NOW_US

SCHEMA_ID = 7
_commits = count()
BTC, ETH = Instrument("BINANCE", "BTCUSDT"), Instrument("BINANCE", "ETHUSDT")


class Schemas:
    """A registry that knows one schema, and can be away."""

    def __init__(self):
        self.known = {SCHEMA_ID: avro_schema(TRADE)}
        self.failure = None

    def schema(self, schema_id):
        if self.failure is not None:
            raise self.failure
        return self.known[schema_id]

    def remembers(self, schema_id):
        return False


def message(trade_id, symbol="BTCUSDT", *, at=NOW_US, received=None, price=100, vendor=None):
    """One trade as it is on the tape."""
    label = Label("BINANCE", symbol, symbol.removesuffix("USDT"), "USDT", "crypto", "simulated")
    received = at + 1000 if received is None else received
    trade = Trade(label, trade_id, at, received, price, 5, 0, vendor or {})
    return encode_trade(trade, SCHEMA_ID)


def pumped(world, writer_id="w1"):
    """All that is on the tape is committed; the writer."""
    pump = world.pump(writer_id)
    pump.step()
    pump.commit()
    return pump


def judged_alone(world, raw):
    """The records of a batch, decoded and checked, whatever the lake holds."""
    acceptance = Acceptance(Decoder(world.schemas), world.placement, world.clock)
    return acceptance.judge(raw, FoldState()).columns


def ended(world, why=Reason.TOPIC_RECREATED):
    """The newest snapshot, after a person ended the epoch."""
    return end_epoch(world.catalog, world.clock, why, f"end-{next(_commits)}")


def begun(world, commit_id=None, catalog=None, tell=lambda states: None):
    """What the next writer does at its start."""
    world.find_homes()
    commit_id = commit_id or f"begin-{next(_commits)}"
    marks = partial(read_marks, world.tape.reader)
    there = AvailableTape(lambda: world.facts, marks, world.placement.place, tell)
    return begin_epoch(catalog or world.catalog, world.clock, there, commit_id)


def kinds(report):
    """What a verification found: kind, count and first offsets of each problem."""
    return {(one["kind"], one["count"], one["offsets"]) for one in report["problems"]}


class PumpWorld(LakeWorld):
    """The lake, the tape, and whoever pumps from one to the other."""

    def __init__(self, folder):
        super().__init__(folder)
        self.tape = FakeTape(partitions=8, clock=self.clock)
        self.schemas = Schemas()
        self.find_homes()
        self.stopping = threading.Event()

    def placed(self):
        """The partition map of the topic that is there."""
        per_tier = len(self.tape.logs) // 4
        return PartitionMap(self.tape.board(topics.PARTITIONS), self.tape.topic_id, per_tier)

    def find_homes(self):
        """Where the symbols belong on the topic that is there."""
        self.placement = self.placed()
        self.home = {each: self.placement.place(each) for each in (BTC, ETH)}

    def begin_epoch(self, **given):
        """The topic is made again, and the lake goes on with it, by the word of a person."""
        self.tape.recreate(**given)
        ended(self)
        return begun(self)

    def tiers(self):
        """Of each partition."""
        return Priorities().of_partitions(self.placement.known(), len(self.tape.logs) // 4)

    @property
    def facts(self):
        return self.tape.admin().facts("trades")

    @property
    def epoch(self):
        newest = self.snapshots.current()
        return newest.positions.epoch if newest else 0

    @property
    def identity(self):
        return identity_of(self.facts, self.epoch)

    def put(self, *trade_ids, symbol="BTCUSDT", **given):
        """Print trades on the partition of their symbol."""
        partition = self.home[Instrument("BINANCE", symbol)]
        self.tape.append(partition, *(message(one, symbol, **given) for one in trade_ids))
        return partition

    def pump(
        self,
        writer_id="w1",
        *,
        instance="a",
        catalog=None,
        identity=None,
        letters=None,
        orders=None,
        **lake,
    ):
        identity = identity or self.identity
        return LakeWriter(
            tape=WriterTape(
                identity=identity,
                join=lambda assign, revoke: self.tape.joined("lake", instance, assign, revoke),
                facts=lambda: self.tape.admin().facts("trades"),
                ends=lambda: self.tape.admin().log_ends("trades", identity.partitions),
                tiers=self.tiers,
                decoder=Decoder(self.schemas),
                placement=self.placed(),
                letters=letters or self.tape.office(),
            ),
            committer=self.committer(writer_id, catalog, identity),
            settings=LakeSettings(**lake),
            clock=self.clock,
            stopping=self.stopping,
            orders=orders,
        )

    def ids(self, symbol="BTCUSDT"):
        """Trade ids of a symbol in the lake."""
        return [row[1] for row in self.rows("symbol", "trade_id") if row[0] == symbol]

    def verified(self, **replaced):
        """The report of a verification."""
        witnesses = {
            "snapshots": self.snapshots,
            "io": ensure_tables(self.catalog).io,
            "identity": self.identity,
            "facts": lambda: self.tape.admin().facts("trades"),
            "replay": self.tape.reader,
            "decoder": Decoder(self.schemas),
            "placement": self.placed(),
            "letters": self.tape.office().read_all,
        }
        return verify(VerifySources(**witnesses | replaced), self.clock, lambda *_: None)
