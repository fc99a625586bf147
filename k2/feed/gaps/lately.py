"""Which ids a feed heard of only lately as missing. Pure.

A venue's REST may be behind its own stream, so its word that it has not got an id is believed only
when the id has been missing for a while. That while is measured by the feed that asks, from when it
read of the gap: who wrote the gap down may be another feed, or a person's request, with another
clock. A restart reads the ledger anew and waits anew, which costs nothing but that while.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from k2 import limits
from k2.market.instrument import Instrument


class _Heard(NamedTuple):
    at_s: float
    instrument: Instrument
    first_id: int
    last_id: int


class Lately:
    """See the module. Not thread-safe.

    Args:
        runs_max: runs remembered; those beyond make all ids count as heard of when they were.
    """

    def __init__(self, runs_max: int = limits.LEDGER_GAPS_MAX) -> None:
        self._runs_max = runs_max
        self._heard: deque[_Heard] = deque()
        self._forgotten_s = float("-inf")

    def hear(self, instrument: Instrument, first_id: int, last_id: int, at_s: float) -> None:
        """Ids, both ends inclusive, are said to be missing; `at_s` is monotonic and never falls."""
        self._heard.append(_Heard(at_s, instrument, first_id, last_id))
        if len(self._heard) > self._runs_max:
            self._forgotten_s = self._heard.popleft().at_s

    def holds(self, instrument: Instrument, first_id: int, last_id: int, since_s: float) -> bool:
        """Whether any of these ids was heard of after `since_s`."""
        for one in reversed(self._heard):
            if one.at_s <= since_s:
                return False
            if one.instrument == instrument and one.first_id <= last_id and first_id <= one.last_id:
                return True
        return self._forgotten_s > since_s
