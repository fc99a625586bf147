"""Poison of every kind between good neighbours, on a real Kafka: exactly the poison is dead."""

from decimal import Decimal
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Producer

from k2 import limits
from k2.clock import SystemClock
from k2.lake.commit.event_files import view_of
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT
from k2.market.events import DAY_US, TIME_MAX_US, Fault, Label, Trade
from k2.market.instrument import Instrument
from k2.market.schema import TRADE, avro_schema
from k2.tape.avro.trade_codec import encode_trade
from k2.tape.tape_clients import TapeClients
from k2.v1 import dead_letter_service_pb2 as pb
from servers.processes.control import dead_letter_service
from tests.integration.lake.test_writer_process import Site
from tests.support.eventually import eventually
from tests.support.gate import Gate
from tests.support.messages import written
from tests.support.trades import NOW_US

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

BTC, ETH, SOL = "BTCUSDT", "ETHUSDT", "SOLUSDT"
FLOOD = 2 * limits.SCHEMA_LOOKUPS_PER_BATCH + 1
KEY = b"BINANCE:BTCUSDT"


class PoisonSite(Site):
    """The writer's site, and what is put on the tape by hand."""

    def __init__(self, folder, broker, registry):
        super().__init__(folder, broker, registry)
        self.number = 0
        self.good = []
        self.large = Producer({"bootstrap.servers": broker, "message.max.bytes": 4 * limits.MIB})

    def message(self, symbol=BTC, **changes):
        """The next trade as its message."""
        self.number += 1
        number = self.number
        label = Label("BINANCE", symbol, symbol[:-4], "USDT", "crypto", "simulated")
        trade = Trade(label, number, NOW_US + number, NOW_US + number + 500, 100, 7, 0, {})
        return encode_trade(trade._replace(**changes), self.schema_id)

    def neighbour(self, key=KEY, symbol=BTC):
        """Put a good trade; its id is among `good`."""
        message = self.message(symbol)
        self.good.append(self.number)
        return self.append(message, key, symbol)

    def append(self, value, key=KEY, symbol=BTC):
        """Put a record on the symbol's partition; its offset."""
        offsets = []
        self.large.produce(
            self.settings.tape.topic, value, key, self.home[symbol],
            on_delivery=lambda error, told: offsets.append(error or told.offset()),
        )  # fmt: skip
        assert self.large.flush(30) == 0
        assert isinstance(offsets[0], int), offsets[0]
        return offsets[0]

    def close(self):
        self.large.close()
        super().close()


@pytest.fixture
def gate(registry):
    made = Gate(urlsplit(registry).port)
    yield made
    made.refuse()


@pytest.fixture
def site(tmp_path, broker, registry, gate):
    made = PoisonSite(tmp_path, broker, registry.replace(str(gate.target), str(gate.port)))
    yield made
    made.close()


def of_another_type(site):
    """A message that says a trade id is a text, by a schema the registry knows."""
    other = avro_schema(TRADE) | {"name": "Other"}
    other["fields"] = [
        field | {"type": "string"} if field["name"] == "trade_id" else field
        for field in other["fields"]
    ]
    schema_id = site.schemas.register(f"{site.settings.tape.topic}.other-value", other)
    values = {
        "exchange": "BINANCE", "symbol": BTC, "base": "BTC", "quote": "USDT",
        "asset_class": "crypto", "source": "simulated", "trade_id": "5", "event_time": NOW_US,
        "receive_time": NOW_US, "price": Decimal(1), "quantity": Decimal(1), "side": "BUY",
        "vendor_data": {},
    }  # fmt: skip
    return written(values, other, schema_id)


def of_schema(number, message):
    """A message that names a schema which no registry knows."""
    return b"\x00" + (0x7F000000 + number).to_bytes(4, "big") + message[5:]


def poisons(site):
    """Every kind of poison: its bytes and the fault they have; one good trade is there."""
    good = site.message()
    side = good[:-2]
    flood = {f"unknown schema id {one}": of_schema(one, good) for one in range(FLOOD)}
    return {name: (value, Fault.UNKNOWN_SCHEMA) for name, value in flood.items()} | {
        "wrong magic byte": (b"\x01" + good[1:], Fault.BAD_MAGIC),
        "not a message at all": (b"{}", Fault.BAD_MAGIC),
        "only a header": (good[:4], Fault.TRUNCATED),
        "unknown schema id": (b"\x00\x7f\xff\xff\xff" + good[5:], Fault.UNKNOWN_SCHEMA),
        "wrong type": (of_another_type(site), Fault.UNKNOWN_SCHEMA),
        "truncated": (good[:-3], Fault.TRUNCATED),
        "trailing bytes": (good + b"\x00", Fault.TRAILING),
        "a side that is none": (side + b"\x06\x00", Fault.BAD_VALUE),
        "a text that is none": (good.replace(b"USDT", b"\xff\xfe\xfd\xfc"), Fault.BAD_VALUE),
        "bad decimal: too many digits": (site.message(price=10**18), Fault.OUT_OF_RANGE),
        "bad decimal: negative": (site.message(quantity=-1), Fault.OUT_OF_RANGE),
        "a time that is none": (site.message(event_time_us=0), Fault.OUT_OF_RANGE),
        "a day after it was appended": (
            site.message(event_time_us=SystemClock().now_us() + 2 * DAY_US), Fault.OUT_OF_RANGE,
        ),
        "of the year 10000": (site.message(event_time_us=TIME_MAX_US + 1), Fault.OUT_OF_RANGE),
        "received then": (site.message(receive_time_us=TIME_MAX_US + 1), Fault.OUT_OF_RANGE),
        "an id of another life": (
            site.message(trade_id=site.good[0], event_time_us=NOW_US + DAY_US), Fault.REUSED_ID,
        ),
        "oversize": (good + bytes(limits.RECORD_BYTES_MAX), Fault.OVERSIZE),
        "no value": (None, Fault.NULL_VALUE),
        "a symbol that nobody placed": (site.message(SOL), Fault.WRONG_PARTITION),
    }  # fmt: skip


