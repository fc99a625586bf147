"""The practice venue as a process: killed, stopped, started again, and it all still agrees."""

import asyncio
import json
import signal
import subprocess
import sys

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from k2 import settings
from k2.clock import SystemClock
from k2.settings import TapeSettings
from k2.tape import topics
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.schema_registry import SchemaStore
from tests.support.eventually import eventually

pytestmark = pytest.mark.integration

STREAMS = "/stream?streams=btcusdt@trade/ethusdt@trade"
FRAMES = 30_000


class VenueProcess:
    """`python -m servers venue` while the `with` block runs."""

    def __init__(self, data_dir, broker, **changes):
        self.environment = settings.environment() | {
            "K2_DATA_DIR": str(data_dir),
            "K2_TAPE__BOOTSTRAP": broker,
            "K2_FEED__VENUE": "synthetic",
            "K2_FEED__SYMBOLS": '["BTCUSDT", "ETHUSDT"]',
            "K2_VENUE__LISTEN": "127.0.0.1:0",
            **changes,
        }
        self.log = data_dir / "venue.log"

    def __enter__(self):
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "servers", "venue"],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        line = json.loads(self.process.stdout.readline())
        assert line["event"] == "serving", line
        self.ws = line["addresses"]["ws"]
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


async def listen(venue, messages, enough):
    """Collect messages until `enough(messages)`, silence for a second, or the connection's end."""
    async with connect(venue.ws + STREAMS, max_size=None, max_queue=None) as client:
        try:
            while not enough(messages):
                messages.append(await asyncio.wait_for(client.recv(), 1))
        except (TimeoutError, ConnectionClosed):
            pass


def collect(venue, messages, enough):
    asyncio.run(listen(venue, messages, enough))


def trade_ids(messages, symbol="BTCUSDT"):
    events = [json.loads(message).get("data", {}) for message in messages]
    return [event["t"] for event in events if event.get("s") == symbol]


@pytest.fixture
def deployed(broker, registry, tmp_path):
    tape = TapeSettings(bootstrap=broker, registry_url=registry)
    topics.deploy(tape, SchemaStore(registry, tmp_path / "schemas", SystemClock()))
    return broker


def test_it_beats_and_stops_when_asked_to(tmp_path, deployed):
    with VenueProcess(tmp_path, deployed, K2_VENUE__RATE="500") as venue:
        messages = []
        collect(venue, messages, lambda found: len(found) > 300)
        board = CompactedTopic(deployed, topics.HEARTBEATS)

        def beat():
            found = board.read_all().get("venue")
            ours = found is not None and found["pid"] == venue.process.pid
            return found if ours and found["counters"].get("sent", 0) > 300 else None

        seen = eventually(beat, 20)
        assert venue.stop() == 0
        last = board.read_all()["venue"]
        board.close()
    assert seen["pid"] == venue.process.pid
    assert seen["state"] == "SERVING"
    assert seen["addresses"]["ws"] == venue.ws
    assert seen["counters"]["ids"]["BTCUSDT"] >= max(trade_ids(messages))
    assert last["state"] == "DRAINING"


def test_a_market_that_is_killed_goes_on_as_if_it_had_not_been(tmp_path, broker):
    found = {}
    for rate in ("2000", "2000", "300"):
        with VenueProcess(tmp_path, broker, K2_VENUE__RATE=rate) as venue:
            messages = []
            collect(venue, messages, lambda seen: len(seen) > 500)
            venue.process.kill()
            ids = trade_ids(messages)
            assert ids == list(range(ids[0], ids[-1] + 1))
            assert not found or ids[0] > max(found)
            found |= dict.fromkeys(ids)
    assert len(json.loads((tmp_path / "venue/segments.json").read_text())["segments"]) == 2


@pytest.mark.slow
def test_a_recording_whose_venue_is_killed_arrives_whole(tmp_path, broker):
    path = tmp_path / "recorded.jsonl"
    with path.open("w") as file:
        for number in range(FRAMES):
            event = {"e": "trade", "s": "BTCUSDT", "t": number, "T": 1610064000000 + number}
            file.write(json.dumps({"stream": "btcusdt@trade", "data": event}) + "\n")
    messages = []
    changes = {"K2_FEED__VENUE": f"recording:{path}", "K2_VENUE__SPEED": "0"}
    for kill in range(2):
        with VenueProcess(tmp_path, broker, **changes) as venue:

            def enough(found, least=(kill + 1) * 8000, process=venue.process):
                if len(found) > least and process.poll() is None:
                    process.kill()
                return False

            collect(venue, messages, enough)
    with VenueProcess(tmp_path, broker, **changes) as venue:
        collect(venue, messages, lambda _: False)
        assert venue.stop() == 0
    assert set(trade_ids(messages)) == set(range(FRAMES))
    with VenueProcess(tmp_path, broker, **changes) as venue:
        again = []
        collect(venue, again, lambda _: False)
    assert trade_ids(again) == []
