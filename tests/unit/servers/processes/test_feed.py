"""What the feed's heart says, by the names that the control plane reads."""

import io
import json

import pytest

from k2.clock import ManualClock, SystemClock
from k2.degrade.signals import Signal
from k2.feed.connection.session import Session
from k2.feed.publish.coverage_topic import CoverageTopic
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.feed.publish.loop import FeedLoop
from k2.feed.publish.malformed_frames import DeadLetterPublisher
from k2.feed.publish.publisher import TradePublisher
from k2.feed.venues.binance import BinanceSource
from k2.market.instrument import Instrument
from k2.settings import FeedSettings, Settings
from k2.tape import topics
from k2.telemetry import Counters
from servers.heartbeat import Beat, listened
from servers.processes.feed import FeedGauges, backfill_of, sender_of
from servers.runtime import Runtime
from servers.services.feed_service import feed_to
from tests.fakes.gaps import FakeGaps
from tests.fakes.scripted_venue import frame
from tests.fakes.tape import FakeTape
from tests.support.fill_world import BTC

NOW_US = 1_760_000_000_000_000


class World:
    def __init__(self, folder):
        self.settings = Settings(
            data_dir=folder,
            feed=FeedSettings(exchange="BINANCE", symbols=("BTCUSDT",), source="simulated"),
        )
        source = BinanceSource(
            url="ws://x", exchange="BINANCE", symbols=["BTCUSDT"], source="simulated"
        )
        tape = FakeTape()
        self.clock = ManualClock()
        self.producer = tape.producer()
        lines = [InstrumentStream(each, 2, 90) for each in source.instruments]
        letters = DeadLetterPublisher(tape.office(), "f")
        self.intake = TradePublisher(
            source=source,
            tape=self.producer,
            streams=lines,
            encode=lambda trade: b"x",
            letters=letters,
            headers={},
        )
        self.pump = FeedLoop(
            publisher=self.intake,
            tape=self.producer,
            letters=letters,
            gaps=FakeGaps(),
            coverage=CoverageTopic(tape.board("h"), "feed", "r"),
            clock=self.clock,
        )
        self.gauges = FeedGauges(
            self.settings.feed, self.clock, self.intake, self.producer, self.pump
        )
        self._counters = Counters()
        self._counters.add(self.gauges.counters)

    def counters(self):
        """As the heartbeat has them."""
        return json.loads(json.dumps(self._counters.values()))

    def take(self, *frames):
        self.intake.take([each.encode() for each in frames], 0, NOW_US)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_signals_are_what_waits(world):
    world.take(frame(100), frame(101))
    world.pump.frames_waiting = 7
    signals = world.gauges.signals()
    assert (signals[Signal.PRODUCER_QUEUE], signals[Signal.FEED_QUEUE]) == (2, 7)


def test_it_says_what_it_hears_while_all_is_connected(world):
    def said():
        beat = Beat("feed", 1, "r", "SERVING", 0, {}, {}, {}, world.counters(), NOW_US)
        return listened([beat])

    btc = Instrument("BINANCE", "BTCUSDT")
    assert said() == frozenset()
    world.take(frame(100))
    world.producer.poll()
    assert said() == {btc}
    world.take(frame(101))
    assert said() == {btc}
    assert said() == frozenset(), "101 is not acknowledged"
    world.producer.poll()
    assert said() == {btc}
    world.intake._refused.append(None)
    assert said() == frozenset(), "it reads no more"
    world.intake._refused.clear()
    assert said() == {btc}
    world.pump.subscribe(["ws://x"], lambda: Session(None), None)
    assert said() == frozenset(), "it is not connected"


def test_the_rate_is_of_the_last_moments_however_often_it_is_asked(world):
    world.counters()
    world.take(frame(100), frame(101), frame(102))
    world.clock.advance(2)
    assert world.counters()["trades_per_s"] == 1.5
    assert world.counters()["trades_per_s"] == 1.5
    world.clock.advance(2)
    assert world.counters()["trades_per_s"] == 0.0


def test_the_control_plane_reads_it(world):
    world.take(frame(100), frame(102), frame(102), "{", '{"e":"kline"}')
    world.take(frame(101, p="0", q="0", X="NA"))
    before = world.counters()["symbols"]["BTCUSDT"]
    assert before["acknowledged_trade_id"] == 90, "of the run before, until this one has its own"
    world.producer.poll()
    beat = Beat("feed", 1, "r", "SERVING", 0, {}, {}, {}, world.counters(), NOW_US)
    feed = feed_to(beat)
    assert (feed.exchange, feed.trades_acknowledged) == ("BINANCE", 2)
    assert (feed.frames_skipped, feed.frames_malformed, feed.reconnects) == (1, 1, 0)
    (symbol,) = feed.symbols
    assert (symbol.symbol, symbol.acknowledged_trade_id) == ("BTCUSDT", 102)
    assert (symbol.gaps, symbol.ids_missing, symbol.duplicates) == (2, 10, 1)
    assert feed.counters["alerts"] == "[]"
    world.pump.gaps.counts["unknown_symbols"] = ["NOSUCH"]
    (alert,) = world.counters()["alerts"]
    assert alert == "the venue does not know NOSUCH: nothing comes of it; mend feed.symbols"
    assert (feed.counters["trades"], feed.counters["ids_void"]) == ("2", "1")


def test_a_feed_fills_what_it_listens_to_within_the_budget_that_was_set(tmp_path):
    feed = FeedSettings(venue_url="ws://127.0.0.1:1", rest_weight_per_minute=77)
    settings = Settings(data_dir=tmp_path, feed=feed)
    tape, runtime = FakeTape(), Runtime(SystemClock(), "1", out=io.StringIO())
    producer = tape.producer()
    sender = sender_of(producer, [InstrumentStream(BTC, 3, None)], lambda trade: b"", runtime)
    assert sender.instruments == {BTC}
    requests = tape.board(topics.BACKFILLS)
    backfill = backfill_of(settings, runtime, sender, tape.gap_log(), requests, bool)
    assert backfill.counters()["weight_per_minute"] == 77
    runtime.stopping.set()
    backfill.start()
    backfill.close(5)
    assert backfill.failure is None
