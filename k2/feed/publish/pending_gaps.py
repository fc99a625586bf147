"""Missing ids of one stream, from the jump over them until the ledger has them. Pure.

An id that is missing now may still come by itself: the venue sends two trades out of order, or the
other connection of a renewal is a moment behind. So a run of missing ids rests for a grace period
before it goes to the ledger; ids that come meanwhile leave it. Until the ledger has a run, the
stream's coverage may not pass it (`lowest`): a feed that is killed would otherwise forget it.

Ids that are settled when found go the same way without the grace: an id that was printed without a
trade, and the ids between two lives of a venue's ids.

The number of runs is bounded: beyond it the two that lie closest become one, with the ids between.
Fetching those again is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf

from k2 import limits
from k2.market.ledger import Cause, GapState


@dataclass(frozen=True)
class Run:
    """Missing ids, both ends inclusive.

    Attributes:
        first_id, last_id: the run.
        cause: why they were missed.
        detected_us: when that was seen, wall microseconds.
        due_s: when the grace is over, monotonic; None: not timed yet.
        state: the one that the ledger records.
    """

    first_id: int
    last_id: int
    cause: Cause
    detected_us: int
    due_s: float | None = None
    state: GapState = GapState.OPEN


class PendingGaps:
    """Holds the missing ids of one stream, at most `runs_max` resting runs. Not thread-safe."""

    def __init__(
        self, grace_s: float = limits.FEED_GAP_GRACE_S, runs_max: int = limits.FEED_MISSING_MAX
    ) -> None:
        self._grace_s = grace_s
        self._runs_max = runs_max
        self._resting: list[Run] = []
        self._handed: list[Run] = []

    @property
    def lowest(self) -> int | None:
        """The lowest id that the ledger does not have yet; None when it has all."""
        return min((run.first_id for run in (*self._resting, *self._handed)), default=None)

    def jumped(self, first_id: int, last_id: int, cause: Cause, at_us: int) -> None:
        """Add ids that the stream jumped over."""
        self._resting.append(Run(first_id, last_id, cause, at_us))
        if len(self._resting) > self._runs_max:
            self._join_closest()

    def settled(self, first_id: int, last_id: int, state: GapState, at_us: int) -> None:
        """Add ids that are settled when found: VOID or UNFILLABLE."""
        last = self._resting[-1] if self._resting else None
        if last is not None and last.state is state and last.last_id + 1 == first_id:
            self._resting[-1] = replace(last, last_id=last_id)
            return
        self._resting.append(Run(first_id, last_id, Cause.SEQUENCE, at_us, -inf, state))
        if len(self._resting) > self._runs_max:
            self._join_closest()

    def came(self, trade_id: int) -> None:
        """Take an id that came late out of the resting runs."""
        for at in range(len(self._resting) - 1, -1, -1):  # what comes late was just missed
            run = self._resting[at]
            if run.first_id <= trade_id <= run.last_id:
                before = replace(run, last_id=trade_id - 1)
                after = replace(run, first_id=trade_id + 1)
                parts = [part for part in (before, after) if part.first_id <= part.last_id]
                self._resting[at : at + 1] = parts
                return

    def due(self, now_s: float) -> list[Run]:
        """Return the runs whose grace is over, once each: they belong to the ledger now."""
        if not self._resting:
            return []
        timed = [
            replace(run, due_s=now_s + self._grace_s) if run.due_s is None else run
            for run in self._resting
        ]
        due = [run for run in timed if run.due_s is not None and run.due_s <= now_s]
        self._resting = [run for run in timed if run.due_s is None or run.due_s > now_s]
        self._handed += due
        return due

    def recorded(self, run: Run) -> None:
        """Note that the ledger has a run that `due` returned."""
        self._handed.remove(run)

    def _join_closest(self) -> None:
        runs = sorted(self._resting, key=lambda run: run.first_id)
        between = [upper.first_id - lower.last_id for lower, upper in pairwise(runs)]
        at = between.index(min(between))
        lower, upper = runs[at : at + 2]
        missing = [run for run in (lower, upper) if run.state is GapState.OPEN] or [lower]
        earlier = min(missing, key=lambda run: run.detected_us)
        last_id = max(lower.last_id, upper.last_id)
        joined = replace(earlier, first_id=lower.first_id, last_id=last_id, state=GapState.OPEN)
        runs[at : at + 2] = [joined]
        self._resting = runs
