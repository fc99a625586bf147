"""DegradationService: the platform's level, from the heartbeats of all processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Final

import grpc

from k2 import limits
from k2.clock import Clock
from k2.degrade.level import Level
from k2.degrade.policy import POLICIES
from k2.degrade.signals import Signal
from k2.degrade.transition import Transition
from k2.errors import Reason, Unavailable
from k2.lake.ingest.transition_list import TransitionReader
from k2.settings import Settings
from k2.v1 import degradation_service_pb2 as pb
from k2.v1 import degradation_service_pb2_grpc as rpc
from servers.degradation_topic import EVERY_PROCESS, DegradationTopic, Override
from servers.heartbeat import Beat, Heartbeats
from servers.services.paging import page_of_newest
from servers.services.wire_values import (
    bad_field,
    duration_us_from,
    level_from,
    level_to,
    time_or_unset,
    time_to,
)

NAME: Final = pb.DESCRIPTOR.services_by_name["DegradationService"].full_name
_POLL_S: Final = 0.5
_REPEAT_S: Final = 5.0


class DegradationService(rpc.DegradationServiceServicer):
    """Implements `protos/k2/v1/degradation_service.proto`.

    Args:
        heartbeats: of all processes.
        degradation: the platform's level.
        transitions: its changes.
        settings: whether levels are obeyed.
        clock: time of what is sent.
        draining: set when the server shuts down.
    """

    def __init__(
        self,
        *,
        heartbeats: Heartbeats,
        degradation: DegradationTopic,
        transitions: TransitionReader,
        settings: Settings,
        clock: Clock,
        draining: threading.Event,
    ) -> None:
        self._heartbeats = heartbeats
        self._state = degradation
        self._transitions = transitions
        self._shadow = settings.degrade.shadow
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
            essence = (self._state.level(), _essence(beats))
            if essence != sent or now_s - sent_s >= _REPEAT_S:
                sent, sent_s = essence, now_s
                yield pb.WatchDegradationResponse(degradation=self._made(beats))
            version = self._heartbeats.wait(int(version), _POLL_S)
            if self._draining.is_set():
                raise Unavailable(Reason.DRAINING, "the server is shutting down")

    def SetOverride(
        self, request: pb.SetOverrideRequest, context: grpc.ServicerContext
    ) -> pb.SetOverrideResponse:
        """Replace the platform's level for a while."""
        now_us = self._clock.now_us()
        until_us = now_us + _duration_us(request, limits.OVERRIDE_MAX_S)
        if not 0 < len(request.reason) <= limits.OVERRIDE_REASON_MAX:
            raise bad_field("reason", f"a reason of 1 to {limits.OVERRIDE_REASON_MAX} characters")
        override = Override(
            level_from(request.level, "level"), request.reason, set_us=now_us, until_us=until_us
        )
        self._state.put_override(override)
        return pb.SetOverrideResponse(override=_override(override))

    def ClearOverride(
        self, request: pb.ClearOverrideRequest, context: grpc.ServicerContext
    ) -> pb.ClearOverrideResponse:
        """End an override."""
        ended = self._state.standing_override()
        self._state.put_override(None)
        return pb.ClearOverrideResponse(ended=_override(ended))

    def InjectPressure(
        self, request: pb.InjectPressureRequest, context: grpc.ServicerContext
    ) -> pb.InjectPressureResponse:
        """Set the pressure of a signal for a while."""
        until_us = self._clock.now_us() + _duration_us(request, limits.INJECTION_MAX_S)
        if request.signal not in list(Signal):
            raise bad_field("signal", f"{request.signal[:64]!r} is none of {', '.join(Signal)}")
        if not 0.0 <= request.pressure <= 1.0:
            raise bad_field("pressure", "a pressure is 0 to 1")
        process = request.process or EVERY_PROCESS
        known = [beat.process for beat in self._heartbeats.beats()]
        if process not in (EVERY_PROCESS, *known):
            raise bad_field("process", f"{process[:64]!r} is none of {', '.join(known)}")
        self._state.inject(process, request.signal, request.pressure, until_us)
        return pb.InjectPressureResponse(expire_time=time_to(until_us))

    def ListTransitions(
        self, request: pb.ListTransitionsRequest, context: grpc.ServicerContext
    ) -> pb.ListTransitionsResponse:
        """List the changes of the level, newest first."""
        placed, token = page_of_newest(
            self._transitions.newest,
            lambda each: each.place,
            request.page_size,
            request.page_token,
        )
        return pb.ListTransitionsResponse(
            transitions=[_transition(each.transition) for each in placed], next_page_token=token
        )

    def _made(self, beats: Sequence[Beat]) -> pb.Degradation:
        made = _degradation(self._state, beats, self._clock.now_us())
        made.shadow = self._shadow
        return made


def _essence(beats: Sequence[Beat]) -> list[tuple[str, str, Level]]:
    """Return what makes two states differ enough to be sent."""
    return [(beat.process, beat.state, beat.level) for beat in beats]


def _degradation(state: DegradationTopic, beats: Sequence[Beat], now_us: int) -> pb.Degradation:
    """Convert the platform's level and the heartbeats that cause it."""
    level = state.level()
    return pb.Degradation(
        level=level_to(level),
        summary=POLICIES[level].summary,
        processes=[_process(beat) for beat in beats],
        time=time_to(now_us),
        override=_override(state.standing_override()),
        injected=state.is_raised_by_injection() or any(beat.injected for beat in beats),
    )


def _transition(transition: Transition) -> pb.Transition:
    return pb.Transition(
        time=time_to(transition.at_us),
        from_level=level_to(transition.before),
        to_level=level_to(transition.after),
        cause=transition.cause.value,
        process=transition.process,
        signal=transition.signal,
        reading=transition.reading,
        pressure=transition.pressure,
        threshold=transition.threshold,
        injected=transition.injected,
        reason=transition.reason,
    )


def _override(override: Override | None) -> pb.Override | None:
    if override is None:
        return None
    return pb.Override(
        level=level_to(override.level),
        reason=override.reason,
        set_time=time_to(override.set_us),
        expire_time=time_to(override.until_us),
    )


def _duration_us(request: pb.SetOverrideRequest | pb.InjectPressureRequest, most_s: float) -> int:
    """Return the duration of a request; raises BAD_REQUEST where it is out of bounds."""
    duration_us = duration_us_from(request.duration, "duration")
    if not 0 < duration_us <= most_s * 1e6:
        raise bad_field("duration", f"a duration above 0 and at most {most_s:.0f} s")
    return duration_us


def _process(beat: Beat) -> pb.ProcessDegradation:
    highest_first = sorted(beat.pressures.items(), key=lambda item: (-item[1], item[0]))
    return pb.ProcessDegradation(
        process=beat.process,
        state=beat.state,
        level=level_to(beat.level),
        pressures=[
            pb.Pressure(
                signal=signal,
                reading=beat.signals.get(signal),
                pressure=pressure,
                injected=signal in beat.injected,
            )
            for signal, pressure in highest_first
        ],
        report_time=time_or_unset(beat.at_us or None),
    )
