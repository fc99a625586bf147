"""Time as an argument: nothing in K2 asks the operating system itself (STYLE rule 5)."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What K2 may know of time."""

    def now_us(self) -> int:
        """Wall time in microseconds since 1970-01-01 UTC; may jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back, from an arbitrary start."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for `seconds`."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now_us(self) -> int:
        """See `Clock`."""
        return time.time_ns() // 1000  # noqa: TID251 the one place that asks the machine

    def monotonic_s(self) -> float:
        """See `Clock`."""
        return time.monotonic()  # noqa: TID251 the one place that asks the machine

    def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        time.sleep(seconds)  # noqa: TID251 the one place that asks the machine


class ManualClock:
    """A clock that moves only when told to; sleeping moves it. Thread-safe."""

    def __init__(self, now_us: int = 1_600_000_000_000_000) -> None:
        self._now_us = now_us
        self._lock = threading.Lock()

    def now_us(self) -> int:
        """See `Clock`."""
        with self._lock:
            return self._now_us

    def monotonic_s(self) -> float:
        """See `Clock`."""
        return self.now_us() / 1e6

    def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Move the clock by `seconds`."""
        with self._lock:
            self._now_us += int(seconds * 1e6)
