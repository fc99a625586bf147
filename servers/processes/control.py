"""Runs the control process: one address that serves every service of `k2.v1`."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from typing import Final

import grpc

from k2.clock import Clock
from k2.degrade.signals import Signal
from k2.lake.commit.event_files import view_of
from k2.lake.dead_letters.letter_list import LetterReader
from k2.lake.dead_letters.replay import Replayer, ReplayParts
from k2.lake.dead_letters.superseded import SupersededLetters
from k2.lake.iceberg.catalog import Catalog, open_catalog
from k2.lake.iceberg.snapshot import SnapshotReader
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT, TRANSITIONS_LAYOUT
from k2.lake.ingest.transition_list import TransitionReader
from k2.market import schema
from k2.market.instrument import Instrument
from k2.query.admission import Admission
from k2.query.gate import QueryGate
from k2.settings import Settings
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder
from k2.tape.tape_clients import TapeClients
from k2.tape.transition_topic import read_transitions
from k2.telemetry import Counter
from servers.frame_metrics import measure_platform
from servers.heartbeat import Heartbeats
from servers.local.stack_file import failing
from servers.platform_level import PlatformLevel
from servers.probes import answers_http, answers_tcp
from servers.process import Process, Signals
from servers.runtime import Runtime
from servers.services import dead_letter_service as dead_letter
from servers.services import degradation_service, feed_service, query_service, snapshot_service
from servers.services import platform_service as platform
from servers.services.dead_letter_service import DeadLetterService
from servers.services.degradation_service import DegradationService
from servers.services.feed_service import FeedService
from servers.services.gap_queries import BackfillRequests, GapView
from servers.services.grpc_server import GrpcServer
from servers.services.platform_service import Observed, PlatformService, Probe
from servers.services.query_service import ForwardedQueryService
from servers.services.snapshot_service import SnapshotService

_DISTRIBUTION: Final = "k2-lakehouse"
_WAIT_S: Final = 0.5


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Serve until stopped, then drain.

    Raises:
        Unavailable: PORT_IN_USE, or LAKE_UNAVAILABLE when the catalog cannot be opened.
    """
    with Process.running("control", settings, runtime) as process:
        clients, ending = process.clients, process.ending
        catalog = ending.enter_context(closing(open_catalog(settings, runtime.clock)))
        heartbeats = process.follow()
        forwarded = _forwarded(process, heartbeats)
        feeds = FeedService(
            heartbeats=heartbeats,
            gaps=GapView(clients.gap_log),
            desk=BackfillRequests(clients.topic(topics.BACKFILLS), runtime.clock),
            draining=runtime.stopping,
        )
        letters = dead_letter_service(settings, runtime.clock, catalog, clients)
        more = {
            dead_letter.NAME: letters.register,
            query_service.NAME: forwarded.register,
            feed_service.NAME: feeds.register,
        }
        transitions = TransitionReader(
            view=lambda: view_of(catalog, TRANSITIONS_LAYOUT),
            posted=partial(read_transitions, settings.tape.bootstrap),
        )
        server = _server(process, heartbeats, SnapshotReader(catalog), transitions, more)
        ending.callback(server.drain)
        process.counters.add(lambda: ControlCounters(answered=server.admission.answered))
        server.start()
        level = PlatformLevel(
            heartbeats,
            process.degradation,
            clients.topic(topics.TRANSITIONS),
            settings,
            runtime.clock,
        )
        process.on_tick(level.tick)
        probes = {probe.name: probe.alive for probe in _probes(settings)}
        process.measures.add(clients.producer.stats)
        process.measures.add(
            lambda: measure_platform(
                process.name, heartbeats, process.degradation, probes, settings.data_dir
            )
        )
        process.start({"grpc": server.address}, partial(_signals, server))
        server.ready()
        process.serve()
        while not runtime.stopping.wait(_WAIT_S):
            well = process.is_evaluated and not failing(settings.data_dir / "run")
            server.tell(well=well)
    return 0


