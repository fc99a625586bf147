"""Shows in the ledger of gaps what the writer defers, while it lasts.

The trades of a partition that a level pauses are on the tape and not in the lake. The ledger calls
their ids OPEN, with the cause SHED: those above the newest id that the lake holds of an instrument,
up to what feeds have covered, as far as the ledger says nothing of them. It is extended while it
lasts. They are FILLED once the lake has gone past all that was on the tape when the partition had
caught up. Any writer closes such an event: the one that made it may die in between.

No feed fetches these ids (`ledger.is_deferred`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from k2 import limits
from k2.clock import Clock
from k2.errors import K2Error
from k2.lake.ingest.reading_order import Backlog
from k2.market.coverage import Coverage
from k2.market.fold import FoldState
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapEvent, GapState, Ledger, filled, is_deferred
from k2.tape.ports import GapEventLog

_log = logging.getLogger(__name__)


def deferred_ids(
    instrument: Instrument, state: FoldState, covered: Coverage, ledger: Ledger
) -> Iterator[tuple[int, int]]:
    """Iterate over runs of ids of a deferred instrument of which the ledger says nothing.

    Args:
        instrument: whose partition is deferred.
        state: of the fold, as far as the writer has read.
        covered: by feeds; each id of it is on the tape or in the ledger.
        ledger: as it stood after the coverage was read.
    """
    seen = state.seen.get(instrument)
    newest = covered.began_after if seen is None else int(seen.intervals[-1, 1])
    first, last = newest + 1, covered.trade_id
    if last - first >= limits.SEQUENCE_JUMP_MAX:
        return  # the venue began its ids again
    for gap in ledger.within(instrument, first, last):
        if first < gap.first_id:
            yield first, gap.first_id - 1
        first = gap.last_id + 1
    if first <= last:
        yield first, last


def deferred_gaps(ledger: Ledger) -> list[GapEvent]:
    """List what the ledger has of deferred ids that are not in the lake yet."""
    return [gap for gap in ledger.gaps() if gap.state is GapState.OPEN and is_deferred(gap)]


@dataclass(frozen=True)
class DeferralSources:
    """What is read of the tape and the writer.

    Attributes:
        backlog: of the writer.
        placed: the partition of each instrument.
        covered: by all feeds, up to now.
        log: of gap events.
    """

    backlog: Callable[[], Backlog]
    placed: Callable[[], Mapping[Instrument, int]]
    covered: Callable[[], Mapping[Instrument, Coverage]]
    log: GapEventLog


class DeferralLedger:
    """Writes to the ledger in a thread that runs `run`.

    Args:
        sources: see there.
        clock: of the events.
        who: makes them; begins with `ledger.LAKE`.

    Attributes:
        left: partitions that were deferred when it began, once that was read; any thread may ask.
    """

    def __init__(self, sources: DeferralSources, clock: Clock, who: str) -> None:
        self._sources = sources
        self._clock = clock
        self._who = who
        self.left: frozenset[int] = frozenset()
        self._ledger = Ledger()
        self._began = False
        self._opened_s = float("-inf")
        self._until: dict[Instrument, int] = {}  # offsets of what has caught up

    def run(self, stopping: threading.Event) -> None:
        """Step until `stopping` is set."""
        pause_s = limits.DEFERRAL_STEP_S
        while not stopping.wait(pause_s):
            try:
                events = self.step()
            except K2Error as error:
                _log.warning("the ledger is not told of deferred trades: %s", error.message)
                events = 0
            pause_s = limits.DEFERRAL_STEP_S + events * limits.DEFERRAL_EVENT_S

    def step(self) -> int:
        """Write what has changed since the last step; returns how many events.

        Raises:
            Unavailable, Overloaded: the tape does not answer; step again.
        """
        backlog = self._sources.backlog()
        covered = self._sources.covered() if backlog.deferring else {}
        for event in self._sources.log.advance():
            self._ledger.apply(event)
        placed, now_us = self._sources.placed(), self._clock.now_us()
        if not self._began:
            found = {placed.get(gap.instrument) for gap in deferred_gaps(self._ledger)}
            self._began, self.left = True, frozenset(each for each in found if each is not None)
        events = [*self._opened(backlog, placed, covered, now_us)]
        if events:
            self._opened_s = self._clock.monotonic_s()
        events += self._closed(backlog, placed, now_us)
        if events:
            self._sources.log.publish(events, limits.BOARD_WAIT_S)
        return len(events)

    def _opened(
        self,
        backlog: Backlog,
        placed: Mapping[Instrument, int],
        covered: Mapping[Instrument, Coverage],
        now_us: int,
    ) -> Iterator[GapEvent]:
        """Make the events of ids that are deferred since the last step."""
        for instrument, partition in sorted(placed.items()):
            reached = backlog.reached.get(partition)
            if partition not in backlog.deferring or instrument not in covered or reached is None:
                continue
            self._until.pop(instrument, None)
            runs = deferred_ids(instrument, reached.state, covered[instrument], self._ledger)
            since_us = min((gap.detected_us for gap in self._of(instrument)), default=now_us)
            for first, last in runs:
                yield GapEvent(
                    instrument, first, last, since_us, Cause.SHED, GapState.OPEN, now_us, self._who
                )

    def _closed(
        self, backlog: Backlog, placed: Mapping[Instrument, int], now_us: int
    ) -> Iterator[GapEvent]:
        """Make the events of ids that the lake holds by now."""
        if backlog.looked_s <= self._opened_s:
            return  # it is not known where the tape ends since
        for gap in deferred_gaps(self._ledger):
            partition = placed.get(gap.instrument, -1)
            reached = backlog.reached.get(partition)
            if reached is None or partition in backlog.deferring:
                continue
            if reached.position >= self._until.setdefault(gap.instrument, reached.end):
                yield replace(filled(gap, now_us), recorded_us=now_us, feed=self._who)

    def _of(self, instrument: Instrument) -> list[GapEvent]:
        return [gap for gap in self._ledger.open(instrument) if is_deferred(gap)]
