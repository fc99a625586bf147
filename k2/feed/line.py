"""One instrument's way from the venue to the tape: what was seen, sent and acknowledged.

The *high water* of a line is an id such that it, and every trade of this run sent before it, is
acknowledged by the broker: what the feed may promise to others. It is published, survives the
process, and after a restart everything between it and the first id is a gap that was missed.
"""

from __future__ import annotations

from collections import deque

from k2.errors import K2Error
from k2.market.instrument import Instrument
from k2.market.sequence import Finding, Sequence


class Line:
    """The line of one instrument.

    Args:
        instrument: whose.
        partition: where its trades go.
        acknowledged: the high water an earlier run published; None without one.

    Attributes:
        key: of its messages.
        sequence: the check of its ids.
        high_water: see the module; None until something is acknowledged in this run.
        acknowledged: trades acknowledged in this run.
        failure: why a trade of it will never be acknowledged; the feed must not go on.
    """

    def __init__(self, instrument: Instrument, partition: int, acknowledged: int | None) -> None:
        self.instrument = instrument
        self.partition = partition
        self.key = instrument.key.encode()
        self.resumed_after = acknowledged
        self.sequence = Sequence(acknowledged)
        self.high_water: int | None = None
        self.acknowledged = 0
        self.failure: K2Error | None = None
        self._flying: deque[Flight] = deque()

    @property
    def flying(self) -> int:
        """Trades sent and not yet acknowledged, or acknowledged out of order."""
        return len(self._flying)

    def prepare(self, trade_id: int, finding: Finding) -> Flight:
        """Something to call with the tape's answer; `launched` when the tape took the trade."""
        return Flight(self, trade_id, finding is Finding.RESET)

    def launched(self, flight: Flight) -> None:
        """The tape has taken a trade; its answer will come."""
        self._flying.append(flight)

    def land(self) -> None:
        """Raise the high water over every flight that, with all before it, has landed."""
        flying = self._flying
        while flying and flying[0].landed:
            flight = flying.popleft()
            self.acknowledged += 1
            if self.high_water is None or flight.anew or flight.trade_id > self.high_water:
                self.high_water = flight.trade_id


class Flight:
    """One trade on its way; called by the producer with the tape's answer."""

    __slots__ = ("anew", "landed", "line", "trade_id")

    def __init__(self, line: Line, trade_id: int, anew: bool) -> None:
        self.line = line
        self.trade_id = trade_id
        self.anew = anew
        self.landed = False

    def __call__(self, offset: int | None, error: K2Error | None) -> None:
        """The tape's answer: an offset, or why there will be none."""
        if error is not None:
            self.line.failure = error
        else:
            self.landed = True
            self.line.land()
