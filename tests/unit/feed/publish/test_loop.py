"""The feed's loop against a real WebSocket venue and a tape in memory."""

import asyncio
import json
import threading
from dataclasses import replace

import numpy as np
import pytest

from k2.clock import SystemClock
from k2.errors import Data, Reason
from k2.feed.connection.session import Session, SessionTimes, State
from k2.feed.connection.socket import open_socket
from k2.feed.publish.coverage_topic import CoverageTopic
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.feed.publish.loop import FeedLoop
from k2.feed.publish.malformed_frames import DeadLetterPublisher
from k2.feed.publish.publisher import TradePublisher
from k2.feed.venues.binance import BinanceSource
from k2.market.instrument import Instrument
from k2.market.ledger import Cause
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder, encode_trade
from tests.fakes.gaps import FakeGaps
from tests.fakes.scripted_venue import FakeVenue, frame
from tests.fakes.tape import FakeTape
from tests.support.eventually import eventually
from tests.support.messages import SCHEMA_ID, Schemas, raw
from tests.support.spans import parent_of, recorded, span_id_of, trace_of

BTC = Instrument("BINANCE", "BTCUSDT")
FAST = SessionTimes(
    stale_s=0.6, quiet_max_s=5, backoff_min_s=0.05, backoff_max_s=0.2, renew_s=60, overlap_s=0.2
)
PROMISE = f"{BTC.key}@feed"


class Feed:
    """A feed in a thread, from a venue to a fake tape; `read` says which symbols are read."""

    def __init__(self, venue, tape, tuning=FAST, queue_max=1000, symbols=("BTCUSDT",)):
        source = BinanceSource(
            url=venue.url, exchange="BINANCE", symbols=symbols, source="simulated"
        )
        coverage = CoverageTopic(tape.board(topics.COVERAGE), "feed", "run")
        self.tape = tape
        self.gaps = FakeGaps()
        self.read = set(symbols)
        resumed = coverage.read(source.instruments)
        self.lines = [
            InstrumentStream(each, at, resumed.get(each))
            for at, each in enumerate(source.instruments)
        ]
        self.line = self.lines[0]
        self.producer = tape.producer(queue_max)
        self.letters = DeadLetterPublisher(tape.office(), "f")
        self.intake = TradePublisher(
            source=source,
            tape=self.producer,
            streams=self.lines,
            encode=lambda trade: encode_trade(trade, SCHEMA_ID),
            letters=self.letters,
            headers={},
        )
        self.pump = FeedLoop(
            publisher=self.intake,
            tape=self.producer,
            letters=self.letters,
            gaps=self.gaps,
            coverage=coverage,
            clock=SystemClock(),
        )
        chance = np.random.default_rng(1)
        for each in source.instruments:
            self.pump.subscribe(
                source.addresses([each]),
                lambda: Session(chance, tuning),
                open_socket,
                instruments=[each],
                wanted=lambda symbol=each.symbol: symbol in self.read,
            )
        self.session = self.pump.subscriptions[0].session
        self.stopping, self.connected = threading.Event(), threading.Event()
        self.failure = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            asyncio.run(self.pump.run(self.stopping, self.connected.set))
        except Data as error:
            self.failure = error

    def __enter__(self):
        self.letters.start()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.stopping.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def ids(self, line=0):
        values = list(self.tape.logs[line].values)
        return Decoder(Schemas()).decode(raw(values)).trade_id.tolist() if values else []

    def await_ids(self, *ids, line=0):
        eventually(lambda: self.ids(line) == list(ids), say=f"ids {ids}")


@pytest.fixture
def tape():
    return FakeTape()


@pytest.fixture
def venue():
    with FakeVenue() as made:
        yield made


def test_it_subscribes_and_feeds(venue, tape):
    with Feed(venue, tape) as feed:
        connection = venue.await_connection(1)
        assert feed.connected.wait(5)
        assert connection.streams == ["btcusdt@trade"]
        assert connection.path.endswith("&timeUnit=MICROSECOND")
        connection.send(frame(1), frame(2))
        feed.await_ids(1, 2)


def test_what_is_sampled_is_traced_into_the_headers_of_its_records(venue, tape):
    with recorded() as spans, Feed(venue, tape) as feed:
        venue.await_connection(1).send(frame(1))
        feed.await_ids(1)
        eventually(lambda: len(spans()) == 2)
    publish, read = spans()
    assert (read.name, publish.name) == ("frame", "publish")
    assert parent_of(publish) == span_id_of(read)
    assert read.attributes["k2.frames"] == publish.attributes["messaging.batch.message_count"] == 1
    (headers,) = tape.logs[0].headers
    assert headers == {"traceparent": f"00-{trace_of(publish)}-{span_id_of(publish)}-01".encode()}


