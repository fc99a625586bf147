"""Runs a feed: publishes a venue's trades to the tape, and backfills missing ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np

from k2 import limits
from k2.clock import Clock
from k2.degrade.signals import Signal
from k2.errors import Reason, Unavailable
from k2.feed.connection.intake import Intake
from k2.feed.connection.session import Session, SessionTimes
from k2.feed.connection.socket import open_socket
from k2.feed.gaps.backfill_thread import Backfill
from k2.feed.gaps.filler import Filler
from k2.feed.gaps.recorder import GapRecorder
from k2.feed.gaps.sender import Place, Sender
from k2.feed.publish.coverage_topic import CoverageTopic
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.feed.publish.loop import FeedLoop
from k2.feed.publish.malformed_frames import DeadLetterPublisher
from k2.feed.publish.publisher import TradePublisher
from k2.feed.venues.binance import BinanceSource
from k2.feed.venues.binance_history import BinanceHistory, rest_url
from k2.feed.venues.history import HttpFetch
from k2.feed.venues.rate_limit import WeightBudget
from k2.feed.venues.source import Source
from k2.market import schema
from k2.market.events import Trade
from k2.market.instrument import Instrument, Priorities
from k2.metrics import Labelled, exported
from k2.settings import FeedSettings, Settings
from k2.tape import topics
from k2.tape.avro.trade_codec import encode_trade
from k2.tape.partition_map import PartitionMap
from k2.tape.ports import DocumentTopic, GapEventLog, RecordSender
from k2.tape.producer import TapeProducer
from k2.tape.schema_registry import SchemaStore, fingerprint
from k2.telemetry import Counter, Gauge
from servers.heartbeat import STARTING
from servers.process import Process
from servers.processes.feed_measures import measure_feed
from servers.runtime import Runtime

_GAPS_SHOWN = 10
_RATE_OVER_S = 0.5
_UNKNOWN = "the venue does not know {}: nothing comes of it; mend feed.symbols"

_log = logging.getLogger(__name__)


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Feed the tape until asked to stop; 0 when it ended cleanly.

    Raises:
        Invalid: BAD_SETTING.
        Unavailable, Data: the tape will take nothing more.
    """
    source = BinanceSource(
        url=settings.feed.venue_url,
        exchange=settings.feed.exchange,
        symbols=settings.feed.symbols,
        source=settings.feed.source,
    )
    with Process.running("feed", settings, runtime, settings.feed.name) as process:
        clients = process.clients
        tape, requests = clients.producer, clients.topic(topics.BACKFILLS)
        coverage = CoverageTopic(clients.topic(topics.COVERAGE), settings.feed.name, runtime.run_id)
        schema_id = runtime.retry_until_stopped(lambda: _schema_id(settings, clients.schemas))
        placement = runtime.retry_until_stopped(clients.partition_map)
        if schema_id is None or placement is None:
            return 0
        streams = runtime.retry_until_stopped(lambda: _streams(source, placement, coverage))
        if streams is None:
            return 0
        encode = partial(encode_trade, schema_id=schema_id)
        letters = DeadLetterPublisher(clients.dead_letters, f"feed:{source.name}:{runtime.run_id}")
        publisher = TradePublisher(
            source=source,
            tape=tape,
            streams=streams,
            encode=encode,
            letters=letters,
            headers={"source": settings.feed.source.encode()},
        )
        sender = sender_of(tape, streams, encode, runtime)
        intake = _intake(process, source)
        backfill = backfill_of(settings, runtime, sender, clients.gap_log, requests, intake.fills)
        loop = FeedLoop(
            publisher=publisher,
            tape=tape,
            letters=letters,
            gaps=backfill,
            coverage=coverage,
            clock=runtime.clock,
        )
        _subscribe(loop, source, intake, sessions_of(settings, runtime))
        gauges = FeedGauges(settings.feed, runtime.clock, publisher, tape, loop)
        process.counters.add(gauges.counters)
        process.counters.add(intake.counters)
        process.measures.add(tape.stats)
        process.measures.add(lambda: measure_feed(loop, publisher))
        process.start({}, gauges.signals, STARTING)
        _feed(process, loop, letters, backfill)
    return 0


def _schema_id(settings: Settings, schemas: SchemaStore) -> int:
    """Deploy the schema; returns its id, from the cache while the registry is away."""
    cache = settings.data_dir / "schemas"
    try:
        return topics.deploy(settings.tape, schemas)
    except Unavailable as error:
        if error.reason is not Reason.REGISTRY_UNAVAILABLE:
            raise
        ours = fingerprint(schema.avro_schema(schema.TRADE))
        for path in sorted(cache.glob("*.json")):
            if fingerprint(schemas.schema(int(path.stem))) == ours:
                _log.warning("the registry is away; schema id %s was cached", path.stem)
                return int(path.stem)
        raise


