"""Late, not lost: a feed whose intake levels shut, at a practice venue, with a tape in memory."""

import asyncio
import io
import threading

import numpy as np
import pytest

from k2.clock import SystemClock
from k2.degrade.level import Level
from k2.degrade.platform import Levels
from k2.feed.connection.intake import Intake
from k2.feed.connection.session import Session
from k2.feed.connection.socket import open_socket
from k2.feed.publish.coverage_topic import CoverageTopic
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.feed.publish.loop import FeedLoop
from k2.feed.publish.malformed_frames import DeadLetterPublisher
from k2.feed.publish.publisher import TradePublisher
from k2.feed.venues.binance import BinanceSource
from k2.market.instrument import Priorities
from k2.market.ledger import Cause, GapState
from k2.settings import FeedSettings, Settings
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder, encode_trade
from servers.processes.feed import FeedGauges, backfill_of, sender_of
from servers.runtime import Runtime
from servers.venue.archive import SyntheticArchive
from servers.venue.hub import Hub
from servers.venue.market.synthetic_market import Market, opened
from servers.venue.synthetic_source import SyntheticSource
from servers.venue.venue_server import Venue
from tests.fakes.tape import FakeTape
from tests.support.eventually import eventually
from tests.support.messages import SCHEMA_ID, Schemas, raw

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
SYMBOLS = ("BTCUSDT", "SOLUSDT", "SHIBUSDT")
RATE = 600.0


