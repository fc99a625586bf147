"""One instrument's trades between venue and tape: the ids seen, sent and acknowledged.

The *acknowledged id* of a stream is an id that the broker has acknowledged together with every
trade of this run sent before it. A stream is *covered through* an id when every id up to it is on
the tape or in the ledger: coverage stops below the first missing id that the ledger does not have
yet, and below an id that came late and is not acknowledged yet. The coverage is published and
survives the process; after a restart, everything between it and the new run's first id is a gap.

A stream that no earlier run covered *begins* with the first id it hears, and publishes coverage
through the id below before it sends a trade. So a trade that was read and lost with the process,
before it was acknowledged, is a gap too.
"""

from __future__ import annotations

from collections import deque

from k2 import limits
from k2.errors import K2Error
from k2.feed.publish.pending_gaps import PendingGaps
from k2.market.events import DAY_US, Trade
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapState
from k2.market.sequence import Finding, Sequence


class InstrumentStream:
    """The stream of one instrument.

    Args:
        instrument: of the trades.
        partition: of its trades.
        acknowledged: the coverage of an earlier run; None without one.
        missing: gathers the ids that were jumped over.

    Attributes:
        key: of its messages.
        sequence: the check of its ids.
        acknowledged_id: see the module; None until something is acknowledged in this run.
        acknowledged: trades acknowledged in this run.
        void: ids that were printed without a trade.
        reused: trades whose ids this stream had passed an hour of event time before.
        missing: ids that were jumped over and are not in the ledger yet.
        late: ids that came out of order and are acknowledged, the newest; the taker
            removes them.
        failure: why a trade of it will never be acknowledged; the feed must not go on.
        begun: whether its trades may be sent; the coverage topic sets it once it has published
            where the stream begins.
    """

    def __init__(
        self,
        instrument: Instrument,
        partition: int,
        acknowledged: int | None,
        missing: PendingGaps | None = None,
    ) -> None:
        self.instrument = instrument
        self.partition = partition
        self.key = instrument.key.encode()
        self.resumed_after = acknowledged
        self.sequence = Sequence(acknowledged)
        self.acknowledged_id: int | None = None
        self.acknowledged = 0
        self.reused = self.void = 0
        self.missing = missing or PendingGaps()
        self.late: deque[int] = deque(maxlen=limits.FEED_MISSING_MAX)
        self.failure: K2Error | None = None
        self.begun = True
        self._interrupted_after: int | None = None
        self._interrupted_by = Cause.DISCONNECT
        self._heard_before: int | None = None
        self._in_flight: deque[PendingTrade] = deque()
        self._time_max_us = -1  # the greatest event time that can be; before any, negative
        self._reordered: set[int] = set()  # not missing any more, and not acknowledged yet

    @property
    def in_flight(self) -> int:
        """Trades sent and not yet acknowledged, or acknowledged out of order."""
        return len(self._in_flight)

    @property
    def covered_through(self) -> int | None:
        """The id up to which all ids are on the tape or in the ledger; None before any."""
        if self.acknowledged_id is None:
            return None
        lowest = self.missing.lowest
        unsettled = self._reordered if lowest is None else {lowest, *self._reordered}
        return min([self.acknowledged_id, *(trade_id - 1 for trade_id in unsettled)])

    @property
    def beginning(self) -> int | None:
        """The first id of a stream whose trades wait for it to be known; None of all others."""
        return None if self.begun else self.sequence.first

    def keeps_up(self) -> bool:
        """Return whether it hears all, and what it had heard at the last call is acknowledged.

        Not where the connection was lost and nothing was heard since in this run: ids may be
        missing above the newest one, and only the next will show it. For one thread, at intervals.
        """
        heard, self._heard_before = self._heard_before, self.sequence.last
        last = self.acknowledged_id
        acknowledged = heard is None or (last is not None and last >= heard)
        unbroken = self.sequence.last != self._interrupted_after
        return self.sequence.first is not None and unbroken and acknowledged

    def interrupted(self, cause: Cause = Cause.DISCONNECT) -> None:
        """Note that nothing is heard for a while: ids missing after the newest are due to that.

        Args:
            cause: DISCONNECT, the connection was lost; REFUSED, it was shut on purpose, which
                explains more where both happened without a trade between them.
        """
        if cause is Cause.REFUSED or self._interrupted_after != self.sequence.last:
            self._interrupted_after, self._interrupted_by = self.sequence.last, cause

    def observe(self, trade: Trade) -> Finding:
        """Judge a trade by its id and remember it.

        A copy of a trade repeats its time. An earlier id with a far later time is another trade
        of a venue that begins its ids again: it is for the fold to judge, and says nothing of what
        is missing.
        """
        time_us, last = trade.event_time_us, self.sequence.last
        if time_us <= self._time_max_us:
            return self.sequence.observe(trade.trade_id)
        later = 0 <= self._time_max_us < time_us - limits.REUSED_ID_AFTER_S * 1_000_000
        if later and last is not None and trade.trade_id <= last:
            self.reused += 1
            return Finding.REUSED
        finding = self.sequence.observe(trade.trade_id)
        if finding is not Finding.DUPLICATE and time_us <= trade.receive_time_us + DAY_US:
            self._time_max_us = time_us
        return finding

    def note(self, trade_id: int, finding: Finding, at_us: int) -> None:
        """Record the missing ids that a trade out of sequence reveals."""
        if finding is Finding.GAP:
            first, last = self.sequence.newest_gap
            self.missing.jumped(first, last, self._cause(first - 1), at_us)
        elif finding is Finding.REORDERED:
            self.missing.came(trade_id)
            self._reordered.add(trade_id)
        elif finding is Finding.RESET and self.sequence.leapt is not None:
            self.missing.settled(*self.sequence.leapt, GapState.UNFILLABLE, at_us)

    def voided(self, trade_id: int, at_us: int) -> bool:
        """Take an id that was printed without a trade: it goes to the ledger, not to the tape.

        Args:
            trade_id: the id.
            at_us: when it came, wall microseconds.

        Returns:
            Whether this run had not certainly seen it before.
        """
        finding = self.sequence.observe(trade_id)
        if finding is Finding.DUPLICATE:
            return False
        if finding is Finding.REORDERED:
            self.missing.came(trade_id)
        else:
            self.note(trade_id, finding, at_us)
        self.missing.settled(trade_id, trade_id, GapState.VOID, at_us)
        self.void += 1
        rank = finding if finding is Finding.RESET else Finding.NEXT
        pending = PendingTrade(self, trade_id, rank)
        pending.is_trade = False
        self.sent(pending)
        pending(None, None)
        return True

    def _cause(self, last_seen: int) -> Cause:
        if last_seen == self.resumed_after:
            return Cause.OUTAGE
        return self._interrupted_by if last_seen == self._interrupted_after else Cause.SEQUENCE

    def prepare(self, trade_id: int, finding: Finding) -> PendingTrade:
        """Make the callback of a trade; call `sent` when the tape took the trade."""
        return PendingTrade(self, trade_id, finding)

    def sent(self, pending: PendingTrade) -> None:
        """Note that the tape took a trade and will answer."""
        self._in_flight.append(pending)

    def acknowledge(self) -> None:
        """Advance `acknowledged_id` over each trade that is acknowledged with all before it."""
        in_flight = self._in_flight
        while in_flight and in_flight[0].acknowledged:
            trade = in_flight.popleft()
            self.acknowledged += trade.is_trade
            if trade.finding is Finding.REUSED:
                continue
            if trade.finding is Finding.REORDERED:
                self.late.append(trade.trade_id)
                self._reordered.discard(trade.trade_id)
            last = self.acknowledged_id
            if last is None or trade.begins or trade.trade_id > last:
                self.acknowledged_id = trade.trade_id


class PendingTrade:
    """One trade in flight; the producer calls it with the tape's answer.

    An id without a trade is never sent: it keeps its place in the order of those that are.
    """

    __slots__ = ("acknowledged", "finding", "is_trade", "stream", "trade_id")

    def __init__(self, stream: InstrumentStream, trade_id: int, finding: Finding) -> None:
        self.stream = stream
        self.trade_id = trade_id
        self.finding = finding
        self.acknowledged = False
        self.is_trade = True

    @property
    def begins(self) -> bool:
        """Whether the venue restarted its ids with it."""
        return self.finding is Finding.RESET

    def __call__(self, offset: int | None, error: K2Error | None) -> None:
        """Take the tape's answer: an offset, or the error in its place."""
        if error is not None:
            self.stream.failure = error
        else:
            self.acknowledged = True
            self.stream.acknowledge()
