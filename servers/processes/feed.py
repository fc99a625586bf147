"""The feed's process: venue → tape, one subscription, for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from k2 import limits
from k2.clock import Clock
from k2.degrade.signals import Signal
from k2.errors import Reason, Unavailable
from k2.feed.connection.session import Session, SessionTimes
from k2.feed.connection.socket import open_socket
from k2.feed.gaps.backfill_thread import Backfill
from k2.feed.publish.coverage_topic import CoverageTopic
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.feed.publish.loop import FeedLoop
from k2.feed.publish.malformed_frames import DeadLetterPublisher
from k2.feed.publish.publisher import TradePublisher
from k2.feed.venues.binance import BinanceSource
from k2.feed.venues.source import Source
from k2.market import schema
from k2.settings import Settings
from k2.tape import topics
from k2.tape.avro.trade_codec import encode_trade
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.partition_map import PartitionMap
from k2.tape.producer import TapeProducer
from k2.tape.schema_registry import SchemaStore, fingerprint
from k2.tape.tape_clients import TapeClients
from servers.heartbeat import SERVING, Heart, Sample, process_signals, progress_told
from servers.processes.filling import backfill_of, sender_of
from servers.runtime import Runtime

_STARTING = "STARTING"
_GAPS_SHOWN = 10
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
    with TapeClients.open(settings, runtime.clock, runtime.stopping.wait) as clients:
        tape, requests = clients.producer, clients.topic(topics.BACKFILLS)
        coverage = CoverageTopic(clients.topic(topics.COVERAGE), settings.feed.name, runtime.run_id)
        schema_id = runtime.patiently(lambda: _schema_id(settings, clients.schemas))
        placement = runtime.patiently(clients.partition_map)
        if schema_id is None or placement is None:
            return 0
        lines = runtime.patiently(lambda: _lines(source, placement, coverage))
        if lines is None:
            return 0
        encode = partial(encode_trade, schema_id=schema_id)
        letters = DeadLetterPublisher(clients.dead_letters, f"feed:{source.name}:{runtime.run_id}")
        intake = TradePublisher(
            source=source,
            tape=tape,
            streams=lines,
            encode=encode,
            letters=letters,
            headers={"source": settings.feed.source.encode()},
        )
        sender = sender_of(tape, lines, encode, runtime)
        backfill = backfill_of(settings, runtime, sender, clients.gap_log, requests)
        pump = FeedLoop(
            publisher=intake,
            tape=tape,
            letters=letters,
            gaps=backfill,
            coverage=coverage,
            clock=runtime.clock,
        )
        pump.subscribe(source.addresses(), sessions_of(settings, runtime), open_socket)
        gauges = Gauges(settings=settings, clock=runtime.clock, intake=intake, tape=tape, pump=pump)
        heart = _heart(settings, runtime, gauges, clients.topic(topics.HEARTBEATS))
        _feed(runtime, gauges, letters, backfill, heart)
    return 0


def _schema_id(settings: Settings, schemas: SchemaStore) -> int:
    """The id of today's schema: from the registry, or while it is away from what was cached."""
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


def _lines(
    source: Source, placement: PartitionMap, coverage: CoverageTopic
) -> list[InstrumentStream]:
    """One line for each instrument, placed, and resumed after what an earlier run published."""
    resumed = coverage.read(source.instruments)
    return [
        InstrumentStream(each, placement.place(each), resumed.get(each))
        for each in source.instruments
    ]


def sessions_of(settings: Settings, runtime: Runtime) -> Callable[[], Session]:
    """Makes sessions that share one generator, seeded by the run."""
    chance = np.random.default_rng(int(runtime.run_id, 16))
    return lambda: Session(chance, SessionTimes(stale_s=settings.feed.stale_s))


def _heart(
    settings: Settings, runtime: Runtime, gauges: Gauges, heartbeats: CompactedTopic
) -> Heart:
    return Heart(
        board=heartbeats,
        clock=runtime.clock,
        process=settings.feed.name,
        run_id=runtime.run_id,
        addresses={},
        sample=progress_told(gauges.sample, "trades_acknowledged", runtime),
    )