def dead(site):
    """Rows of the table of letters that are of this topic, by offset."""
    view = view_of(site.catalog, DEAD_LETTERS_LAYOUT)
    if view is None:
        return {}
    ours = [("origin", "==", site.settings.tape.topic)]
    rows = [*view.newest(["origin_offset", "origin_partition", "fault", "value"], ours)]
    found = {row["origin_offset"]: row for row in rows}
    assert len(found) == len(rows), "a letter is there twice"
    return found


def test_exactly_the_poison_is_dead_and_repaired_it_lives(site, gate):
    put = {}
    site.neighbour()
    for name, (value, fault) in poisons(site).items():
        site.neighbour()
        put[site.append(value)] = (name, value, fault)
    site.neighbour()
    site.neighbour(key=None)  # a key decides nothing: the value says whose trade it is
    site.neighbour(key=b"\xff")
    writer = site.start()
    site.await_rows(len(site.good))
    eventually(lambda: len(dead(site)) == len(put), 30)
    told = {
        offset: (put[offset][0], row["value"], Fault[row["fault"]])
        for offset, row in dead(site).items()
    }
    assert told == put
    assert {row["origin_partition"] for row in dead(site).values()} == {site.home[BTC]}
    assert sorted(ids(site)) == site.good
    without_a_registry(site, gate, put)
    replayed(site, {name: offset for offset, (name, _, _) in put.items()})
    site.await_rows(len(site.good) + 2)
    assert writer.stop(grace_s=20) == 0
    code, report = site.verified()
    assert (code, report["problems"], report["letters_waiting"]) == (0, [], 0)
    assert (report["dead"], report["accepted"]) == (len(put), len(site.good) + 2)
    assert report["letter_rows"] >= len(put)


def without_a_registry(site, gate, put):
    """What a running writer does with one more schema id while the registry is away."""
    gate.refuse()
    site.neighbour()
    value = of_schema(FLOOD, site.message())
    put[site.append(value)] = ("nobody can be asked", value, Fault.UNKNOWN_SCHEMA)
    site.neighbour()
    site.neighbour(symbol=ETH)
    site.await_rows(len(site.good))
    assert sorted(ids(site)) == site.good
    eventually(lambda: len(dead(site)) == len(put), 30)
    assert dead(site)[max(put)]["fault"] == "UNKNOWN_SCHEMA"
    gate.open()


def ids(site):
    rows = site.catalog.load_table(("market", "trades")).scan().to_arrow()
    return rows["trade_id"].to_pylist()


ASKING = SimpleNamespace(is_active=lambda: True)  # a caller that is still there


def replayed(site, offsets):
    """Replay one letter as it is, once its symbol is placed, and one repaired; refuse a third."""
    with TapeClients.open(site.settings, SystemClock()) as clients:
        clients.partition_map().place(Instrument("BINANCE", SOL))
    topic, partition = site.settings.tape.topic, site.home[BTC]

    def name(kind):
        return f"{topic}/0/{partition}/{offsets[kind]}"

    def state(kind, **repair):
        request = pb.ReplayDeadLettersRequest(names=[name(kind)], **repair)
        (outcome,) = service.ReplayDeadLetters(request, ASKING).outcomes
        return pb.ReplayState.Name(outcome.state).removeprefix("REPLAY_STATE_"), outcome.fault

    with TapeClients.open(site.settings, SystemClock()) as clients:
        service = dead_letter_service(site.settings, SystemClock(), site.catalog, clients)
        assert state("a symbol that nobody placed") == ("SENT", "")
        assert state("a symbol that nobody placed") == ("REPLAYED_BEFORE", "")
        assert state("trailing bytes") == ("REFUSED", "TRAILING")
        shown = service.GetDeadLetter(pb.GetDeadLetterRequest(name=name("trailing bytes")), None)
        assert state("trailing bytes", value=shown.value[:-1]) == ("SENT", "")
        listed = service.ListDeadLetters(pb.ListDeadLettersRequest(origin=topic), None).letters
        assert {each.name for each in listed} == {name(kind) for kind in offsets}
        assert sum(each.HasField("replay_time") for each in listed) == 2
