"""What control says to all processes: the platform's level, an override, injected pressures.

Three documents on the compacted topic `k2.degradation`, so that each survives a restart of control
and of its readers: the last level holds while control is away. An override and an injected pressure
end at the wall time that they carry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from k2 import limits
from k2.clock import Clock
from k2.degrade.level import Level
from k2.tape.ports import DocumentTopic

PLATFORM: Final = "platform"
OVERRIDE: Final = "override"
INJECTED: Final = "injected"
EVERY_PROCESS: Final = "*"


@dataclass(frozen=True)
class Override:
    """An operator's override of the platform's level.

    Attributes:
        level: that holds meanwhile.
        reason: in the operator's words.
        set_us, until_us: wall microseconds.
    """

    level: Level
    reason: str
    set_us: int
    until_us: int


class DegradationTopic:
    """Reads and writes the documents. Thread-safe.

    Args:
        topic: `k2.degradation`.
        clock: tells what has ended.
    """

    def __init__(self, topic: DocumentTopic, clock: Clock) -> None:
        self._topic = topic
        self._clock = clock

    def level(self) -> Level:
        """Return the level of the platform that holds now: the override's, else as published."""
        override = self.override()
        return self.platform() if override is None else override

    def platform(self) -> Level:
        """Return the platform's level as last published, without overrides; at first NORMAL."""
        return _level(self._document(PLATFORM).get("level")) or Level.NORMAL

    def is_raised_by_injection(self) -> bool:
        """Return whether an injected pressure last raised the platform's level, and it stands."""
        document = self._document(PLATFORM)
        return document.get("injected") is True and bool(_level(document.get("level")))

    def override(self) -> Level | None:
        """Return the level of the override that holds now."""
        override = self.standing_override()
        return override.level if override else None

    def standing_override(self) -> Override | None:
        """Return the override that holds now, with its reason."""
        override = _override(self._document(OVERRIDE))
        return override if override and override.until_us > self._clock.now_us() else None

    def recorded_override(self) -> Override | None:
        """Return the override that held when the platform's level was last published."""
        return _override(self._document(PLATFORM).get("override"))

    def injected(self, process: str) -> dict[str, float]:
        """Return the pressures that are injected into a process now, by signal."""
        standing = self._standing_injections()
        return {
            signal: float(one["pressure"])
            for whose in (EVERY_PROCESS, process)
            for signal, one in standing.get(whose, {}).items()
        }

    def put_platform(
        self, level: Level, override: Override | None = None, *, injected: bool = False
    ) -> None:
        """Publish the platform's level.

        Args:
            level: without overrides.
            override: that holds beside it.
            injected: whether an injected pressure last raised it.
        """
        document = {"level": level.name, "at_us": self._clock.now_us(), "injected": injected}
        self._topic.put(PLATFORM, document | {"override": _document(override)})

    def put_override(self, override: Override | None) -> None:
        """Publish an override, or that there is none; waits for the acknowledgement."""
        self._topic.put(OVERRIDE, _document(override), wait_s=limits.BOARD_WAIT_S)

    def inject(self, process: str, signal: str, pressure: float, until_us: int) -> None:
        """Publish an injected pressure beside those that hold; waits for the acknowledgement."""
        held = self._standing_injections()
        held.setdefault(process, {})[signal] = {"pressure": pressure, "until_us": until_us}
        self._topic.put(INJECTED, held, wait_s=limits.BOARD_WAIT_S)

    def _standing_injections(self) -> dict[str, dict[str, Any]]:
        """Return the injected pressures that have not ended, by process and signal."""
        now_us = self._clock.now_us()
        return {
            whose: {
                str(signal): one
                for signal, one in by_signal.items()
                if isinstance(one, Mapping) and one.get("until_us", 0) > now_us
            }
            for whose, by_signal in self._document(INJECTED).items()
            if isinstance(by_signal, Mapping)
        }

    def _document(self, key: str) -> Mapping[str, Any]:
        return self._topic.current().get(key, {})


def _override(said: object) -> Override | None:
    if not isinstance(said, Mapping):
        return None
    level, until_us, set_us = _level(said.get("level")), said.get("until_us"), said.get("set_us")
    if level is None or not isinstance(until_us, int) or not isinstance(set_us, int):
        return None
    return Override(level, str(said.get("reason", "")), set_us, until_us)


def _document(override: Override | None) -> dict[str, Any] | None:
    if override is None:
        return None
    return {
        "level": override.level.name,
        "reason": override.reason,
        "set_us": override.set_us,
        "until_us": override.until_us,
    }


def _level(name: object) -> Level | None:
    return Level[name] if isinstance(name, str) and name in Level.__members__ else None
