"""Time as an argument: components take a `Clock` and never ask the operating system."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What K2 may know of time."""

    def now_us(self) -> int:
        """Return wall time in microseconds since 1970-01-01 UTC; may jump."""

    def monotonic_s(self) -> float:
        """Return seconds that never go back, from an arbitrary start."""

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for `seconds`."""


class SystemClock:
    """The clock of the machine."""

    def now_us(self) -> int:
        """Read the machine's wall clock."""
        return time.time_ns() // 1000  # noqa: TID251 the one place that asks the machine

    def monotonic_s(self) -> float:
        """Read the machine's monotonic clock."""
        return time.monotonic()  # noqa: TID251 the one place that asks the machine

    def sleep(self, seconds: float) -> None:
        """Block the calling thread."""
        time.sleep(seconds)  # noqa: TID251 the one place that asks the machine


class ManualClock:
    """A clock that moves only by `advance` and `sleep`. Thread-safe."""

    def __init__(self, now_us: int = 1_600_000_000_000_000) -> None:
        self._now_us = now_us
        self._lock = threading.Lock()

    def now_us(self) -> int:
        """Return the time set."""
        with self._lock:
            return self._now_us

    def monotonic_s(self) -> float:
        """Return the time set, in seconds."""
        return self.now_us() / 1e6

    def sleep(self, seconds: float) -> None:
        """Move the clock and return at once."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Move the clock by `seconds`."""
        with self._lock:
            self._now_us += int(seconds * 1e6)