def _streams(
    source: Source, placement: PartitionMap, coverage: CoverageTopic
) -> list[InstrumentStream]:
    """Place each instrument, and resume its stream after what an earlier run published."""
    resumed = coverage.read(source.instruments)
    return [
        InstrumentStream(instrument, placement.place(instrument), resumed.get(instrument))
        for instrument in source.instruments
    ]


def _intake(process: Process, source: Source) -> Intake:
    """Make the intake, which obeys the levels of the process from now on."""
    settings = process.settings
    recorded = settings.feed.source == "recorded"
    priorities = Priorities(settings.symbols.priority)
    intake = Intake(source.instruments, priorities, together=recorded)
    process.subscribe(intake.obey)
    return intake


def _subscribe(
    loop: FeedLoop, source: Source, intake: Intake, sessions: Callable[[], Session]
) -> None:
    """Give each group of the intake connections of its own."""
    for group in intake.groups():
        loop.subscribe(
            source.addresses(group),
            sessions,
            open_socket,
            instruments=group,
            wanted=partial(intake.takes, group),
        )


def sessions_of(settings: Settings, runtime: Runtime) -> Callable[[], Session]:
    """Make sessions that share one random generator, seeded by the run."""
    chance = np.random.default_rng(int(runtime.run_id, 16))
    return lambda: Session(chance, SessionTimes(stale_s=settings.feed.stale_s))


def sender_of(
    tape: RecordSender,
    streams: Iterable[InstrumentStream],
    encode: Callable[[Trade], bytes],
    runtime: Runtime,
) -> Sender:
    """Make the sender of backfilled trades; the feed's loop polls the producer."""
    return Sender(
        tape=tape,
        places={stream.instrument: Place(stream.key, stream.partition) for stream in streams},
        encode=encode,
        clock=runtime.clock,
        pause=runtime.stopping.wait,
    )


def backfill_of(
    settings: Settings,
    runtime: Runtime,
    sender: Sender,
    log: GapEventLog,
    requests: DocumentTopic,
    fills: Callable[[Instrument], bool],
) -> Backfill:
    """Make the gap recorder and filler of a feed, not started.

    Args:
        settings: of the process.
        runtime: of the process.
        sender: of backfilled trades.
        log: of gaps.
        requests: of operators.
        fills: whether the gaps of an instrument are filled now.

    Raises:
        Invalid: BAD_SETTING when the venue's address is none.
    """
    recorder = GapRecorder(log=log, requests=requests, feed=settings.feed.name, clock=runtime.clock)
    budget = WeightBudget(settings.feed.rest_weight_per_minute)
    url = settings.feed.rest_url or rest_url(settings.feed.venue_url)
    filler = Filler(
        recorder=recorder,
        history=BinanceHistory(url, HttpFetch(runtime.clock), budget, runtime.clock),
        budget=budget,
        sender=sender,
        clock=runtime.clock,
    )
    filler.fills = fills
    return Backfill(
        recorder=recorder, filler=filler, instruments=sender.instruments, stopping=runtime.stopping
    )


def _feed(
    process: Process, loop: FeedLoop, letters: DeadLetterPublisher, backfill: Backfill
) -> None:
    stopping = process.runtime.stopping
    try:
        letters.start()
        backfill.start()
        asyncio.run(loop.run(stopping, process.serve))
    finally:
        stopping.set()
        backfill.close(limits.CHILD_DRAIN_S - limits.DRAIN_S)


@dataclass(frozen=True)
class SymbolCounters:
    """A feed's counters of one instrument."""

    last_trade_id: int | None
    acknowledged_trade_id: int | None
    resumed_after: int | None
    first_trade_id: int | None
    partition: int
    gaps: Annotated[
        Counter, exported("k2_feed_gaps_total", "Jumps in the ids of a symbol.", "symbol")
    ]
    ids_missing: Annotated[
        Counter, exported("k2_feed_ids_missing_total", "Ids that were jumped over.", "symbol")
    ]
    duplicates: Annotated[
        Counter,
        exported("k2_feed_duplicates_total", "Trades that came again and were not sent.", "symbol"),
    ]
    reordered: Annotated[
        Counter, exported("k2_feed_reordered_total", "Trades that came out of order.", "symbol")
    ]
    resets: Annotated[
        Counter, exported("k2_feed_resets_total", "Ids that began again below.", "symbol")
    ]
    gaps_open: list[list[int]]
    listened: bool


