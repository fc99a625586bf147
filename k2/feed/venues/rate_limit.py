"""Limits requests to a venue by weight a minute, as the venue counts it. Sans-IO.

A venue grants each address a weight per wall minute and reports in each answer how much of it was
used by all clients there. A budget is K2's share: within it K2 asks, above it K2 waits for the next
minute, and when the venue says "later" K2 asks nothing until then.
"""

from __future__ import annotations

from k2 import limits

_MINUTE_US = 60_000_000


class WeightBudget:
    """One address's budget. Times are wall microseconds: the venue counts wall minutes.

    Args:
        per_minute: weight that may be used in a minute, by K2 and by others.

    Attributes:
        per_minute: as given.
        spent: weight that K2 spent in all.
    """

    def __init__(self, per_minute: int = limits.FEED_WEIGHT_PER_MINUTE) -> None:
        self.per_minute = per_minute
        self.spent = 0
        self._minute = 0
        self._used = 0
        self._blocked_until_us = 0
        self._left_us = 0  # of that, when it was last looked at

    def used(self, now_us: int) -> int:
        """Return the weight known to be used in the present minute."""
        return self._used if self._minute == now_us // _MINUTE_US else 0

    def wait_s(self, weight: int, now_us: int) -> float:
        """Return the seconds until a request of this weight may be made; 0: now.

        A weight above the whole budget may be spent in a minute of its own.
        """
        blocked_us = self._blocked_us(now_us)
        if blocked_us > 0:
            return blocked_us / 1e6
        used = self.used(now_us)
        if used and used + weight > self.per_minute:
            return (_MINUTE_US - now_us % _MINUTE_US) / 1e6
        return 0.0

    def spend(self, weight: int, now_us: int) -> None:
        """Charge a request of this weight."""
        self._used = self.used(now_us) + weight
        self._minute = now_us // _MINUTE_US
        self.spent += weight

    def correct(self, used: int, now_us: int) -> None:
        """Take the venue's count of the weight used this minute, which includes other clients."""
        self._used = max(self.used(now_us), used)
        self._minute = now_us // _MINUTE_US

    def block(self, seconds: float, now_us: int) -> None:
        """Ask nothing for so many seconds, as the venue demands."""
        seconds = min(max(seconds, 0.0), limits.FEED_REST_BLOCKED_MAX_S)
        self._left_us = max(self._blocked_us(now_us), int(seconds * 1e6))
        self._blocked_until_us = now_us + self._left_us

    def eta_s(self, requests: int, weight: int, now_us: int) -> float:
        """Estimate how long so many requests of this weight take at least."""
        if requests <= 0:
            return 0.0
        a_minute = max(1, self.per_minute // weight)
        now = max(0, (self.per_minute - self.used(now_us)) // weight)
        wait_s = self.wait_s(weight, now_us)
        return wait_s + 60.0 * (max(0, requests - now) / a_minute)

    def _blocked_us(self, now_us: int) -> int:
        """Compute what is left of a block; a clock that was set back adds nothing to it."""
        if self._blocked_until_us - now_us > self._left_us:
            self._blocked_until_us = now_us + self._left_us
        self._left_us = max(0, self._blocked_until_us - now_us)
        return self._left_us
