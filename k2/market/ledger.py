"""The ledger of gaps: which trade ids are missing, why, and what became of them. Pure.

Each event says "these ids have this state now". `Ledger` folds the events, in the order of the
tape, into the present: for each instrument, disjoint intervals of ids. A later event paints over
what it covers, so an interval may be split, and repeating an event changes nothing.

Four rules keep the picture true and small:

* OPEN over OPEN keeps when and why the ids were first missed: two feeds find the same gap.
* OPEN over VOID changes nothing: an id that was printed without a trade is not missing.
* Neighbours that say the same are one interval; settled ones (FILLED, UNFILLABLE, VOID) also when
  they were settled at different times, as the pages of one backfill are.
* Beyond `limits.LEDGER_GAPS_MAX` intervals of an instrument the oldest settled one is forgotten
  (the table keeps it), a VOID one after all others. If all are open, the two oldest become one,
  with the ids between: to fetch too much is harmless, to forget what is missing is not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from k2 import limits
from k2.market.events import EVENT_TIME_MIN_US, TIME_MAX_US, Fault
from k2.market.instrument import Instrument


class Cause(StrEnum):
    """Why ids are missing."""

    SEQUENCE = "SEQUENCE"  # the venue's own stream skipped them
    DISCONNECT = "DISCONNECT"  # printed while the connection was lost
    OUTAGE = "OUTAGE"  # printed while no feed was running
    SHED = "SHED"  # deferred under load
    REFUSED = "REFUSED"  # the feed could not take them
    EPOCH = "EPOCH"  # lost with an epoch of the tape
    REQUESTED = "REQUESTED"  # not known to be missing: an operator asked to fetch them


LAKE = "lake:"  # begins the names of lake writers that make events


class GapState(StrEnum):
    """The state of missing ids."""

    OPEN = "OPEN"
    FILLED = "FILLED"
    UNFILLABLE = "UNFILLABLE"
    VOID = "VOID"  # printed by the venue, and no trade: there is nothing to fetch


@dataclass(frozen=True)
class GapEvent:
    """These ids have this state now.

    Attributes:
        instrument: whose trades.
        first_id, last_id: missing trade ids, both inclusive.
        detected_us: when they were found missing, microseconds.
        cause: why they are missing.
        state: what became of them.
        recorded_us: when this event was made, microseconds.
        feed: the run of the feed, or what else made this event.
        filled_at_us: when the trades came, microseconds; None unless FILLED.
        reason: why they will not come, in words; None unless UNFILLABLE.
    """

    instrument: Instrument
    first_id: int
    last_id: int
    detected_us: int
    cause: Cause
    state: GapState
    recorded_us: int
    feed: str
    filled_at_us: int | None = None
    reason: str | None = None

    def values(self) -> dict[str, Any]:
        """Return the columns of `schema.GAP` that a message carries; times in microseconds."""
        return {
            "exchange": self.instrument.exchange,
            "symbol": self.instrument.symbol,
            "first_id": self.first_id,
            "last_id": self.last_id,
            "detected": self.detected_us,
            "cause": self.cause.value,
            "state": self.state.value,
            "recorded": self.recorded_us,
            "filled_at": self.filled_at_us,
            "reason": self.reason,
            "feed": self.feed,
        }


def gap_of(values: Mapping[str, Any]) -> GapEvent | Fault:
    """Read the event that `GapEvent.values` describes, or what is wrong with it."""
    try:
        event = GapEvent(
            instrument=Instrument(values["exchange"], values["symbol"]),
            first_id=values["first_id"],
            last_id=values["last_id"],
            detected_us=values["detected"],
            cause=Cause(values["cause"]),
            state=GapState(values["state"]),
            recorded_us=values["recorded"],
            feed=values["feed"],
            filled_at_us=values["filled_at"],
            reason=values["reason"],
        )
    except (KeyError, ValueError):
        return Fault.BAD_VALUE
    fault = check_gap(event)
    return event if fault is Fault.NONE else fault


def check_gap(event: GapEvent) -> Fault:
    """Return what is wrong with an event; NONE when nothing is."""
    exchange, symbol = event.instrument
    named = exchange and symbol and len(f"{exchange}{symbol}".encode()) <= limits.LABEL_BYTES_MAX
    dated = (event.filled_at_us is not None) == (event.state is GapState.FILLED)
    reasoned = (event.reason is not None) == (event.state is GapState.UNFILLABLE)
    if not (named and dated and reasoned):
        return Fault.BAD_VALUE
    times = [event.detected_us, event.recorded_us]
    if event.filled_at_us is not None:
        times.append(event.filled_at_us)
    ordered = 0 <= event.first_id <= event.last_id < 2**63
    timely = all(EVENT_TIME_MIN_US <= time_us <= TIME_MAX_US for time_us in times)
    return Fault.NONE if ordered and timely else Fault.OUT_OF_RANGE


_KEPT = frozenset({GapState.OPEN, GapState.VOID})  # what an OPEN event does not paint over


class Ledger:
    """The present of all instruments. Not thread-safe.

    Attributes:
        forgotten: settled intervals that were dropped to keep the bound.
        joined: open intervals that were joined, with the ids between, to keep it.
    """

    def __init__(self, intervals_max: int = limits.LEDGER_GAPS_MAX) -> None:
        self.forgotten = 0
        self.joined = 0
        self._max = intervals_max
        self._intervals: dict[Instrument, _Intervals] = {}
        self._open: dict[Instrument, tuple[GapEvent, ...]] = {}  # as far as asked for

    def apply(self, event: GapEvent) -> None:
        """Paint one event over what is there.

        Args:
            event: `first_id` is not above `last_id`.
        """
        self._open.pop(event.instrument, None)
        intervals = self._intervals.setdefault(event.instrument, _Intervals())
        intervals.paint(event)
        while len(intervals) > self._max:
            if intervals.forget_oldest_settled():
                self.forgotten += 1
            else:
                intervals.join_oldest()
                self.joined += 1

    def gaps(self, instruments: Iterable[Instrument] | None = None) -> Iterator[GapEvent]:
        """Yield every interval, by instrument and id; of all instruments when none are named."""
        for instrument in sorted(self._intervals if instruments is None else set(instruments)):
            if instrument in self._intervals:
                yield from self._intervals[instrument].gaps

    def open(self, instrument: Instrument) -> tuple[GapEvent, ...]:
        """Return the open gaps of an instrument, ascending."""
        known = self._open.get(instrument)
        if known is None:
            known = tuple(gap for gap in self.gaps([instrument]) if gap.state is GapState.OPEN)
            self._open[instrument] = known
        return known

    def within(self, instrument: Instrument, first_id: int, last_id: int) -> tuple[GapEvent, ...]:
        """Return the intervals that touch a range of ids, cut to it, ascending."""
        intervals = self._intervals.get(instrument)
        return () if intervals is None else intervals.within(first_id, last_id)


def fold_all(events: Iterable[GapEvent]) -> Ledger:
    """Fold events, oldest first, into a new ledger."""
    ledger = Ledger()
    for event in events:
        ledger.apply(event)
    return ledger


class _Intervals:
    """The intervals of one instrument: disjoint, ascending."""

    def __init__(self) -> None:
        self.gaps: list[GapEvent] = []
        self._firsts: list[int] = []

    def __len__(self) -> int:
        return len(self.gaps)

    def paint(self, event: GapEvent) -> None:
        low, high = self._touched(event.first_id, event.last_id)
        covered = self.gaps[low:high]
        painted = list(_outside(covered, event))
        painted += _kept(covered, event) if event.state is GapState.OPEN else [event]
        painted.sort(key=_first)
        low, high = max(0, low - 1), min(len(self.gaps), high + 1)  # a neighbour may say the same
        around = [gap for gap in self.gaps[low:high] if gap not in covered]
        self._swap(low, high, _merged(sorted((*around, *painted), key=_first)))

    def within(self, first_id: int, last_id: int) -> tuple[GapEvent, ...]:
        low, high = self._touched(first_id, last_id)
        return tuple(cut(gap, first_id, last_id) for gap in self.gaps[low:high])

    def forget_oldest_settled(self) -> bool:
        for kept in (_KEPT, frozenset({GapState.OPEN})):
            for at, gap in enumerate(self.gaps):
                if gap.state not in kept:
                    self._swap(at, at + 1, [])
                    return True
        return False

    def join_oldest(self) -> None:
        lower, upper = self.gaps[:2]
        self._swap(0, 2, [replace(lower, last_id=upper.last_id)])

    def _touched(self, first_id: int, last_id: int) -> tuple[int, int]:
        """Find the indices, half-open, of the intervals that share ids with a range."""
        low = bisect_right(self._firsts, first_id)
        if low and self.gaps[low - 1].last_id >= first_id:
            low -= 1
        return low, max(low, bisect_left(self._firsts, last_id + 1))

    def _swap(self, low: int, high: int, gaps: list[GapEvent]) -> None:
        self.gaps[low:high] = gaps
        self._firsts[low:high] = [gap.first_id for gap in gaps]


def cut(gap: GapEvent, first_id: int, last_id: int) -> GapEvent:
    """Cut a gap to a range of ids."""
    return replace(gap, first_id=max(gap.first_id, first_id), last_id=min(gap.last_id, last_id))


def filled(gap: GapEvent, at_us: int) -> GapEvent:
    """Make the event that these ids are on the tape since then."""
    return replace(gap, state=GapState.FILLED, filled_at_us=at_us, reason=None)


def unfillable(gap: GapEvent, reason: str) -> GapEvent:
    """Make the event that these ids will not come, and why."""
    return replace(gap, state=GapState.UNFILLABLE, filled_at_us=None, reason=reason)


def is_deferred(gap: GapEvent) -> bool:
    """Return whether a lake writer defers these ids: they are on the tape, and none is fetched."""
    return gap.cause is Cause.SHED and gap.feed.startswith(LAKE)


def reopened(gap: GapEvent) -> GapEvent:
    """Make the event that these ids are missing, in place of their present state."""
    return replace(gap, state=GapState.OPEN, filled_at_us=None, reason=None)


def void(gap: GapEvent) -> GapEvent:
    """Make the event that the venue printed these ids without a trade."""
    return replace(gap, state=GapState.VOID, filled_at_us=None, reason=None)


def _first(gap: GapEvent) -> int:
    return gap.first_id


def _outside(covered: list[GapEvent], event: GapEvent) -> Iterator[GapEvent]:
    """Return the parts of covered intervals that an event leaves as they are."""
    for gap in covered:
        if gap.first_id < event.first_id:
            yield replace(gap, last_id=event.first_id - 1)
        if gap.last_id > event.last_id:
            yield replace(gap, first_id=event.last_id + 1)


def _kept(covered: list[GapEvent], event: GapEvent) -> list[GapEvent]:
    """Apply an OPEN event to its range: OPEN and VOID stay, the rest becomes the event."""
    parts, free = [], event.first_id
    for gap in covered:
        if gap.state not in _KEPT:
            continue
        part = cut(gap, event.first_id, event.last_id)
        if free < part.first_id:
            parts.append(replace(event, first_id=free, last_id=part.first_id - 1))
        parts.append(part)
        free = part.last_id + 1
    if free <= event.last_id:
        parts.append(replace(event, first_id=free))
    return parts


def _merged(gaps: list[GapEvent]) -> list[GapEvent]:
    merged = gaps[:1]
    for gap in gaps[1:]:
        last = merged[-1]
        if last.last_id + 1 == gap.first_id and _alike(last, gap):
            merged[-1] = _join(last, gap)
        else:
            merged.append(gap)
    return merged


def _alike(lower: GapEvent, upper: GapEvent) -> bool:
    if lower.state is GapState.OPEN and lower.detected_us != upper.detected_us:
        return False
    return (lower.state, lower.cause, lower.reason) == (upper.state, upper.cause, upper.reason)


def _join(lower: GapEvent, upper: GapEvent) -> GapEvent:
    times = [time_us for time_us in (lower.filled_at_us, upper.filled_at_us) if time_us is not None]
    return replace(
        lower,
        last_id=upper.last_id,
        detected_us=min(lower.detected_us, upper.detected_us),
        recorded_us=max(lower.recorded_us, upper.recorded_us),
        filled_at_us=max(times, default=None),
    )