@dataclass(frozen=True)
class FeedCounters:
    """A feed's counters."""

    exchange: str
    source: str
    venue_url: str
    connected: Annotated[
        bool, exported("k2_feed_connected", "1 while every connection to the venue is open.")
    ]
    frames: Annotated[Counter, exported("k2_feed_frames_total", "Frames taken, of any kind.")]
    trades: Counter
    trades_acknowledged: Counter
    trades_per_s: Annotated[
        Gauge, exported("k2_feed_trades_per_second", "Trades taken a second, of late.")
    ]
    frames_skipped: Counter
    skipped: Annotated[
        Mapping[str, Counter],
        exported("k2_feed_frames_skipped_total", "Frames that are not for K2.", "kind"),
    ]
    frames_malformed: Annotated[
        Counter, exported("k2_feed_frames_malformed_total", "Frames that became dead letters.")
    ]
    ids_void: Annotated[
        Counter, exported("k2_feed_ids_void_total", "Ids that the venue printed without a trade.")
    ]
    ids_reused: Annotated[
        Counter, exported("k2_feed_ids_reused_total", "Trades whose ids were used an hour before.")
    ]
    reconnects: Annotated[
        Counter, exported("k2_feed_reconnects_total", "Connections that broke and came back.")
    ]
    renewals: Annotated[
        Counter, exported("k2_feed_renewals_total", "Connections replaced before the venue cuts.")
    ]
    backfill: Mapping[str, Any]
    alerts: list[str]
    symbols: Annotated[Mapping[str, SymbolCounters], Labelled("symbol")]


class FeedGauges:
    """Reads what the feed's heartbeat says.

    Args:
        settings: of the feed.
        clock: tells the time since the rate was read last.
        publisher, tape, loop: of the feed.
    """

    def __init__(
        self,
        settings: FeedSettings,
        clock: Clock,
        publisher: TradePublisher,
        tape: TapeProducer,
        loop: FeedLoop,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._publisher = publisher
        self._tape = tape
        self._loop = loop
        self._last = (clock.monotonic_s(), 0)
        self._per_s = 0.0

    def signals(self) -> dict[str, float | None]:
        """Read the queues."""
        return {
            Signal.FEED_QUEUE: float(self._loop.frames_waiting + self._publisher.refused),
            Signal.PRODUCER_QUEUE: float(self._tape.depth()),
        }

    def counters(self) -> FeedCounters:
        """Read all counters; the rate is of the last second or so."""
        publisher, loop = self._publisher, self._loop
        sessions = [subscription.session for subscription in loop.subscriptions]
        streams = loop.streams
        backfill = loop.gaps.counters()
        reused = sum(stream.reused for stream in streams)
        trades = sum(stream.sequence.counts.seen for stream in streams) + reused - publisher.void
        return FeedCounters(
            exchange=self._settings.exchange,
            source=self._settings.source,
            venue_url=self._settings.venue_url,
            connected=loop.connected,
            frames=publisher.frames,
            trades=trades,
            trades_acknowledged=sum(stream.acknowledged for stream in streams),
            trades_per_s=self._rate(trades),
            frames_skipped=publisher.skipped.total(),
            skipped=dict(publisher.skipped),
            frames_malformed=publisher.malformed,
            ids_void=publisher.void,
            ids_reused=reused,
            reconnects=sum(session.reconnects for session in sessions),
            renewals=sum(session.renewals for session in sessions),
            backfill=backfill,
            alerts=[_UNKNOWN.format(symbol) for symbol in backfill.get("unknown_symbols", ())],
            symbols={
                stream.instrument.symbol: _symbol_counters(stream, hears=loop.hears(stream))
                for stream in streams
            },
        )

    def _rate(self, trades: int) -> float:
        now_s = self._clock.monotonic_s()
        then_s, before = self._last
        if now_s - then_s >= _RATE_OVER_S:  # heartbeat and scrapes ask at any time
            self._last = (now_s, trades)
            self._per_s = round((trades - before) / (now_s - then_s), 1)
        return self._per_s


def _symbol_counters(stream: InstrumentStream, *, hears: bool) -> SymbolCounters:
    counts = stream.sequence.counts
    acknowledged = stream.acknowledged_id
    return SymbolCounters(
        last_trade_id=stream.sequence.last,
        acknowledged_trade_id=stream.resumed_after if acknowledged is None else acknowledged,
        resumed_after=stream.resumed_after,
        first_trade_id=stream.sequence.first,
        partition=stream.partition,
        gaps=counts.gaps,
        ids_missing=counts.missing,
        duplicates=counts.duplicates,
        reordered=counts.reordered,
        resets=counts.resets,
        gaps_open=[list(gap) for gap in stream.sequence.gaps[-_GAPS_SHOWN:]],
        listened=stream.keeps_up() and hears,
    )
