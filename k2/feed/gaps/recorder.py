"""Writes a feed's missing ids to the ledger, and returns to the streams what the ledger has.

The streams live in the feed's event loop (`exchange`, many times a second); another thread writes
and reads the ledger (`record`), because that waits for the broker. The recorder
trusts the ledger as read back, never what it meant to write: so its state is in the order of the
log, includes what other feeds found, and is read again after a restart.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from k2 import limits
from k2.clock import Clock
from k2.errors import Invalid
from k2.feed.gaps.backfill_request import FillRequest, read_request
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.feed.publish.pending_gaps import Run
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapEvent, GapState, Ledger, filled, is_deferred
from k2.tape.ports import DocumentTopic, GapEventLog

_LEAPT = f"the venue's ids leapt over more than {limits.SEQUENCE_JUMP_MAX:,}: it began them again"

_log = logging.getLogger(__name__)


class _Found(NamedTuple):
    stream: InstrumentStream
    run: Run


class GapRecorder:
    """Exchanges gaps between the streams of a feed and the ledger.

    Args:
        log: of gaps.
        requests: backfill requests of operators.
        feed: names this feed in events.
        clock: wall time of events; monotonic time of reading them.

    Attributes:
        ledger: as far as it was read; of the thread that calls `record`.
        recent: ids read to be missing, and when; of the same thread.
    """

    def __init__(
        self, *, log: GapEventLog, requests: DocumentTopic, feed: str, clock: Clock
    ) -> None:
        self.ledger = Ledger()
        self.recent = RecentGaps()
        self._log = log
        self._requests = requests
        self._feed = feed
        self._clock = clock
        self._lock = threading.Lock()
        self._found: deque[_Found] = deque()
        self._recorded: deque[_Found] = deque()
        self._late: deque[tuple[Instrument, int]] = deque(maxlen=limits.LEDGER_GAPS_MAX)
        self._on_tape: dict[Instrument, int | None] = {}
        self._silent: frozenset[Instrument] = frozenset()

    def exchange(self, streams: Iterable[InstrumentStream], now_s: float) -> None:
        """Take missing ids from all streams of the feed, and mark those that the ledger has."""
        with self._lock:
            while self._recorded:
                found = self._recorded.popleft()
                found.stream.missing.recorded(found.run)
            idle = not self._found
            silent: set[Instrument] = set()
            for stream in streams:
                known = (
                    stream.resumed_after
                    if stream.acknowledged_id is None
                    else stream.acknowledged_id
                )
                self._on_tape[stream.instrument] = known
                if stream.sequence.first is None:
                    silent.add(stream.instrument)
                if idle:
                    self._found += [_Found(stream, run) for run in stream.missing.due(now_s)]
                while stream.late:
                    self._late.append((stream.instrument, stream.late.popleft()))
            self._silent = frozenset(silent)

    def on_tape(self, instrument: Instrument) -> int | None:
        """Return the newest id known to be on the tape, now or at the start; None before any."""
        with self._lock:
            return self._on_tape.get(instrument)

    def silent(self) -> frozenset[Instrument]:
        """Return the instruments that printed nothing in this run."""
        with self._lock:
            return self._silent

    def wanted(self, instrument: Instrument) -> tuple[GapEvent, ...]:
        """Return the open gaps that are to be fetched, ascending: not what the lake defers."""
        return tuple(gap for gap in self.ledger.open(instrument) if not is_deferred(gap))

    def record(self, instruments: Iterable[Instrument]) -> None:
        """Write new gaps, late ids and requests of this feed's instruments to the ledger; read it.

        Raises:
            Unavailable, Overloaded: the tape does not answer; call again.
        """
        with self._lock:
            found, late = list(self._found), list(self._late)
        self.publish([self._noted(each) for each in found])
        with self._lock:
            for _ in found:
                self._recorded.append(self._found.popleft())
        self._take_requests(frozenset(instruments))
        self.advance()
        self.publish([gap for arrival in late for gap in self._healed(*arrival)])
        with self._lock:
            for _ in late:
                self._late.popleft()

    def publish(self, events: Sequence[GapEvent]) -> None:
        """Append events to the ledger and read it to its end.

        Raises:
            Unavailable, Overloaded: not all were acknowledged; repeating them is harmless.
        """
        if events:
            now_us = self._clock.now_us()
            stamped = [replace(each, recorded_us=now_us, feed=self._feed) for each in events]
            self._log.publish(stamped, limits.BOARD_WAIT_S)
            self.advance()

    def advance(self) -> None:
        """Read the ledger to its present end."""
        for event in self._log.advance():
            self.ledger.apply(event)
            if event.state is GapState.OPEN:
                now_s = self._clock.monotonic_s()
                self.recent.add(event.instrument, event.first_id, event.last_id, now_s)

    def _noted(self, found: _Found) -> GapEvent:
        run = found.run
        return GapEvent(
            instrument=found.stream.instrument,
            first_id=run.first_id,
            last_id=run.last_id,
            state=run.state,
            cause=run.cause,
            detected_us=run.detected_us,
            recorded_us=0,
            feed=self._feed,
            reason=_LEAPT if run.state is GapState.UNFILLABLE else None,
        )

    def _healed(self, instrument: Instrument, trade_id: int) -> list[GapEvent]:
        """Make FILLED events for an id that came by itself and is open in the ledger."""
        now_us = self._clock.now_us()
        return [
            filled(gap, now_us)
            for gap in self.ledger.within(instrument, trade_id, trade_id)
            if gap.state is GapState.OPEN and not is_deferred(gap)
        ]

    def _take_requests(self, instruments: frozenset[Instrument]) -> None:
        for key, document in self._requests.current().items():
            try:
                request = read_request(document)
            except Invalid as error:
                _log.warning("a request to backfill cannot be read: %s", error.message)
                self._requests.put(key, None)
                continue
            if request.instrument in instruments:
                self.publish([_asked(request, self._feed)])
                self._requests.put(key, None)


def _asked(request: FillRequest, feed: str) -> GapEvent:
    return GapEvent(
        instrument=request.instrument,
        first_id=request.first_id,
        last_id=request.last_id,
        state=GapState.OPEN,
        cause=Cause.REQUESTED,
        detected_us=request.requested_us,
        recorded_us=0,
        feed=feed,
    )


class _Reported(NamedTuple):
    at_s: float
    instrument: Instrument
    first_id: int
    last_id: int


class RecentGaps:
    """Ids reported missing, and when this feed read of them. Pure; not thread-safe.

    A venue's REST may lag its own stream, so its word that it lacks an id counts only when the id
    has been missing for a while. The feed that asks measures that time from when it read of the
    gap: another feed or an operator's request may have written the gap, with another clock. A
    restart reads the ledger again and waits again.

    Args:
        runs_max: runs remembered; the time of an older run counts for every id.
    """

    def __init__(self, runs_max: int = limits.LEDGER_GAPS_MAX) -> None:
        self._runs_max = runs_max
        self._reported: deque[_Reported] = deque()
        self._forgotten_s = float("-inf")

    def add(self, instrument: Instrument, first_id: int, last_id: int, at_s: float) -> None:
        """Add ids, both ends inclusive; `at_s` is monotonic and never falls."""
        self._reported.append(_Reported(at_s, instrument, first_id, last_id))
        if len(self._reported) > self._runs_max:
            self._forgotten_s = self._reported.popleft().at_s

    def overlaps(self, instrument: Instrument, first_id: int, last_id: int, since_s: float) -> bool:
        """Return whether any of these ids was reported after `since_s`."""
        for run in reversed(self._reported):
            if run.at_s <= since_s:
                return False
            if run.instrument == instrument and run.first_id <= last_id and first_id <= run.last_id:
                return True
        return self._forgotten_s > since_s