def test_the_end_publishes_the_high_water_and_the_next_run_counts_the_outage(venue, tape):
    with Feed(venue, tape) as feed:
        venue.await_connection(1).send(frame(10), frame(11))
        feed.await_ids(10, 11)
    assert tape.board(topics.COVERAGE).read_all()[PROMISE]["trade_id"] == 11
    with Feed(venue, tape) as feed:
        venue.await_connection(2).send(frame(15))
        feed.await_ids(10, 11, 15)
        assert feed.line.sequence.gaps == ((12, 14),)
        eventually(lambda: feed.line.acknowledged_id == 15)
    document = tape.board(topics.COVERAGE).read_all()[PROMISE]
    assert (document["resumed_after"], document["first_id"]) == (11, 15)


def test_where_a_symbol_begins_is_known_before_its_first_trade_is_sent(venue):
    known = []

    class Watched(FakeTape):
        def append(self, *records, **more):
            known.append(self.board(topics.COVERAGE).current().get(PROMISE, {}).get("trade_id"))
            return super().append(*records, **more)

    with Feed(venue, Watched()) as feed:
        venue.await_connection(1).send(frame(100), frame(101))
        feed.await_ids(100, 101)
    assert known[0] == 99


def test_trades_that_were_read_and_lost_before_any_was_acknowledged_are_a_gap(venue, tape):
    with Feed(venue, tape) as feed:
        feed.producer.send = lambda *record: None  # it dies before the tape has them
        venue.await_connection(1).send(frame(100), frame(101))
        eventually(lambda: feed.intake.frames == 2)
    assert feed.ids() == []
    with Feed(venue, tape) as feed:
        venue.await_connection(2).send(frame(110))
        eventually(lambda: feed.gaps.runs)
        ((_, run),) = feed.gaps.runs
        assert (run.first_id, run.last_id, run.cause) == (100, 109, Cause.OUTAGE)


def test_a_tape_that_is_away_when_a_symbol_begins_is_tried_again(venue, tape):
    with Feed(venue, tape) as feed:
        connection = venue.await_connection(1)
        tape.away = True
        connection.send(frame(0), frame(1))
        eventually(lambda: feed.intake.blocked)
        assert feed.producer.depth() == 0
        tape.away = False
        feed.await_ids(0, 1)


def test_what_is_missing_goes_to_the_keeper_with_its_cause(venue, tape):
    with Feed(venue, tape) as feed:
        venue.await_connection(1).send(frame(1), frame(3))
        feed.await_ids(1, 3)
        venue.connections[0].cut()
        venue.await_connection(2).send(frame(6))
        feed.await_ids(1, 3, 6)
        eventually(lambda: len(feed.gaps.runs) == 2)
        found = [(run.first_id, run.last_id, run.cause) for _, run in feed.gaps.runs]
        assert found == [(2, 2, Cause.SEQUENCE), (4, 5, Cause.DISCONNECT)]
        coverage = tape.board(topics.COVERAGE)
        eventually(lambda: coverage.read_all().get(PROMISE, {}).get("trade_id") == 6)


def test_a_keeper_that_failed_for_good_ends_the_feed(venue, tape):
    with Feed(venue, tape) as feed:
        venue.await_connection(1)
        feed.gaps.failure = Data(Reason.SCHEMA_CONFLICT, "another ledger")
        assert eventually(lambda: feed.failure).reason is Reason.SCHEMA_CONFLICT


@pytest.mark.parametrize("way", ["close", "cut"])
def test_a_lost_connection_comes_back(venue, tape, way):
    patient = replace(FAST, stale_s=5)  # none is left for being silent on a busy machine
    with Feed(venue, tape, patient) as feed:
        first = venue.await_connection(1)
        first.send(frame(1))
        feed.await_ids(1)
        getattr(first, way)()
        venue.await_connection(2).send(frame(2))
        feed.await_ids(1, 2)
        assert feed.session.reconnects == 1


def test_a_venue_that_refuses_is_asked_again_for_ever(venue, tape):
    venue.refusing = True
    with Feed(venue, tape) as feed:
        eventually(lambda: venue.refused >= 4)
        assert not feed.connected.is_set()
        venue.refusing = False
        venue.await_connection(1).send(frame(1))
        feed.await_ids(1)