def _signals(server: GrpcServer) -> Signals:
    """Read what waits in this process."""
    return {
        Signal.QUERIES_QUEUED: float(server.queued),
        Signal.OLDEST_WORK_S: server.longest_wait_s,
    }


def _forwarded(process: Process, heartbeats: Heartbeats) -> ForwardedQueryService:
    """Make what forwards queries, refused here by the level of this process."""
    settings, clock = process.settings, process.runtime.clock
    forwarded = ForwardedQueryService(
        address=lambda: _query_address(settings, heartbeats),
        gate=QueryGate(lambda: process.levels, clock, dwell_s=settings.degrade.dwell_s),
        admission=Admission(pressure=lambda: process.levels.pressure),
    )
    process.ending.callback(forwarded.close)
    return forwarded


@dataclass(frozen=True)
class ControlCounters:
    """The control server's counters."""

    answered: Counter


def _server(
    process: Process,
    heartbeats: Heartbeats,
    snapshots: SnapshotReader,
    transitions: TransitionReader,
    more: Mapping[str, Callable[[grpc.Server], None]],
) -> GrpcServer:
    settings, runtime, degradation = process.settings, process.runtime, process.degradation
    draining = runtime.stopping
    admin = process.clients.admin
    platform_service = PlatformService(
        observed=Observed(
            heartbeats,
            degradation.level,
            _probes(settings),
            topics=lambda: admin.sizes(settings.tape),
        ),
        settings=settings,
        version=importlib.metadata.version(_DISTRIBUTION),
        clock=runtime.clock,
        command=(sys.executable, "-m", "servers"),
    )
    services = {
        **more,
        snapshot_service.NAME: SnapshotService(snapshots=snapshots, draining=draining).register,
        degradation_service.NAME: DegradationService(
            heartbeats=heartbeats,
            degradation=degradation,
            transitions=transitions,
            settings=settings,
            clock=runtime.clock,
            draining=draining,
        ).register,
        platform.NAME: platform_service.register,
    }
    return GrpcServer(
        settings.control.listen, services, runtime.clock, settings.access.trusted_networks
    )


class _AskedPartitionMap:
    """The partition map of the trades topic, which is asked for its id at the first use."""

    def __init__(self, clients: TapeClients) -> None:
        self._map = cache(clients.partition_map)

    def refresh_for(self, instruments: Iterable[Instrument]) -> Mapping[Instrument, int]:
        """Map instruments as `PartitionMap` does; also raises what asking the tape raises."""
        return self._map().refresh_for(instruments)


def dead_letter_service(
    settings: Settings, clock: Clock, catalog: Catalog, clients: TapeClients
) -> DeadLetterService:
    """Make the service; nothing is asked of tape or registry before a call is."""
    letters = LetterReader(
        view=lambda: view_of(catalog, DEAD_LETTERS_LAYOUT),
        posted=clients.dead_letters.read_posted,
        superseded=SupersededLetters(catalog).among,
    )
    replayer = Replayer(
        ReplayParts(
            letters=letters,
            decoder=Decoder(clients.schemas),
            placement=_AskedPartitionMap(clients),
            sender=clients.producer,
            schema_id=lambda: clients.schemas.register(
                topics.subject(settings.tape.topic), schema.avro_schema(schema.TRADE)
            ),
            replays=clients.topic(topics.REPLAYS),
        ),
        clock,
    )
    return DeadLetterService(letters=letters, replayer=replayer)


def _query_address(settings: Settings, heartbeats: Heartbeats) -> str:
    """Find the query server's address: as set, else by its heartbeat; empty while not known."""
    if settings.control.query_address:
        return settings.control.query_address
    beats = {beat.process: beat for beat in heartbeats.beats()}
    return beats["query"].addresses.get("grpc", "")


def _probes(settings: Settings) -> list[Probe]:
    """Broker and registry, which have no heartbeat."""
    bootstrap, registry = settings.tape.bootstrap, settings.tape.registry_url
    return [
        Probe("broker", {"kafka": bootstrap}, lambda: answers_tcp(bootstrap)),
        Probe("registry", {"http": registry}, lambda: answers_http(registry)),
    ]
