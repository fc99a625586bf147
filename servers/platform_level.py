"""Moves the platform's level, in the control process.

The highest pressure of all processes moves a level that has a confirm, a dwell and one step down at
a time, as each process's own level has. It goes on from the level that was published last, so that
a restart of control changes nothing.
"""

from __future__ import annotations

import logging

from k2.clock import Clock
from k2.degrade.level import LevelState, Tuning, step
from k2.errors import K2Error
from k2.settings import Settings
from servers.degradation_topic import DegradationTopic
from servers.heartbeat import Heartbeats

_log = logging.getLogger(__name__)


class PlatformLevel:
    """Computes and publishes the level. One thread calls `tick`.

    Args:
        heartbeats: of all processes.
        degradation: where the level is published.
        settings: confirm and dwell.
        clock: monotonic time of the level.
    """

    def __init__(
        self,
        heartbeats: Heartbeats,
        degradation: DegradationTopic,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._heartbeats = heartbeats
        self._degradation = degradation
        self._clock = clock
        self._tuning = Tuning(
            confirm_s=settings.degrade.confirm_s, dwell_s=settings.degrade.dwell_s
        )
        self._state: LevelState | None = None

    def tick(self) -> None:
        """Move the level by the newest heartbeats; publish it when it changed."""
        if self._state is None:
            self._state = LevelState(self._degradation.platform())
        before = self._state
        pressure = max((beat.pressure for beat in self._heartbeats.beats()), default=0.0)
        self._state = step(before, pressure, self._clock.monotonic_s(), self._tuning)
        if self._state.level is before.level:
            return
        try:
            self._degradation.put_platform(self._state.level)
        except K2Error as error:
            _log.warning("level not published: %s", error.message)
            self._state = before
