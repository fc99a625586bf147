"""Moves the platform's level, in the control process, and records each change.

The highest pressure of all processes moves a level that has a confirm, a dwell and one step down at
a time, as each process's own level has. It goes on from the level that was published last, so that
a restart of control changes nothing. Beginning and end of an operator's override are changes too,
also where they fall into a time without control.

A level that an injected pressure raised is marked so until it is NORMAL again, or until another
pressure raises it further: its effects last longer than the injection.

A change is published first and then recorded on the topic of transitions. What cannot be sent yet
is kept, up to a bound, and sent later.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator

from k2 import limits
from k2.clock import Clock
from k2.degrade.level import Level, LevelState, Tuning, step
from k2.degrade.policy import POLICIES
from k2.degrade.transition import Transition, TransitionCause
from k2.errors import K2Error
from k2.metrics import counter
from k2.settings import Settings
from k2.tape.ports import DocumentTopic
from servers.degradation_topic import DegradationTopic, Override
from servers.heartbeat import Heartbeats

TRANSITIONS = counter(
    "k2_degradation_transitions_total",
    "Changes of the platform's level and of overrides, by the level after.",
    "to",
)

_log = logging.getLogger(__name__)


class PlatformLevel:
    """Computes, publishes and records the level. One thread calls `tick`.

    Args:
        heartbeats: of all processes.
        degradation: where the level is published.
        transitions: where its changes are recorded.
        settings: confirm and dwell, and whether levels are obeyed.
        clock: monotonic time of the level, wall time of its changes.
    """

    def __init__(
        self,
        heartbeats: Heartbeats,
        degradation: DegradationTopic,
        transitions: DocumentTopic,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._heartbeats = heartbeats
        self._degradation = degradation
        self._transitions = transitions
        self._clock = clock
        self._tuning = Tuning.of(settings.degrade)
        self._shadow = settings.degrade.shadow
        self._state: LevelState | None = None
        self._override: Override | None = None
        self._injected = False
        self._published_s = clock.monotonic_s()
        self._unsent: deque[Transition] = deque(maxlen=limits.TRANSITIONS_UNSENT_MAX)

    def tick(self) -> None:
        """Move the level by the newest heartbeats; publish and record what changed."""
        if self._state is None:
            self._state = LevelState(self._degradation.platform())
            self._override = self._degradation.recorded_override()
            self._injected = self._degradation.is_raised_by_injection()
        kept = before, _, _ = self._state, self._override, self._injected
        changes = [*self._overridden(before.level), *self._moved(before)]
        if changes or self._is_overdue():
            try:
                self._degradation.put_platform(
                    self._state.level, self._override, injected=self._injected
                )
            except K2Error as error:
                _log.warning("level not published: %s", error.message)
                self._state, self._override, self._injected = kept
                return
            self._published_s = self._clock.monotonic_s()
        for change in changes:
            self._record(change)
        self._send()

    def _overridden(self, platform: Level) -> Iterator[Transition]:
        """Notice that an override has begun, was replaced or has ended."""
        before, now = self._override, self._degradation.standing_override()
        if now == before:
            return
        self._override = now
        stated = now or before
        yield Transition(
            at_us=self._clock.now_us(),
            before=before.level if before else platform,
            after=now.level if now else platform,
            cause=TransitionCause.OVERRIDE if now else TransitionCause.OVERRIDE_ENDED,
            reason=stated.reason if stated else "",
        )

    def _moved(self, before: LevelState) -> Iterator[Transition]:
        """Move the level by the highest pressure; without any pressure, no signal is named."""
        highest = max(
            (
                (pressure, beat.process, signal, beat)
                for beat in self._heartbeats.beats()
                for signal, pressure in beat.pressures.items()
                if pressure > 0.0
            ),
            key=lambda each: each[:3],
            default=None,
        )
        pressure = highest[0] if highest else 0.0
        after = step(before, pressure, self._clock.monotonic_s(), self._tuning)
        self._state = after
        if after.level is before.level:
            return
        rises = after.level > before.level
        thresholds = self._tuning.entries if rises else self._tuning.exits
        raised_by_injection = self._injected
        if rises:
            raised_by_injection = highest is not None and highest[2] in highest[3].injected
        self._injected = raised_by_injection and after.level is not Level.NORMAL
        yield Transition(
            at_us=self._clock.now_us(),
            before=before.level,
            after=after.level,
            cause=TransitionCause.PRESSURE if rises else TransitionCause.CALM,
            process=highest[1] if highest else "",
            signal=highest[2] if highest else "",
            reading=highest[3].signals.get(highest[2]) if highest else None,
            pressure=pressure,
            threshold=thresholds[max(before.level, after.level) - 1],
            injected=raised_by_injection,
        )

    def _is_overdue(self) -> bool:
        """Return whether what was published has not arrived, though it had the time."""
        waited_s = self._clock.monotonic_s() - self._published_s
        assert self._state is not None, "it ticks"
        return (
            waited_s >= limits.HEARTBEAT_STALE_S
            and self._degradation.platform() is not self._state.level
        )

    def _record(self, change: Transition) -> None:
        TRANSITIONS.labels(change.after.name).inc()
        self._unsent.append(change)
        _log.info(
            "%slevel %s after %s: %s",
            "in shadow: " if self._shadow else "",
            change.after.name,
            change.before.name,
            POLICIES[change.after].summary,
            extra={"transition": change.values()},
        )

    def _send(self) -> None:
        while self._unsent:
            try:
                self._transitions.put(f"{self._unsent[0].at_us}", self._unsent[0].values())
            except K2Error as error:
                _log.warning("a change of the level is not recorded yet: %s", error.message)
                return
            self._unsent.popleft()
