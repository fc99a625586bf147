"""The feed as a process, between a scripted venue and a real Kafka: kills, restarts, garbage."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from itertools import count

import pytest

from k2 import settings as k2_settings
from k2.clock import SystemClock
from k2.feed.recording import read_frames
from k2.settings import TapeSettings
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.consumer import TapeReader
from k2.tape.dead_letter_topic import DeadLetterTopic
from k2.tape.schema_registry import SchemaStore
from servers.heartbeat import read_beats
from tests.fakes.scripted_venue import FakeVenue, frame
from tests.support.eventually import eventually

pytestmark = pytest.mark.integration
_numbers = count()


class World:
    """One venue, one topic, and a feed process that may be started again and again."""

    def __init__(self, folder, bootstrap, registry, venue):
        self.folder = folder
        self.bootstrap = bootstrap
        self.registry = registry
        self.venue = venue
        number = next(_numbers)
        self.exchange = f"X{os.getpid()}N{number}"
        self.tape = TapeSettings(bootstrap=bootstrap, topic=f"feed.{os.getpid()}.{number}")
        self.process = None
        self._lines = queue.Queue()

    def start(self):
        env = k2_settings.environment() | {
            "K2_DATA_DIR": str(self.folder),
            "K2_TAPE__BOOTSTRAP": self.bootstrap,
            "K2_TAPE__REGISTRY_URL": self.registry,
            "K2_TAPE__TOPIC": self.tape.topic,
            "K2_FEED__VENUE_URL": self.venue.url,
            "K2_FEED__SYMBOLS": '["BTCUSDT","ETHUSDT"]',
            "K2_FEED__EXCHANGE": self.exchange,
            "K2_FEED__SOURCE": "simulated",
        }
        with (self.folder / "feed.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "servers", "feed"],
                env=env,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._lines = queue.Queue()  # of this life
        reading = (self.process.stdout, self._lines)
        threading.Thread(target=self._read, args=reading, daemon=True).start()
        assert self.event()["event"] == "serving"
        return self.venue.open_connections[-1]

    def _read(self, out, lines):
        for line in out:
            lines.put(json.loads(line))
        out.close()

    def event(self):
        try:
            return self._lines.get(timeout=40)
        except queue.Empty:
            raise AssertionError((self.folder / "feed.log").read_text()) from None

    def end(self, how=signal.SIGTERM):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
        return None if self.process is None else self.process.wait(30)

    def ids(self, symbol="BTCUSDT"):
        """Ids of a symbol on the tape, in the order of the tape."""
        admin = topics.TapeAdmin(self.bootstrap)
        partitions = topics.partition_count(self.tape)
        ends = admin.log_ends(self.tape.topic, partitions)
        admin.close()
        decoder = Decoder(SchemaStore(self.registry, self.folder / "schemas", SystemClock()))
        reader = TapeReader.assigned(self.tape, dict.fromkeys(range(partitions), 0))
        found, left = [], {each for each in range(partitions) if ends[each]}
        while left:
            for batch in reader.read(10_000, 0.1):
                columns = decoder.decode(batch)
                assert not columns.fault.any()
                names = [columns.labels[code].symbol for code in columns.label]
                found += [
                    trade_id
                    for name, trade_id in zip(names, columns.trade_id.tolist(), strict=True)
                    if name == symbol
                ]
                if batch.next_offset >= ends[batch.partition]:
                    left.discard(batch.partition)
        reader.close()
        return found

    def document(self, symbol="BTCUSDT"):
        """What is published of a symbol's high water."""
        return self.read(topics.COVERAGE).get(f"{self.exchange}:{symbol}@feed", {})

    def read(self, topic):
        board = CompactedTopic(self.bootstrap, topic)
        try:
            return board.read_all()
        finally:
            board.close()


@pytest.fixture
def venue():
    with FakeVenue() as made:
        yield made


@pytest.fixture
def world(tmp_path, broker, registry, venue):
    made = World(tmp_path, broker, registry, venue)
    yield made
    made.end(signal.SIGKILL)


