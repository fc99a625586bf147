"""Nothing lost: a real venue with faults, a feed that is stopped and killed, a tape, a ledger."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
import zipfile
from contextlib import closing
from itertools import count

import pytest

from k2 import settings
from k2.clock import SystemClock
from k2.feed.gaps.backfill_request import FillRequest
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapState, Ledger
from k2.settings import TapeSettings
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.consumer import TapeReader
from k2.tape.gap_topic import GapLog
from k2.tape.schema_registry import SchemaStore
from tests.fakes.scripted_venue import frame
from tests.support.eventually import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
_numbers = count()
SYMBOLS = ("BTCUSDT", "ETHUSDT")


class World:
    """A venue, feeds, and the tape and ledger that they leave."""

    def __init__(self, folder, bootstrap, registry):
        self.folder = folder
        topic = f"backfill.{os.getpid()}.{next(_numbers)}"
        self.exchange = topic.upper().replace(".", "_")
        self.tape = TapeSettings(bootstrap=bootstrap, registry_url=registry, topic=topic)
        self.schemas = SchemaStore(registry, folder / "schemas", SystemClock())
        topics.deploy(self.tape, self.schemas)
        self.addresses = {}
        self.processes = []

    def start(self, name, **changes):
        """Start a process that serves."""
        process = self.launch(name, **changes)
        self.processes.append(process)
        line = json.loads(process.stdout.readline())
        assert line["event"] == "serving", line
        self.addresses |= line["addresses"]
        return process

    def launch(self, name, *arguments, **changes):
        environment = settings.environment() | {
            "K2_DATA_DIR": str(self.folder),
            "K2_TAPE__BOOTSTRAP": self.tape.bootstrap,
            "K2_TAPE__REGISTRY_URL": self.tape.registry_url,
            "K2_TAPE__TOPIC": self.tape.topic,
            "K2_VENUE__LISTEN": "127.0.0.1:0",
            "K2_FEED__EXCHANGE": self.exchange,
            "K2_FEED__SYMBOLS": json.dumps(SYMBOLS),
            "K2_FEED__SOURCE": "simulated",
            **changes,
        }
        with (self.folder / f"{name}.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "servers", name, *arguments],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def venue(self, rate, **changes):
        return self.start("venue", K2_FEED__VENUE="synthetic", K2_VENUE__RATE=str(rate), **changes)

    def feed(self, **changes):
        return self.start("feed", K2_FEED__VENUE_URL=self.addresses["ws"], **changes)

    def faults(self, query):
        """Change the venue's faults; what has happened so far."""
        with urllib.request.urlopen(f"{self.addresses['http']}/k2/faults?{query}") as answer:
            return json.loads(answer.read())["happened"]

    def stop(self, process, how=signal.SIGTERM):
        process.send_signal(how)
        assert process.wait(30) == (0 if how == signal.SIGTERM else -how)
        process.stdout.close()
        self.processes.remove(process)

    def end(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(30)
            process.stdout.close()

    def ends(self):
        """Where each partition of the tape ends."""
        with closing(topics.TapeAdmin(self.tape.bootstrap)) as admin:
            return admin.log_ends(self.tape.topic, topics.partition_count(self.tape))

    def records(self):
        """How many records are on the tape."""
        return sum(self.ends())

    def rows(self):
        """What is on the tape: (symbol, id, price, quantity, time, sells) and source of each."""
        ends = self.ends()
        partitions = len(ends)
        decoder = Decoder(self.schemas)
        reader = TapeReader.assigned(self.tape, dict.fromkeys(range(partitions), 0))
        found, left = [], {each for each in range(partitions) if ends[each]}
        while left:
            for batch in reader.read(10_000, 0.1):
                columns = decoder.decode(batch)
                assert not columns.fault.any()
                labels = [columns.labels[code] for code in columns.label]
                values = (columns.trade_id, columns.price, columns.quantity[:, 0])
                more = (columns.event_time, columns.side)
                names = [label.symbol for label in labels]
                sources = [label.source for label in labels]
                lists = [each.tolist() for each in (*values, *more)]
                found += zip(zip(names, *lists, strict=True), sources, strict=True)
                if batch.next_offset >= ends[batch.partition]:
                    left.discard(batch.partition)
        reader.close()
        return found

    def ids(self, symbol):
        return {row[1] for row, _ in self.rows() if row[0] == symbol}

    def gaps(self):
        """The ledger of this world's exchange, as it stands."""
        log, ledger = GapLog(self.tape.bootstrap, self.schemas), Ledger()
        for event in log.advance():
            ledger.apply(event)
        log.close()
        return [gap for gap in ledger.gaps() if gap.instrument.exchange == self.exchange]

    def opened(self):
        return [gap for gap in self.gaps() if gap.state is GapState.OPEN]

    def ask(self, symbol, first, last):
        request = FillRequest(
            Instrument(self.exchange, symbol), first, last, SystemClock().now_us()
        )
        board = CompactedTopic(self.tape.bootstrap, topics.BACKFILLS)
        board.put(request.key, request.document(), 10)
        board.close()

    def await_whole(self):
        """Wait until nothing is open and every id from the first to the last is on the tape."""

        def whole():
            assert not self.opened()
            found = {symbol: self.ids(symbol) for symbol in SYMBOLS}
            for symbol, ids in found.items():
                missing = set(range(min(ids), max(ids) + 1)) - ids
                assert not missing, f"{symbol} lacks {sorted(missing)[:10]}"
            return found

        return eventually(whole, 60, 0.5)


@pytest.fixture
def world(tmp_path, broker, registry):
    made = World(tmp_path, broker, registry)
    yield made
    made.end()


@pytest.mark.slow
def test_whatever_the_venue_and_the_feed_suffer_every_id_is_there(world):
    world.venue(300)
    first = world.feed()
    world.faults("drop=0.05&duplicate=0.02&reorder=0.02&garbage=0.01")
    eventually(lambda: world.records() > 600, 40, 0.1)
    world.faults("disconnect=0.02")  # until one has cost something: a feed may be back in no time
    eventually(lambda: Cause.DISCONNECT in {gap.cause for gap in world.gaps()}, 40, 0.5)
    world.faults("disconnect=0")
    eventually(lambda: world.records() > 1000, 40, 0.1)
    world.faults("drop=0.05")
    world.stop(first)
    ended = max(world.ids("BTCUSDT"))
    SystemClock().sleep(2)
    world.feed()
    eventually(lambda: max(world.ids("BTCUSDT")) > ended + 200, 40, 0.5)
    world.faults("clear")
    world.await_whole()
    gaps = world.gaps()
    assert {gap.state for gap in gaps} == {GapState.FILLED}
    assert {gap.cause for gap in gaps} == {Cause.SEQUENCE, Cause.DISCONNECT, Cause.OUTAGE}
    outage = [gap for gap in gaps if gap.cause is Cause.OUTAGE]
    assert {gap.instrument.symbol for gap in outage} == set(SYMBOLS)
    rows = world.rows()
    assert {source for _, source in rows} == {"simulated", "backfill"}
    trades = {row for row, _ in rows}
    assert len(trades) == len({row[:2] for row in trades}), "the same, whichever way it came"


@pytest.mark.slow
def test_a_killed_feed_goes_on_with_its_backfill(world):
    world.venue(50)
    feed = world.feed()
    newest = eventually(lambda: max(world.ids("BTCUSDT"), default=0), 30, 0.3)
    first, last = newest - 70_000, newest - 40_001
    world.ask("BTCUSDT", first, last)
    eventually(lambda: world.records() > 5000, 40, 0.05)
    world.stop(feed, signal.SIGKILL)
    asked = set(range(first, last + 1))
    assert asked - world.ids("BTCUSDT"), "it was killed in the middle"
    assert [gap.cause for gap in world.opened() if gap.first_id == first] == [Cause.REQUESTED]
    world.feed()
    eventually(lambda: asked <= world.ids("BTCUSDT"), 60, 0.5)
    eventually(lambda: not world.opened(), 40, 0.5)
    filled = [gap for gap in world.gaps() if gap.cause is Cause.REQUESTED]
    assert [(gap.first_id, gap.last_id) for gap in filled] == [(first, last)]
    board = CompactedTopic(world.tape.bootstrap, topics.BACKFILLS)
    assert not [key for key in board.read_all() if key.startswith(world.exchange)]
    board.close()


def test_two_feeds_of_one_venue_are_no_more_than_one(world):
    world.venue(300)
    feeds = [world.feed(), world.feed(K2_FEED__NAME="feed-b")]
    world.faults("drop=0.1")
    eventually(lambda: world.records() > 1500, 40, 0.1)
    world.stop(feeds[0], signal.SIGKILL)
    reached = max(world.ids("BTCUSDT"))
    eventually(lambda: max(world.ids("BTCUSDT")) > reached + 150, 40, 0.5)
    world.feed()
    world.faults("clear")
    world.await_whole()
    assert {gap.state for gap in world.gaps()} == {GapState.FILLED}
    board = CompactedTopic(world.tape.bootstrap, topics.HEARTBEATS)
    assert {"feed", "feed-b"} <= set(board.read_all())
    board.close()


def loaded(world, path, *more):
    """Load a file in a process of its own: exit code and what it printed last."""
    process = world.launch("backfill", str(path), *more)
    out, _ = process.communicate(timeout=60)
    return process.returncode, json.loads(out.splitlines()[-1])


def test_a_days_file_goes_the_way_of_every_trade(world):
    day_us = 1_735_689_600_000_000  # 2025-01-01
    for day, unit_us in (("2024-12-31", 1000), ("2025-01-01", 1)):
        start = day_us if unit_us == 1 else day_us - 86_400_000_000
        first = 1 if unit_us == 1000 else 6_001
        text = "".join(
            f"{each},100.5,0.1,10.05,{(start + 1000 * each) // unit_us},True,True\n"
            for each in range(first, first + 6_000)
        )
        path = world.folder / f"BTCUSDT-trades-{day}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"BTCUSDT-trades-{day}.csv", text)
        code, result = loaded(world, path)
        assert (code, result["loaded"], result["refused"]) == (0, 6_000, 0)
        assert (result["first_trade_id"], result["last_trade_id"]) == (first, first + 5_999)
    rows = world.rows()
    assert [row[1] for row, _ in rows] == list(range(1, 12_001))
    assert {source for _, source in rows} == {"backfill"}
    assert all(row[4] < day_us for row, _ in rows[:6_000])
    assert all(row[4] >= day_us for row, _ in rows[6_000:])
    path = world.folder / "ETHUSDT-trades-2025-01-01.csv"
    path.write_text(f"1,x,1,1,{day_us},True,True\n2,1.5,1,1,{day_us},False,True\n")
    code, result = loaded(world, path, "--symbol", "ETHUSDT")
    assert (code, result["loaded"], result["refused"]) == (1, 1, 1)
    code, result = loaded(world, path, "--symbol", "BTCUSDT")
    assert (code, result["reason"]) == (2, "BAD_REQUEST")


def test_what_the_venue_never_had_is_unfillable(world):
    path = world.folder / "holes.jsonl"
    ids = [*range(1, 50), *range(60, 100)]
    path.write_text("".join(frame(each) + "\n" for each in ids))
    venue = f"recording:{path}"
    world.start("venue", K2_FEED__VENUE=venue, K2_VENUE__SPEED="0")
    world.feed(K2_FEED__VENUE=venue, K2_FEED__SOURCE="recorded")
    eventually(lambda: world.ids("BTCUSDT") == set(ids), 30, 0.3)
    (gap,) = eventually(
        lambda: [gap for gap in world.gaps() if gap.state is GapState.UNFILLABLE], 40, 0.5
    )
    assert (gap.first_id, gap.last_id, gap.cause) == (50, 59, Cause.SEQUENCE)
    assert gap.reason == "the venue does not have it"
