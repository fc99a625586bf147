"""Bounds how many records the writer takes in a second, by a bucket of tokens."""

from __future__ import annotations

from k2 import limits
from k2.clock import Clock

_ROUNDING = 1e-3  # of a record


class Throttle:
    """A bucket that fills at a rate, to what `limits.THROTTLE_BURST_S` bring.

    Args:
        per_s: records; None: no bound.
        clock: monotonic time fills it.
    """

    def __init__(self, per_s: float | None, clock: Clock) -> None:
        self._per_s = per_s
        self._clock = clock
        self._most = max(1.0, (per_s or 0.0) * limits.THROTTLE_BURST_S)
        self._tokens = self._most
        self._filled_s = clock.monotonic_s()

    @property
    def bounds(self) -> bool:
        """Whether there is a bound."""
        return self._per_s is not None

    def room(self) -> int:
        """Return how many records may be taken now, at most a batch."""
        if self._per_s is None:
            return limits.CONSUME_BATCH_RECORDS
        now_s = self._clock.monotonic_s()
        self._tokens = min(self._most, self._tokens + (now_s - self._filled_s) * self._per_s)
        self._filled_s = now_s
        return max(0, min(limits.CONSUME_BATCH_RECORDS, int(self._tokens + _ROUNDING)))

    def take(self, records: int) -> None:
        """Take records out; more than there was room for are owed."""
        self._tokens -= records