def _feed(
    runtime: Runtime, gauges: Gauges, letters: DeadLetterPublisher, backfill: Backfill, heart: Heart
) -> None:

    def connected() -> None:
        gauges.state = SERVING
        heart.beat()
        runtime.emit("serving", addresses={})

    heart.start()
    try:
        letters.start()
        backfill.start()
        asyncio.run(gauges.pump.run(runtime.stopping, connected))
    finally:
        runtime.stopping.set()
        backfill.close(limits.CHILD_DRAIN_S - limits.DRAIN_S)
        heart.close()


class Gauges:
    """What the feed's heart says.

    Attributes:
        state: STARTING until everything is subscribed for the first time, then SERVING.
        pump: as given.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        intake: TradePublisher,
        tape: TapeProducer,
        pump: FeedLoop,
    ) -> None:
        self.state = _STARTING
        self._settings = settings
        self._clock = clock
        self._intake = intake
        self._tape = tape
        self.pump = pump
        self._last = (clock.monotonic_s(), 0)

    def sample(self) -> Sample:
        """Signals and counters now; the rate is since the sample before."""
        waiting = self.pump.frames_waiting + self._intake.refused
        signals = process_signals(self._settings.data_dir) | {
            Signal.FEED_QUEUE: float(waiting),
            Signal.PRODUCER_QUEUE: float(self._tape.depth()),
        }
        return Sample(signals=signals, counters=self._counters(), state=self.state)

    def _counters(self) -> dict[str, Any]:
        intake, sessions = self._intake, [each.session for each in self.pump.subscriptions]
        lines, connected = self.pump.streams, self.pump.connected
        backfill = self.pump.gaps.counters()
        reused = sum(line.reused for line in lines)
        trades = sum(line.sequence.counts.seen for line in lines) + reused - intake.void
        hears = connected and not intake.blocked
        return {
            "exchange": self._settings.feed.exchange,
            "source": self._settings.feed.source,
            "venue_url": self._settings.feed.venue_url,
            "connected": connected,
            "frames": intake.frames,
            "trades": trades,
            "trades_acknowledged": sum(line.acknowledged for line in lines),
            "trades_per_s": self._rate(trades),
            "frames_skipped": intake.skipped.total(),
            "skipped": dict(intake.skipped),
            "frames_malformed": intake.malformed,
            "ids_void": intake.void,
            "ids_reused": reused,
            "reconnects": sum(session.reconnects for session in sessions),
            "renewals": sum(session.renewals for session in sessions),
            "backfill": backfill,
            "alerts": [_UNKNOWN.format(each) for each in backfill.get("unknown_symbols", ())],
            "symbols": {
                line.instrument.symbol: _line_counters(line)
                | {"listened": line.keeps_up() and hears}
                for line in lines
            },
        }

    def _rate(self, trades: int) -> float:
        now_s = self._clock.monotonic_s()
        then_s, before = self._last
        self._last = (now_s, trades)
        return round((trades - before) / (now_s - then_s), 1) if now_s > then_s else 0.0


def _line_counters(line: InstrumentStream) -> dict[str, Any]:
    counts = line.sequence.counts
    acknowledged_id = line.resumed_after if line.acknowledged_id is None else line.acknowledged_id
    return {
        "last_trade_id": line.sequence.last,
        "acknowledged_trade_id": acknowledged_id,
        "resumed_after": line.resumed_after,
        "first_trade_id": line.sequence.first,
        "partition": line.partition,
        "gaps": counts.gaps,
        "ids_missing": counts.missing,
        "duplicates": counts.duplicates,
        "reordered": counts.reordered,
        "resets": counts.resets,
        "gaps_open": [list(gap) for gap in line.sequence.gaps[-_GAPS_SHOWN:]],
    }