def test_a_silent_venue_is_left(venue, tape):
    with Feed(venue, tape) as feed:
        first = venue.await_connection(1)
        first.send(frame(1))
        feed.await_ids(1)
        first.go_silent()
        venue.await_connection(2).send(frame(2))
        feed.await_ids(1, 2)


def test_a_venue_that_answers_but_sends_nothing_is_renewed_not_lost(venue, tape):
    with Feed(venue, tape) as feed:
        first = venue.await_connection(1)
        first.send(frame(1))
        venue.await_connection(2)
        assert feed.session.reconnects == 0
        assert feed.session.renewals >= 1
        eventually(lambda: not first.open, say="the old connection was not closed")


def test_renewal_overlaps_without_loss_or_doubling(venue, tape):
    tuning = replace(FAST, renew_s=0.3, stale_s=30)
    with Feed(venue, tape, tuning) as feed:
        venue.await_connection(1)
        sent = []
        while len(venue.connections) < 4:
            sent.append(len(sent) + 1)
            venue.send(frame(sent[-1]))
            eventually(lambda: sent[-1] in feed.ids())
        assert feed.ids() == sent
        assert feed.session.reconnects == 0
        assert feed.line.sequence.counts.gaps == 0
        assert feed.line.sequence.counts.duplicates > 0, "both connections were read"


def test_an_announced_shutdown_renews_before_the_cut(venue, tape):
    with Feed(venue, tape, replace(FAST, stale_s=30)) as feed:
        first = venue.await_connection(1)
        first.send(frame(1), json.dumps({"e": "serverShutdown", "E": 1}))
        second = venue.await_connection(2)
        assert first.open
        first.cut()
        second.send(frame(2))
        feed.await_ids(1, 2)
        assert (feed.session.renewals, feed.session.reconnects) == (1, 0)


def test_garbage_goes_to_the_letters_and_the_trades_around_it_to_the_tape(venue, tape):
    with Feed(venue, tape) as feed:
        connection = venue.await_connection(1)
        connection.send(frame(1), "garbage", frame(2, p="1.123456789"), frame(3), '{"e":"kline"}')
        feed.await_ids(1, 3)
        eventually(lambda: len(tape.letters) == 2)
        assert feed.intake.skipped == {"kline": 1}
        assert feed.line.sequence.gaps == ((2, 2),)


def test_a_frame_that_is_too_large_costs_the_connection_not_the_feed(venue, tape):
    with Feed(venue, tape) as feed:
        venue.await_connection(1).send("x" * (2 << 20))
        venue.await_connection(2).send(frame(1))
        feed.await_ids(1)


def test_a_tape_that_is_away_stops_the_reading_and_loses_nothing(venue, tape):
    ids = list(range(1, 2001))
    with Feed(venue, tape, queue_max=50) as feed:
        connection = venue.await_connection(1)
        tape.away = True
        connection.send(*map(frame, ids))
        eventually(lambda: feed.intake.blocked)
        eventually(lambda: feed.pump.frames_waiting + feed.intake.refused > 0)
        assert feed.line.acknowledged_id is None
        tape.away = False
        feed.await_ids(*ids)
        eventually(lambda: feed.line.acknowledged_id == 2000)
        assert len(venue.connections) == 1, "silence of our own making is not the venue's"


def test_the_end_flushes_what_was_refused(venue, tape):
    with Feed(venue, tape, queue_max=5) as feed:
        connection = venue.await_connection(1)
        connection.send(frame(1))
        feed.await_ids(1)
        tape.away = True
        connection.send(*map(frame, range(2, 22)))
        eventually(lambda: feed.intake.blocked)
        tape.away = False
        feed.stop()
        ids = feed.ids()
        assert ids == list(range(1, len(ids) + 1))
        assert len(ids) >= 7
        assert tape.board(topics.COVERAGE).read_all()[PROMISE]["trade_id"] == ids[-1]


def test_a_producer_that_failed_for_good_ends_the_feed(venue, tape):
    with Feed(venue, tape) as feed:
        venue.await_connection(1)
        feed.producer.failure = Data(Reason.TOPIC_RECREATED, "fatal")
        assert eventually(lambda: feed.failure).reason is Reason.TOPIC_RECREATED


def test_stopping_while_connecting_is_an_end_too(venue, tape):
    venue.refusing = True
    with Feed(venue, tape):
        eventually(lambda: venue.refused)


