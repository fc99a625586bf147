"""From the practice venue through the feed onto a real tape: what was played is what is there."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from contextlib import closing
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest

from k2 import settings
from k2.clock import SystemClock
from k2.feed.recording import read_frames, symbols
from k2.settings import TapeSettings
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.consumer import TapeReader
from k2.tape.schema_registry import SchemaStore
from servers.heartbeat import read_beats
from tests.support.eventually import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SHARED = Path(__file__).parents[4] / "shared" / "data"
_numbers = count()


class World:
    """A venue and a feed, each a process, and the topic between which they stand."""

    def __init__(self, folder, bootstrap, registry):
        self.folder = folder
        topic = f"venue.{os.getpid()}.{next(_numbers)}"
        self.tape = TapeSettings(bootstrap=bootstrap, registry_url=registry, topic=topic)
        self.schemas = SchemaStore(registry, folder / "schemas", SystemClock())
        topics.deploy(self.tape, self.schemas)
        self.processes = []

    def start(self, name, **changes):
        """Start a process; its addresses."""
        environment = settings.environment() | {
            "K2_DATA_DIR": str(self.folder),
            "K2_TAPE__BOOTSTRAP": self.tape.bootstrap,
            "K2_TAPE__REGISTRY_URL": self.tape.registry_url,
            "K2_TAPE__TOPIC": self.tape.topic,
            "K2_VENUE__LISTEN": "127.0.0.1:0",
            "K2_FEED__EXCHANGE": self.tape.topic.upper().replace(".", "_"),
            **changes,
        }
        with (self.folder / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "servers", name],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.processes.append(process)
        line = json.loads(process.stdout.readline())
        assert line["event"] == "serving", line
        return line["addresses"]

    def end(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(30)
            process.stdout.close()

    def rows(self):
        """What is on the tape: (symbol, id, price, quantity, time, sells), in units of 1e-8."""
        admin = topics.TapeAdmin(self.tape.bootstrap)
        partitions = topics.partition_count(self.tape)
        ends = admin.log_ends(self.tape.topic, partitions)
        admin.close()
        decoder = Decoder(self.schemas)
        reader = TapeReader.assigned(self.tape, dict.fromkeys(range(partitions), 0))
        found, left = [], {each for each in range(partitions) if ends[each]}
        while left:
            for batch in reader.read(10_000, 0.1):
                columns = decoder.decode(batch)
                assert not columns.fault.any()
                assert not columns.quantity[:, 1].any()
                names = [columns.labels[code].symbol for code in columns.label]
                values = (columns.trade_id, columns.price, columns.quantity[:, 0])
                more = (columns.event_time, columns.side)
                found += zip(names, *(each.tolist() for each in (*values, *more)), strict=True)
                if batch.next_offset >= ends[batch.partition]:
                    left.discard(batch.partition)
        reader.close()
        return found


@pytest.fixture
def world(tmp_path, broker, registry):
    made = World(tmp_path, broker, registry)
    yield made
    made.end()


def units(text):
    return int(Decimal(text) * 10**8)


def played(path):
    """The trades of a recording, as they must be on the tape."""
    for frame in read_frames(path):
        event = json.loads(frame.text).get("data", {})
        if event.get("e") == "trade":
            time_us = event["T"] * 1000
            yield (
                event["s"], event["t"], units(event["p"]), units(event["q"]), time_us,
                int(event["m"]),
            )  # fmt: skip


def test_a_real_recording_arrives_trade_by_trade(world):
    """Another one goes through all of K2, in `tests/golden`."""
    path = SHARED / "binance_trade_btcusdt_2021-01-08.jsonl"
    if not path.exists():
        pytest.skip(f"{path.name} is not on this machine")
    venue = f"recording:{path}"
    addresses = world.start("venue", K2_FEED__VENUE=venue, K2_VENUE__SPEED="0")
    world.start(
        "feed",
        K2_FEED__VENUE=venue,
        K2_FEED__VENUE_URL=addresses["ws"],
        K2_FEED__SOURCE="recorded",
        K2_FEED__SYMBOLS=json.dumps(symbols(path)),
    )
    expected = list(played(path))
    eventually(lambda: len(world.rows()) >= len(expected), 40, 0.5)
    assert sorted(world.rows()) == sorted(expected)


def test_a_session_of_other_streams_is_survived_and_counted(world):
    path = SHARED / "binance_ws_mixed_2021-10.jsonl.zst"
    if not path.exists():
        pytest.skip("the mixed session is not on this machine")
    venue = f"recording:{path}"
    addresses = world.start("venue", K2_FEED__VENUE=venue, K2_VENUE__SPEED="0")
    world.start("feed", K2_FEED__VENUE_URL=addresses["ws"], K2_FEED__SOURCE="recorded")
    frames = sum(1 for _ in read_frames(path))

    def ended():
        with urllib.request.urlopen(addresses["http"] + "/k2/status") as response:
            return json.loads(response.read())["sent"] >= frames

    def counted():
        with closing(CompactedTopic(world.tape.bootstrap, topics.HEARTBEATS)) as board:
            notices = board.read_all()
        beats = read_beats(notices, dict.fromkeys(notices, 0.0), 0.0)
        ours = [beat for beat in beats if beat.pid == world.processes[-1].pid]
        return [
            one for one in ours if one.state == "SERVING" and one.counters.get("frames_skipped")
        ]

    eventually(ended, 20)
    (feed,) = eventually(counted, 20, 0.3)
    assert feed.counters["trades_acknowledged"] == 0
    assert all(process.poll() is None for process in world.processes)
    assert world.rows() == []


def test_faults_that_lose_nothing_leave_no_hole(world):
    addresses = world.start("venue", K2_FEED__VENUE="synthetic", K2_VENUE__RATE="1000")
    faults = "duplicate=0.02&reorder=0.02&garbage=0.01&delay=0.001&delay_ms=50"
    urllib.request.urlopen(f"{addresses['http']}/k2/faults?{faults}").close()
    world.start("feed", K2_FEED__VENUE_URL=addresses["ws"], K2_FEED__SOURCE="simulated")
    eventually(lambda: len(world.rows()) > 4000, 40, 0.5)
    urllib.request.urlopen(f"{addresses['http']}/k2/faults?clear").close()
    before = {row[:2] for row in world.rows()}
    eventually(lambda: len({row[:2] for row in world.rows()}) > len(before), 20, 0.5)
    for symbol in ("BTCUSDT", "ETHUSDT", "BNBUSDT"):
        ids = {trade_id for name, trade_id in before if name == symbol}
        settled = [each for each in range(min(ids), max(ids) + 1) if each not in ids]
        later = {trade_id for name, trade_id, *_ in world.rows() if name == symbol}
        assert set(settled) <= later
