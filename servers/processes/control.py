"""The control process: one address that answers every service of `k2.v1`."""

from __future__ import annotations

import http.client
import importlib.metadata
import json
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import grpc

from k2.lake.iceberg.catalog import open_catalog
from k2.lake.iceberg.snapshot import SnapshotReader
from k2.settings import Settings
from k2.tape import topics
from k2.telemetry import Counter
from servers.heartbeat import Heartbeats
from servers.local.stack_file import failing
from servers.process import Process
from servers.processes.dead_letter import dead_letter_service
from servers.runtime import Runtime
from servers.services import dead_letter_service as dead_letter
from servers.services import degradation_service, feed_service, query_service, snapshot_service
from servers.services import platform_service as platform
from servers.services.degradation_service import DegradationService
from servers.services.feed_service import FeedService
from servers.services.gap_queries import BackfillRequests, GapView
from servers.services.grpc_server import GrpcServer
from servers.services.platform_service import Facts, PlatformService, Probe, Tools
from servers.services.query_service import ForwardedQueryService
from servers.services.snapshot_service import SnapshotService

_DISTRIBUTION: Final = "k2-lakehouse"
_PROBE_S: Final = 0.5
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
        forwarded = ForwardedQueryService(address=lambda: _query_address(settings, heartbeats))
        ending.callback(forwarded.close)
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
        server = _server(settings, runtime, heartbeats, SnapshotReader(catalog), more)
        ending.callback(server.drain)
        process.counters.add(lambda: ControlCounters(answered=server.admission.answered))
        server.start()
        process.start({"grpc": server.address})
        server.ready()
        process.serve()
        while not runtime.stopping.wait(_WAIT_S):
            server.tell(well=not failing(settings.data_dir / "run"))
    return 0


@dataclass(frozen=True)
class ControlCounters:
    """What the control server counts: calls it answered."""

    answered: Counter


def _server(
    settings: Settings,
    runtime: Runtime,
    heartbeats: Heartbeats,
    snapshots: SnapshotReader,
    more: Mapping[str, Callable[[grpc.Server], None]],
) -> GrpcServer:
    draining = runtime.stopping
    platform_service = PlatformService(
        heartbeats=heartbeats,
        probes=_probes(settings),
        settings=settings,
        facts=Facts(importlib.metadata.version(_DISTRIBUTION), source_of(settings)),
        clock=runtime.clock,
        tools=Tools(
            verify=(sys.executable, "-m", "servers", "verify"),
            maintain=(sys.executable, "-m", "servers", "maintain"),
        ),
    )
    services = {
        **more,
        snapshot_service.NAME: SnapshotService(snapshots=snapshots, draining=draining).register,
        degradation_service.NAME: DegradationService(
            heartbeats=heartbeats, clock=runtime.clock, draining=draining
        ).register,
        platform.NAME: platform_service.register,
    }
    return GrpcServer(settings.control.listen, services, runtime.clock)


def source_of(settings: Settings) -> str:
    """What the rows of this data directory are, by its stamp; else what the feed is set to."""
    try:
        stamp = json.loads((settings.data_dir / "stamp.json").read_text())
        return str(stamp["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return settings.feed.source


def _query_address(settings: Settings, heartbeats: Heartbeats) -> str:
    """Where the query server is: as set, else as its heartbeat says; empty while not known."""
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


def answers_tcp(addresses: str) -> bool:
    """Whether something listens at the first of `host:port,...`."""
    host, _, port = addresses.split(",", maxsplit=1)[0].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_PROBE_S):
            return True
    except (OSError, ValueError):
        return False


def answers_http(url: str) -> bool:
    """Whether the schema registry at `url` answers that it is well."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=_PROBE_S)
        try:
            connection.request("GET", f"{parts.path}/subjects")
            return connection.getresponse().status < 500
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException):
        return False