class PracticeVenue:
    """A practice venue in a thread."""

    def __init__(self):
        segments, clock, self.hub = opened(SYMBOLS, RATE), SystemClock(), Hub()
        self._venue = Venue(
            source=SyntheticSource(market=Market(7, segments), hub=self.hub, clock=clock),
            archive=SyntheticArchive(Market(7, segments), clock),
            hub=self.hub,
            clock=clock,
        )
        self._printed, self._clock = Market(7, segments), clock
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    def __enter__(self):
        self._thread.start()
        self.port = self._call(self._venue.start("127.0.0.1", 0))
        return self

    def __exit__(self, *_):
        self._call(self._venue.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _call(self, what):
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(20)

    def await_printed(self, after):
        """Wait until some trades were printed after the newest id of each symbol."""

        def printed():
            now_us = self._clock.now_us()
            return all(
                self._printed.emitted(symbol, now_us) > newest + 3
                for symbol, newest in after.items()
            )

        eventually(printed, 20)

    @property
    def listened(self):
        return {symbol for each in self.hub for symbol in each.subscription.symbols}


class Feed:
    """The parts of a feed, as its process joins them, in a thread."""

    def __init__(self, port, tape, folder):
        feed = FeedSettings(venue_url=f"ws://127.0.0.1:{port}", symbols=SYMBOLS, source="simulated")
        self.settings = Settings(data_dir=folder, feed=feed)
        self.runtime = Runtime(SystemClock(), "1", out=io.StringIO())
        source = BinanceSource(
            url=feed.venue_url, exchange="BINANCE", symbols=SYMBOLS, source="simulated"
        )
        self.tape = tape
        producer = tape.producer()
        lines = [InstrumentStream(each, at, None) for at, each in enumerate(source.instruments)]
        self.letters = DeadLetterPublisher(tape.office(), "f")
        publisher = TradePublisher(
            source=source,
            tape=producer,
            streams=lines,
            encode=lambda trade: encode_trade(trade, SCHEMA_ID),
            letters=self.letters,
            headers={},
        )
        self.intake = Intake(source.instruments, Priorities())
        sender = sender_of(
            producer, lines, lambda trade: encode_trade(trade, SCHEMA_ID), self.runtime
        )
        self.log = tape.gap_log()
        self.backfill = backfill_of(
            self.settings,
            self.runtime,
            sender,
            self.log,
            tape.board(topics.BACKFILLS),
            self.intake.fills,
        )
        self.loop = FeedLoop(
            publisher=publisher,
            tape=producer,
            letters=self.letters,
            gaps=self.backfill,
            coverage=CoverageTopic(tape.board(topics.COVERAGE), "feed", "run"),
            clock=self.runtime.clock,
        )
        chance = np.random.default_rng(1)
        for group in self.intake.groups():
            self.loop.subscribe(
                source.addresses(group),
                lambda: Session(chance),
                open_socket,
                instruments=group,
                wanted=lambda group=group: self.intake.takes(group),
            )
        self.gauges = FeedGauges(feed, self.runtime.clock, publisher, producer, self.loop)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        asyncio.run(self.loop.run(self.runtime.stopping, lambda: None))

    def __enter__(self):
        self.letters.start()
        self.backfill.start()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.runtime.stopping.set()
        self._thread.join(20)
        self.backfill.close(20)
        assert not self._thread.is_alive()

    def obey(self, level):
        self.intake.obey(Levels(platform=level))

    def newest(self, symbol):
        return self.gauges.counters().symbols[symbol].last_trade_id or 0

    def grow(self, symbol, ids=40):
        """Wait until so many more ids of a symbol came live."""
        start = eventually(lambda: self.newest(symbol), 20)
        eventually(lambda: self.newest(symbol) >= start + ids, 20)

    def ids(self, symbol):
        values = list(self.tape.logs[SYMBOLS.index(symbol)].values)
        return Decoder(Schemas()).decode(raw(values)).trade_id.tolist() if values else []

    def gaps(self):
        return self.backfill._recorder.ledger.gaps()

    def await_whole(self):
        """Wait until nothing is open and each id from the first to the last is on the tape once."""

        def whole():
            gaps = list(self.gaps())
            assert gaps
            assert {gap.state for gap in gaps} == {GapState.FILLED}
            for symbol in SYMBOLS:
                ids = sorted(self.ids(symbol))
                assert ids == list(range(ids[0], ids[0] + len(ids))), symbol
            return gaps

        return eventually(whole, 60, 0.2)


@pytest.fixture
def feed(tmp_path):
    with PracticeVenue() as venue, Feed(venue.port, FakeTape(), tmp_path) as feed:
        feed.venue = venue
        yield feed


def test_what_a_shut_tier_missed_is_found_by_its_ids_and_filled_once_it_is_open(feed):
    feed.grow("SHIBUSDT", 5)
    feed.obey(Level.AGGRESSIVE)
    eventually(lambda: feed.venue.listened == {"BTCUSDT"})
    shut_at = feed.newest("SHIBUSDT")
    feed.venue.await_printed({symbol: feed.newest(symbol) for symbol in SYMBOLS[1:]})
    feed.grow("BTCUSDT", 200)
    said = feed.gauges.counters().symbols
    assert not said["SHIBUSDT"].listened
    assert feed.newest("SHIBUSDT") == shut_at
    assert feed.intake.counters().backfill_paused == 2
    feed.obey(Level.GRACEFUL)
    feed.grow("SOLUSDT")
    feed.grow("SHIBUSDT", 5)
    eventually(
        lambda: {gap.instrument.symbol for gap in feed.gaps()} == {"SOLUSDT", "SHIBUSDT"}, 20
    )
    eventually(
        lambda: [gap for gap in feed.gaps() if gap.state is GapState.FILLED], 20
    )  # of SOLUSDT; the low tier is still paused
    opened = [gap for gap in feed.gaps() if gap.state is GapState.OPEN]
    assert {gap.instrument.symbol for gap in opened} == {"SHIBUSDT"}
    feed.obey(Level.NORMAL)
    gaps = feed.await_whole()
    assert {gap.cause for gap in gaps} == {Cause.REFUSED}
    assert [gap.first_id for gap in gaps if gap.instrument.symbol == "SHIBUSDT"] == [shut_at + 1]
    counters = feed.gauges.counters()
    assert (counters.connected, counters.reconnects) == (True, 0)


def test_what_a_circuit_break_refused_comes_back_whole(feed):
    for symbol in SYMBOLS:
        feed.grow(symbol, 3)
    feed.obey(Level.CIRCUIT_BREAK)
    eventually(lambda: feed.venue.listened == set())
    refused = {symbol: feed.newest(symbol) for symbol in SYMBOLS}
    assert not feed.gauges.counters().connected
    feed.venue.await_printed(refused)
    feed.obey(Level.AGGRESSIVE)
    feed.grow("BTCUSDT", 100)
    assert feed.newest("SHIBUSDT") == refused["SHIBUSDT"]
    feed.obey(Level.SOFT)
    feed.grow("SHIBUSDT", 5)
    feed.grow("SOLUSDT", 5)
    gaps = feed.await_whole()
    assert {gap.instrument.symbol for gap in gaps} == set(SYMBOLS)
    assert {gap.cause for gap in gaps} == {Cause.REFUSED}


def test_a_level_that_flaps_while_it_connects_loses_nothing(feed):
    for symbol in SYMBOLS:
        feed.grow(symbol, 3)
    for level in (Level.AGGRESSIVE, Level.NORMAL, Level.CIRCUIT_BREAK, Level.NORMAL) * 3:
        feed.obey(level)
        feed.runtime.stopping.wait(0.03)
    feed.grow("BTCUSDT", 50)
    feed.obey(Level.AGGRESSIVE)
    feed.venue.await_printed({symbol: feed.newest(symbol) for symbol in SYMBOLS[1:]})
    feed.obey(Level.NORMAL)
    feed.grow("SHIBUSDT", 5)
    feed.grow("SOLUSDT", 5)
    feed.await_whole()
    assert len(list(feed.venue.hub)) == 2
