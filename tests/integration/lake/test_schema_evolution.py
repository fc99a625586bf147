"""A schema evolves while writer and tail run: what is compatible flows, what is not is refused."""

import copy

import numpy as np
import pytest

from k2.clock import ManualClock, SystemClock
from k2.errors import Data, Reason
from k2.lake.iceberg.tables import TRADES
from k2.market import schema
from k2.market.fold import FoldState
from k2.market.instrument import Instrument
from k2.market.offsets import OffsetVector, TimeRange
from k2.tail.chunk import TailRows
from k2.tail.tail import Tail
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder, encode_trade
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.consumer import TapeReader
from k2.tape.partition_map import PartitionMap
from k2.tape.schema_registry import SchemaStore
from tests.integration.lake.test_writer_process import SYMBOLS, Site
from tests.support.eventually import eventually
from tests.support.messages import record, trade, written
from tests.support.trades import NOW_US

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

NEWER = copy.deepcopy(schema.avro_schema(schema.TRADE))
NEWER["fields"][3:3] = [{"name": "venue_note", "type": ["null", "string"], "default": None}]
NEWER["fields"].append(
    {"name": "fees", "type": {"type": "array", "items": "double"}, "default": []}
)
# Compatible to a registry, which does not look at what numbers mean; not to K2, which does.
OTHER_SCALE = copy.deepcopy(schema.avro_schema(schema.TRADE))
OTHER_SCALE["fields"][9]["type"]["scale"] = 6


@pytest.fixture
def site(tmp_path, broker, registry):
    site = Site(tmp_path, broker, registry)
    yield site
    site.close()


@pytest.fixture
def tail(site):
    """The tail of a query server that was started before any of this."""
    tape = site.settings.tape
    board = CompactedTopic(tape.bootstrap, topics.PARTITIONS)
    made = Tail(
        reader_factory=lambda start: TapeReader.assigned(tape, start),
        decoder=Decoder(
            SchemaStore(tape.registry_url, site.folder / "tail-schemas", SystemClock())
        ),
        placement=PartitionMap(board, topics.topic_id(tape), tape.partitions_per_tier),
        clock=SystemClock(),
    )
    partitions = topics.partition_count(tape)
    made.start(OffsetVector.zero(0, partitions), dict.fromkeys(range(partitions), FoldState()))
    yield made
    made.close()
    board.close()


def made(symbol, number):
    at = NOW_US + number * 1000
    label = trade().label._replace(symbol=symbol, base=symbol[:-4])
    return trade(label=label, trade_id=number, event_time_us=at, receive_time_us=at + 500)


def put(site, numbers, *, newer_id):
    """Each number once; the odd ones by a producer that knows more than K2."""
    for number in numbers:
        for symbol in SYMBOLS:
            one = made(symbol, number)
            if number % 2:
                more = {"venue_note": "late" if number % 3 else None, "fees": [0.1] * (number % 5)}
                message = written(record(one) | more, NEWER, newer_id)
            else:
                message = encode_trade(one, site.schema_id)
            site.producer.produce(site.settings.tape.topic, message, symbol, site.home[symbol])
        site.producer.poll(0)
    assert site.producer.flush(30) == 0


def ids_of(tail):
    view = tail.view({Instrument("BINANCE", symbol) for symbol in SYMBOLS})
    rows = TailRows([one.cut(0, 2**62) for one in view.held.values()], TimeRange())
    return np.sort(rows.column("trade_id")).tolist()


def test_a_new_field_flows_without_a_restart_and_a_wrong_scale_is_a_dead_letter(site, tail):
    writer = site.start()
    put(site, range(0, 200, 2), newer_id=None)
    site.await_rows(300)
    eventually(lambda: len(ids_of(tail)) == 300, 30)

    producer = SchemaStore(
        site.settings.tape.registry_url, site.folder / "producer-schemas", ManualClock()
    )
    newer_id = producer.register(topics.subject(site.settings.tape.topic), NEWER)
    assert newer_id != site.schema_id
    put(site, range(200, 1200), newer_id=newer_id)  # old and new ones in one batch
    site.await_rows(3300)
    numbers = [*range(0, 200, 2), *range(200, 1200)]
    eventually(lambda: ids_of(tail) == sorted(numbers * len(SYMBOLS)), 30, 0.1)

    other_id = producer.register(topics.subject(site.settings.tape.topic), OTHER_SCALE)
    wrong = encode_trade(made("BTCUSDT", 1200), other_id)  # by a factor of a hundred
    good = encode_trade(made("BTCUSDT", 1201), site.schema_id)
    for message in (wrong, good):
        site.producer.produce(site.settings.tape.topic, message, "", site.home["BTCUSDT"])
    assert site.producer.flush(30) == 0
    site.await_rows(3301)
    eventually(lambda: ids_of(tail) == sorted([*numbers * len(SYMBOLS), 1201]), 30, 0.1)

    assert writer.exit_code() is None
    assert writer.stop(grace_s=20) == 0
    rows = site.catalog.load_table(TRADES).scan().to_arrow()
    assert rows.schema.names == list(schema.TRADE.columns)
    found = zip(rows["symbol"].to_pylist(), rows["trade_id"].to_pylist(), strict=True)
    whole = [(symbol, number) for symbol in SYMBOLS for number in numbers]
    assert sorted(found) == sorted([*whole, ("BTCUSDT", 1201)])
    assert set(rows["price"].to_pylist()) == {record(trade())["price"]}
    code, report = site.verified()
    assert (code, report["ok"], report["dead"]) == (0, True, 1)


def test_a_schema_that_running_readers_cannot_read_is_refused_at_registration(site):
    producer = SchemaStore(
        site.settings.tape.registry_url, site.folder / "producer-schemas", ManualClock()
    )
    subject = topics.subject(site.settings.tape.topic)
    without_price = copy.deepcopy(schema.avro_schema(schema.TRADE))
    del without_price["fields"][9]
    with pytest.raises(Data) as caught:
        producer.register(subject, without_price)
    assert caught.value.reason is Reason.SCHEMA_CONFLICT
    assert subject in caught.value.message
