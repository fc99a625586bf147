"""A writer between a tape in memory and a real lake, for the tests of pump and verify."""

import threading

from k2.lake.commit import TapeIdentity
from k2.lake.intake import TapeEnd
from k2.lake.pump import Pump
from k2.lake.tables import ensure_tables
from k2.lake.verify import Witnesses, verify
from k2.market.events import Label, Trade
from k2.market.instrument import Instrument
from k2.market.schema import TRADE, avro_schema
from k2.settings import LakeSettings
from k2.tape import topics
from k2.tape.codec import Decoder, encode_trade
from k2.tape.placement import Placement
from tests.fakes.tape import FakeTape
from tests.lake_world import LakeWorld
from tests.trades import NOW_US

SCHEMA_ID = 7
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


def message(trade_id, symbol="BTCUSDT", *, at=NOW_US, price=100, vendor=None):
    """One trade as it is on the tape."""
    label = Label("BINANCE", symbol, symbol.removesuffix("USDT"), "USDT", "crypto", "simulated")
    trade = Trade(label, trade_id, at, at + 1000, price, 5, 0, vendor or {})
    return encode_trade(trade, SCHEMA_ID)


class PumpWorld(LakeWorld):
    """The lake, the tape, and whoever pumps from one to the other."""

    def __init__(self, folder):
        super().__init__(folder)
        self.tape = FakeTape(partitions=8)
        self.schemas = Schemas()
        self.placement = Placement(self.tape.board(topics.PARTITIONS), 0, 2)
        self.home = {each: self.placement.place(each) for each in (BTC, ETH)}
        self.stopping = threading.Event()

    @property
    def identity(self):
        facts = self.tape.admin().facts("trades")
        return TapeIdentity("trades", facts.topic_id, facts.cluster_id, 0, facts.partitions)

    def put(self, *trade_ids, symbol="BTCUSDT", **given):
        """Print trades on the partition of their symbol."""
        partition = self.home[Instrument("BINANCE", symbol)]
        self.tape.append(partition, *(message(one, symbol, **given) for one in trade_ids))
        return partition

    def pump(self, writer_id="w1", *, instance="a", catalog=None, identity=None, letters=None):
        identity = identity or self.identity
        return Pump(
            tape=TapeEnd(
                identity=identity,
                join=lambda assign, revoke: self.tape.joined("lake", instance, assign, revoke),
                facts=lambda: self.tape.admin().facts("trades"),
                decoder=Decoder(self.schemas),
                placement=Placement(self.tape.board(topics.PARTITIONS), 0, 2),
                letters=letters or self.tape.office(),
            ),
            committer=self.committer(writer_id, catalog, identity),
            settings=LakeSettings(),
            clock=self.clock,
            stopping=self.stopping,
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
            "placement": Placement(self.tape.board(topics.PARTITIONS), 0, 2),
            "letters": self.tape.office().read_all,
        }
        return verify(Witnesses(**witnesses | replaced), self.clock, lambda *_: None)
