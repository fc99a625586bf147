"""The levels that a process obeys, and how the platform's level follows from all processes. Pure.

The platform's level has a state of its own, moved by `level.step`: it rises after a confirm, and
falls one level at a time after a dwell. Its pressure is the highest of any process. A process that
is LOST presses `LOST_SOON` at first and `LOST_LONG` later; one that drains presses nothing, nor
does one that drained before it was lost.

An operator's override replaces the platform's level, downward too. A process whose own memory (or
that of its control group) or disk demands more than the override keeps to what those demand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from k2.degrade.level import Level
from k2.degrade.policy import POLICIES, Policy
from k2.degrade.signals import Signal

LOST_SOON = 0.6  # SOFT by the default tuning
LOST_LONG = 0.9  # AGGRESSIVE
LOST_LONG_S = 30.0

_OWN = (Signal.RSS_BYTES, Signal.CGROUP_BYTES, Signal.DISK_FREE_BYTES)


@dataclass(frozen=True)
class Levels:
    """The levels as one process knows them.

    Attributes:
        own: of the process.
        platform: as last published.
        override: by an operator; None without one.
        demanded: what the memory and the disk of the process demand by themselves, with a confirm
            and a dwell of its own.
        pressure: the highest of the process, 0..1.
        shadow: levels are published and not obeyed.
    """

    own: Level = Level.NORMAL
    platform: Level = Level.NORMAL
    override: Level | None = None
    demanded: Level = Level.NORMAL
    pressure: float = 0.0
    shadow: bool = False

    @property
    def prescribed(self) -> Level:
        """The level that the process would obey outside of shadow mode."""
        if self.override is not None:
            return max(self.override, self.demanded)
        return max(self.own, self.platform)

    @property
    def effective(self) -> Level:
        """The level that the process obeys."""
        return Level.NORMAL if self.shadow else self.prescribed

    @property
    def policy(self) -> Policy:
        """What the effective level prescribes."""
        return POLICIES[self.effective]


def own_need(pressures: Mapping[str, float]) -> float:
    """Return the pressure of a process's memory and disk, which no override talks away.

    Args:
        pressures: as measured, without what is injected.
    """
    return max(pressures.get(name, 0.0) for name in _OWN)


def lost_pressure(silent_s: float) -> float:
    """Return the pressure of a LOST process that was last heard of so many seconds ago."""
    return LOST_LONG if silent_s >= LOST_LONG_S else LOST_SOON