def test_trades_are_on_the_tape_the_end_is_clean_and_the_next_start_needs_no_registry(world):
    connection = world.start()
    connection.send(*(frame(each) for each in range(1, 501)), frame(7, "ETHUSDT"))
    eventually(lambda: world.document().get("trade_id") == 500, 15, 0.2)
    connection.send(frame(501))
    eventually(lambda: len(world.ids()) == 501, 15, 0.2)
    assert world.end() == 0
    assert world.ids() == list(range(1, 502))
    assert world.ids("ETHUSDT") == [7]
    assert world.document()["trade_id"] == 501, "the end publishes what it had acknowledged"
    assert world.document("ETHUSDT")["trade_id"] == 7

    known, world.registry = world.registry, "http://127.0.0.1:1"  # away, and the schema is known
    world.start().send(frame(502))
    world.registry = known
    eventually(lambda: world.ids() == list(range(1, 503)), 15, 0.2)
    assert world.end() == 0


def test_the_heart_says_how_well_it_hears(world):
    connection = world.start()
    connection.send(frame(10), frame(12), frame(10), "{", '{"e":"kline"}')

    def beat():
        notices = world.read(topics.HEARTBEATS)
        beats = read_beats(notices, dict.fromkeys(notices, 0.0), 0.0)
        (feed,) = [each for each in beats if each.process == "feed"]
        assert feed.counters.get("frames") == 5
        assert feed.counters["symbols"]["BTCUSDT"]["acknowledged_trade_id"] == 12
        return feed

    feed = eventually(beat, 15, 0.3)
    counters = feed.counters
    assert (feed.state, feed.pid) == ("SERVING", world.process.pid)
    assert counters["connected"]
    assert counters["exchange"] == world.exchange
    assert (counters["frames_skipped"], counters["frames_malformed"]) == (1, 1)
    assert (counters["trades"], counters["trades_acknowledged"]) == (2, 2)
    symbol = counters["symbols"]["BTCUSDT"]
    assert (symbol["gaps"], symbol["ids_missing"], symbol["duplicates"]) == (1, 1, 1)
    assert {"feed_queue", "producer_queue", "rss_bytes"} <= set(feed.pressures)
    assert world.end() == 0


def test_malformed_frames_are_dead_letters_with_their_bytes(world):
    world.start().send("garbage", frame(1), frame(2, q="x"))
    eventually(lambda: world.ids() == [1], 15, 0.2)
    assert world.end() == 0
    office = DeadLetterTopic(world.bootstrap)
    letters = [
        each for each in office.read_all() if each.topic.startswith(f"feed:{world.exchange}:")
    ]
    office.close()
    assert [(each.offset, each.value) for each in letters] == [
        (1, b"garbage"),
        (2, frame(2, q="x").encode()),
    ]


def test_a_killed_feed_knows_after_restart_what_it_may_have_missed(world):
    connection = world.start()
    connection.send(*(frame(each) for each in range(1, 1001)))
    acknowledged = eventually(lambda: world.document().get("trade_id"), 15, 0.1)
    connection.send(*(frame(each) for each in range(1001, 1501)))
    world.end(signal.SIGKILL)
    acknowledged = max(acknowledged, world.document()["trade_id"])
    connection = world.start()
    connection.send(*(frame(each) for each in range(2001, 2101)))
    eventually(lambda: world.document().get("trade_id") == 2100, 15, 0.2)
    document = world.document()
    assert document["first_id"] == 2001
    assert document["resumed_after"] == acknowledged
    ids = world.ids()
    assert len(ids) == len(set(ids))
    assert set(range(1, acknowledged + 1)) <= set(ids), "what was promised is there"
    assert world.end() == 0


def test_record_is_a_process_that_ends_cleanly_when_interrupted(tmp_path, venue):
    venue.greeting = [frame(each) for each in range(1, 51)]
    path = tmp_path / "session.jsonl.zst"
    process = subprocess.Popen(
        [sys.executable, "-m", "servers", "record", "--out", str(path), "--url", venue.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    venue.await_connection(1)
    eventually(lambda: path.exists() and len(list(read_frames(path))) == 50, 15, 0.2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert json.loads(out.splitlines()[-1])["frames"] == 50
