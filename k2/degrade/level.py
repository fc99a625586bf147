"""The degradation level: how far the highest pressure has risen, with a confirm and a dwell.

A level follows from the *highest* pressure, each in 0..1. It must not flap: work is shed on the way
up and caught up on the way down, and each change costs both. So

* it **rises** to a level once the pressure has stayed at or above that level's entry for
  `confirm_s`; several levels at once if the pressure is that high;
* it **falls** one level at a time, once the pressure has stayed below the current level's exit,
  which is lower than its entry, for `dwell_s`; the next fall takes another dwell.

`step` is a pure function over an explicit state, so any history can be replayed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from k2.settings import DegradeSettings


class Level(IntEnum):
    """How much the platform sheds; a higher number sheds more."""

    NORMAL = 0
    SOFT = 1
    GRACEFUL = 2
    AGGRESSIVE = 3
    CIRCUIT_BREAK = 4


@dataclass(frozen=True)
class Tuning:
    """When the level changes.

    Attributes:
        entries: pressure at which SOFT, GRACEFUL, AGGRESSIVE and CIRCUIT_BREAK are entered.
        exits: pressure below which each is left again; below its entry.
        confirm_s: how long the pressure stays up before the level rises.
        dwell_s: how long the pressure stays down before the level falls by one.
    """

    entries: tuple[float, float, float, float] = (0.5, 0.7, 0.85, 0.98)
    exits: tuple[float, float, float, float] = (0.4, 0.6, 0.75, 0.9)
    confirm_s: float = 0.5
    dwell_s: float = 15.0

    @classmethod
    def of(cls, settings: DegradeSettings) -> Tuning:
        """Return the default thresholds with the times of the settings."""
        return cls(confirm_s=settings.confirm_s, dwell_s=settings.dwell_s)

    def __post_init__(self) -> None:
        assert list(self.entries) == sorted(self.entries), "entries ascend with the level"
        assert all(low < high for low, high in zip(self.exits, self.entries, strict=True))


@dataclass(frozen=True)
class LevelState:
    """The level and what is remembered to change it.

    Attributes:
        level: the level now.
        pressure: the highest pressure of the last step.
        above_since: since when the pressure has been at or above each entry, or None.
        calm_since: since when the pressure has been below the current level's exit, or None.
    """

    level: Level = Level.NORMAL
    pressure: float = 0.0
    above_since: tuple[float | None, ...] = (None, None, None, None)
    calm_since: float | None = None


def level_of(pressure: float, tuning: Tuning | None = None) -> Level:
    """Return the level that a pressure means by itself, without history."""
    entries = (tuning or Tuning()).entries
    return Level(sum(pressure >= entry for entry in entries))


def step(
    state: LevelState, pressure: float, now_s: float, tuning: Tuning | None = None
) -> LevelState:
    """Return the state after one more observation.

    Args:
        state: the state before.
        pressure: the highest pressure, 0..1.
        now_s: when it was observed, monotonic seconds.
        tuning: thresholds and times; the defaults when None.
    """
    tuning = tuning or Tuning()
    above_since = tuple(
        None if pressure < entry else (now_s if since is None else since)
        for entry, since in zip(tuning.entries, state.above_since, strict=True)
    )
    state = replace(state, pressure=pressure, above_since=above_since)
    confirmed = _confirmed(above_since, now_s, tuning.confirm_s)
    if confirmed > state.level:
        return replace(state, level=confirmed, calm_since=None)
    return _fallen(state, now_s, tuning)


def _confirmed(above_since: tuple[float | None, ...], now_s: float, confirm_s: float) -> Level:
    """Return the highest level whose entry has been held for the confirm time."""
    held = [
        level
        for level, since in enumerate(above_since, start=1)
        if since is not None and now_s - since >= confirm_s
    ]
    return Level(max(held, default=0))


def _fallen(state: LevelState, now_s: float, tuning: Tuning) -> LevelState:
    """Fall one level when the calm has lasted long enough, else keep the start of the calm."""
    if state.level is Level.NORMAL or state.pressure >= tuning.exits[state.level - 1]:
        return replace(state, calm_since=None)
    calm_since = now_s if state.calm_since is None else state.calm_since
    if now_s - calm_since < tuning.dwell_s:
        return replace(state, calm_since=calm_since)
    return replace(state, level=Level(state.level - 1), calm_since=None)
