"""How much may be asked of a venue: weight a minute, as the venue counts it. Sans-IO.

A venue gives each address so much weight a wall minute and tells in each answer how much of it was
used, by whomever. A budget is our share of that: within it we ask, above it we wait for the next
minute, and when the venue says "later" we ask nothing at all until then.
"""

from __future__ import annotations

from k2 import limits

_MINUTE_US = 60_000_000


class WeightBudget:
    """See the module. Times are wall microseconds: the venue counts wall minutes.

    Args:
        per_minute: weight we may see used in a minute, ours and that of others.

    Attributes:
        per_minute: as given.
        spent: weight we spent in all.
    """

    def __init__(self, per_minute: int = limits.FEED_WEIGHT_PER_MINUTE) -> None:
        self.per_minute = per_minute
        self.spent = 0
        self._minute = 0
        self._used = 0
        self._blocked_until_us = 0
        self._left_us = 0  # of that, when it was last looked at

    def used(self, now_us: int) -> int:
        """Weight used in the present minute, as far as is known."""
        return self._used if self._minute == now_us // _MINUTE_US else 0

    def wait_s(self, weight: int, now_us: int) -> float:
        """Seconds until a request of this weight may be made; 0: now.

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
        """A request of this weight is made."""
        self._used = self.used(now_us) + weight
        self._minute = now_us // _MINUTE_US
        self.spent += weight

    def told(self, used: int, now_us: int) -> None:
        """The venue says how much of this minute is used; it knows of others than us."""
        self._used = max(self.used(now_us), used)
        self._minute = now_us // _MINUTE_US

    def block(self, seconds: float, now_us: int) -> None:
        """The venue says to ask nothing for so long."""
        seconds = min(max(seconds, 0.0), limits.FEED_REST_BLOCKED_MAX_S)
        self._left_us = max(self._blocked_us(now_us), int(seconds * 1e6))
        self._blocked_until_us = now_us + self._left_us

    def eta_s(self, requests: int, weight: int, now_us: int) -> float:
        """How long so many requests of this weight will take at the earliest."""
        if requests <= 0:
            return 0.0
        a_minute = max(1, self.per_minute // weight)
        now = max(0, (self.per_minute - self.used(now_us)) // weight)
        wait_s = self.wait_s(weight, now_us)
        return wait_s + 60.0 * (max(0, requests - now) / a_minute)

    def _blocked_us(self, now_us: int) -> int:
        """What is left of a block; a clock that was set back adds nothing to it."""
        if self._blocked_until_us - now_us > self._left_us:
            self._blocked_until_us = now_us + self._left_us
        self._left_us = max(0, self._blocked_until_us - now_us)
        return self._left_us
