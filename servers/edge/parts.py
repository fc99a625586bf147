"""Joins what the HTTP application is made of, and hands it to its routes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal

from fastapi import Depends, Header
from prometheus_client.registry import Collector
from starlette.requests import Request

from k2 import limits
from k2.clock import Clock
from k2client.errors import K2Error
from servers.edge.calls import CallThreads, Connections, StreamPlaces
from servers.edge.live import LiveTopics
from servers.http_telemetry import Tally


@dataclass(frozen=True)
class EdgeParts:
    """What the application is made of.

    Attributes:
        connections: to K2, for rows and for all else.
        state: the same with a short deadline, for the state of the platform.
        rows: threads that ask for rows.
        control: threads for all else, so that health answers while rows wait.
        streams: places for answers that are sent while they are read.
        live: what is watched.
        clock: time.
        tally: counts the requests.
        trusted: networks whose peers are taken for this machine.
        collectors: of the metrics of this process.
        prometheus_url: of the stack's Prometheus; empty without one.
    """

    connections: Connections
    state: Connections
    rows: CallThreads
    control: CallThreads
    streams: StreamPlaces
    live: LiveTopics
    clock: Clock
    tally: Tally
    trusted: Sequence[IPv4Network | IPv6Network] = ()
    collectors: Sequence[Collector] = ()
    prometheus_url: str = ""

    @classmethod
    def of(
        cls,
        address: str,
        clock: Clock,
        trusted: Sequence[IPv4Network | IPv6Network] = (),
        collectors: Sequence[Collector] = (),
    ) -> EdgeParts:
        """Make the parts that speak to the control server at `address`; nothing is sent yet."""
        connections = Connections(address)
        watching = CallThreads("live", limits.EDGE_LIVE_THREADS, limits.EDGE_WATCHED_MAX, clock)
        return cls(
            connections=connections,
            state=Connections(address, limits.EDGE_STATUS_S),
            rows=CallThreads("rows", limits.EDGE_THREADS, limits.EDGE_CALLS_MAX, clock),
            control=CallThreads(
                "control", limits.EDGE_CONTROL_THREADS, limits.EDGE_CALLS_MAX, clock
            ),
            streams=StreamPlaces(limits.EDGE_STREAMS_MAX),
            live=LiveTopics(connections, watching),
            clock=clock,
            tally=Tally(),
            trusted=trusted,
            collectors=collectors,
        )

    def connect(self) -> None:
        """Make the connections before the first request, which else waits for them."""
        with suppress(K2Error):
            self.state.client().status()
            self.connections.client().status()

    def close(self) -> None:
        """Take no more calls and close the connections."""
        self.live.close()
        self.rows.close()
        self.control.close()
        self.live.threads.close()
        self.connections.close()
        self.state.close()


async def _parts_of(request: Request) -> EdgeParts:  # else FastAPI calls it in a thread
    parts: EdgeParts = request.app.state.parts
    return parts


Parts = Annotated[EdgeParts, Depends(_parts_of)]
RequestClass = Annotated[
    Literal["critical", "interactive", "batch"] | None,
    Header(alias="k2-class", description="how urgent the request is; unset: interactive"),
]
