"""Runs the HTTP edge: a client of control and query that speaks HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from prometheus_client.registry import Collector

from k2 import limits
from k2.clock import Clock
from k2.degrade.signals import SOFT_AT_MOST, Scale, Signal, scales
from k2.errors import Internal, Reason
from k2.metrics import EVENTS, FieldCollector
from k2.settings import Settings
from k2.telemetry import Counter
from servers.edge.app import make_app
from servers.edge.malformed import ProblemProtocol
from servers.edge.parts import EdgeParts
from servers.http_server import HttpServer
from servers.process import Process, Signals
from servers.runtime import Runtime

_WAIT_S: Final = 0.5

# What waits here is refused beyond a bound, and the query process presses for its own queue: a
# flood of HTTP requests alone sheds nothing of the tape.
_QUEUED: Final = Scale(0.5 * limits.EDGE_CALLS_MAX, limits.EDGE_CALLS_MAX, SOFT_AT_MOST)
_WAIT: Final = Scale(0.5 * limits.EDGE_CALL_S, limits.EDGE_CALL_S, SOFT_AT_MOST)
SCALES: Final = {**scales(), Signal.QUERIES_QUEUED: _QUEUED, Signal.OLDEST_WORK_S: _WAIT}


@dataclass(frozen=True)
class EdgeCounters:
    """The edge's counters."""

    answered: Counter


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Serve until stopped, then drain.

    Raises:
        Unavailable: PORT_IN_USE.
    """
    with Process.running("edge", settings, runtime) as process:
        fields = (FieldCollector(process.counters), FieldCollector(process.measures))
        parts = parts_of(settings, runtime.clock, (EVENTS, *fields))
        process.ending.callback(parts.close)
        trusted = settings.access.trusted_networks
        server = HttpServer(
            settings.edge.listen, make_app(parts), runtime.clock, trusted, ProblemProtocol
        )
        process.ending.callback(server.drain)
        process.ending.callback(parts.live.close)  # its streams end, or the drain would wait
        process.counters.add(lambda: EdgeCounters(answered=parts.tally.answered))
        server.start()
        process.scales = SCALES
        process.start({"http": server.address}, partial(signals, parts))
        parts.control.submit(parts.connect)
        process.serve()
        while not runtime.stopping.wait(_WAIT_S):
            if not server.alive:
                raise Internal(Reason.INTERNAL, "the HTTP server ended: see the log")
    return 0


def signals(parts: EdgeParts) -> Signals:
    """Read what waits in this process for a thread."""
    threads = (parts.rows, parts.control)
    return {
        Signal.QUERIES_QUEUED: float(max(each.queued for each in threads)),
        Signal.OLDEST_WORK_S: max(each.longest_wait_s for each in threads),
    }


def parts_of(settings: Settings, clock: Clock, collectors: Sequence[Collector] = ()) -> EdgeParts:
    """Make what the edge of these settings is made of; it calls control where they say."""
    parts = EdgeParts.of(
        settings.edge.control_address or settings.control.listen,
        clock,
        settings.access.trusted_networks,
        collectors,
    )
    return replace(parts, prometheus_url=settings.edge.prometheus_url)