BOTH = ("BTCUSDT", "SHIBUSDT")


def connection_of(venue, symbol):
    """The newest open connection of a symbol."""
    return eventually(
        lambda: [
            each for each in venue.open_connections if each.streams == [f"{symbol.lower()}@trade"]
        ]
    )[-1]


def test_a_shut_intake_closes_its_connection_alone_and_its_ids_are_a_refused_gap(venue, tape):
    with Feed(venue, tape, symbols=BOTH) as feed:
        btc, shib = (connection_of(venue, symbol) for symbol in BOTH)
        btc.send(frame(1))
        shib.send(frame(1, "SHIBUSDT"))
        feed.await_ids(1)
        feed.await_ids(1, line=1)
        assert feed.connected.wait(5)
        feed.read.remove("SHIBUSDT")
        eventually(lambda: not shib.open)
        assert btc.open
        assert feed.pump.connected
        assert feed.pump.hears(feed.lines[0])
        assert not feed.pump.hears(feed.lines[1])
        btc.send(frame(2))
        feed.await_ids(1, 2)
        feed.read.add("SHIBUSDT")
        connection_of(venue, "SHIBUSDT").send(frame(7, "SHIBUSDT"))
        feed.await_ids(1, 7, line=1)
        ((instrument, run),) = eventually(lambda: feed.gaps.runs)
        assert (instrument.symbol, run.first_id, run.last_id) == ("SHIBUSDT", 2, 6)
        assert run.cause is Cause.REFUSED
        assert [each.session.reconnects for each in feed.pump.subscriptions] == [0, 0]


def test_a_feed_that_refuses_everything_serves_and_takes_all_once_it_may(venue, tape):
    feed = Feed(venue, tape, symbols=BOTH)
    feed.read.clear()
    with feed:
        assert feed.connected.wait(5), "refusing is its work"
        assert not feed.pump.connected
        assert venue.connections == []
        feed.read.update(BOTH)
        for symbol in BOTH:
            connection_of(venue, symbol).send(frame(5, symbol))
        feed.await_ids(5)
        feed.await_ids(5, line=1)
        feed.read.clear()
        eventually(lambda: not venue.open_connections)
        assert not feed.pump.connected


def test_an_intake_that_shuts_while_it_connects_leaves_nothing_open(venue, tape):
    venue.refusing = True
    with Feed(venue, tape, symbols=BOTH) as feed:
        eventually(lambda: venue.refused)
        feed.read.clear()
        eventually(lambda: all(each.session.state is State.PAUSED for each in subscriptions(feed)))
        venue.refusing = False
        assert venue.open_connections == []
        feed.read.update(BOTH)
        connection_of(venue, "SHIBUSDT").send(frame(3, "SHIBUSDT"))
        feed.await_ids(3, line=1)


def test_a_lost_connection_interrupts_the_symbols_of_its_group_alone(venue, tape):
    with Feed(venue, tape, symbols=BOTH) as feed:
        for symbol in BOTH:
            connection_of(venue, symbol).send(frame(1, symbol))
        feed.await_ids(1)
        feed.await_ids(1, line=1)
        lost = connection_of(venue, "SHIBUSDT")
        lost.cut()
        eventually(lambda: not lost.open)
        connection_of(venue, "SHIBUSDT").send(frame(3, "SHIBUSDT"))
        connection_of(venue, "BTCUSDT").send(frame(3))
        found = eventually(lambda: len(feed.gaps.runs) == 2 and feed.gaps.runs)
        causes = {instrument.symbol: run.cause for instrument, run in found}
        assert causes == {"BTCUSDT": Cause.SEQUENCE, "SHIBUSDT": Cause.DISCONNECT}


def subscriptions(feed):
    """Those that have begun."""
    return [each for each in feed.pump.subscriptions if each.session.state is not State.IDLE]


def test_a_trade_is_logged_now_and_then(venue, tape, caplog):
    caplog.set_level("INFO", logger="k2.feed.publish.loop")
    with Feed(venue, tape) as feed:
        venue.await_connection(1).send(frame(7), frame(8))
        feed.await_ids(7, 8)
        said = eventually(
            lambda: [each for each in caplog.messages if each.startswith("Trade")], 10
        )
    assert said[-1] in [
        f"Trade BTCUSDT 100.50000000 x 0.25000000 buy id {trade_id}" for trade_id in (7, 8)
    ]
