"""DegradationService: the platform's level, from the heartbeats of all processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Final

import grpc

from k2.clock import Clock
from k2.degrade.level import Level
from k2.degrade.policy import POLICIES
from k2.errors import Reason, Unavailable
from k2.v1 import degradation_service_pb2 as pb
from k2.v1 import degradation_service_pb2_grpc as rpc
from servers.heartbeat import Beat, Heartbeats, platform_level
from servers.services.wire_values import level_to, time_or_unset, time_to

NAME: Final = pb.DESCRIPTOR.services_by_name["DegradationService"].full_name
_POLL_S: Final = 0.5
_REPEAT_S: Final = 5.0


class DegradationService(rpc.DegradationServiceServicer):
    """Implements `protos/k2/v1/degradation_service.proto`.

    Args:
        heartbeats: of all processes.
        clock: time of what is sent.
        draining: set when the server shuts down.
    """

    def __init__(self, *, heartbeats: Heartbeats, clock: Clock, draining: threading.Event) -> None:
        self._heartbeats = heartbeats
        self._clock = clock
        self._draining = draining

    def register(self, server: grpc.Server) -> None:
        """Serve on `server`."""
        rpc.add_DegradationServiceServicer_to_server(self, server)

    def GetDegradation(
        self, request: pb.GetDegradationRequest, context: grpc.ServicerContext
    ) -> pb.GetDegradationResponse:
        """Return the level at present."""
        return pb.GetDegradationResponse(degradation=self._made(self._heartbeats.beats()))

    def WatchDegradation(
        self, request: pb.WatchDegradationRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchDegradationResponse]:
        """Stream the level: at once, on each change, and every few seconds."""
        sent: object = None
        sent_s = version = 0.0
        while context.is_active():
            beats, now_s = self._heartbeats.beats(), self._clock.monotonic_s()
            if _essence(beats) != sent or now_s - sent_s >= _REPEAT_S:
                sent, sent_s = _essence(beats), now_s
                yield pb.WatchDegradationResponse(degradation=self._made(beats))
            version = self._heartbeats.wait(int(version), _POLL_S)
            if self._draining.is_set():
                raise Unavailable(Reason.DRAINING, "the server is shutting down")

    def _made(self, beats: Sequence[Beat]) -> pb.Degradation:
        return _degradation(beats, self._clock.now_us())


def _essence(beats: Sequence[Beat]) -> list[tuple[str, str, Level]]:
    """Return what makes two states differ enough to be sent."""
    return [(beat.process, beat.state, beat.level) for beat in beats]


def _degradation(beats: Sequence[Beat], now_us: int) -> pb.Degradation:
    """Convert heartbeats to the platform's level and what causes it."""
    level = platform_level(beats)
    return pb.Degradation(
        level=level_to(level),
        summary=POLICIES[level].summary,
        processes=[_process(beat) for beat in beats],
        time=time_to(now_us),
    )


def _process(beat: Beat) -> pb.ProcessDegradation:
    highest_first = sorted(beat.pressures.items(), key=lambda item: (-item[1], item[0]))
    return pb.ProcessDegradation(
        process=beat.process,
        state=beat.state,
        level=level_to(beat.level),
        pressures=[
            pb.Pressure(signal=signal, reading=beat.signals.get(signal), pressure=pressure)
            for signal, pressure in highest_first
        ],
        report_time=time_or_unset(beat.at_us or None),
    )
