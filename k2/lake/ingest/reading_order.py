"""Decides which partitions the writer reads: by level, by what has to catch up, by priority.

A partition of a tier that the level sheds is *paused*: its position stands still, nothing of it is
skipped. Once resumed it *catches up*, until all that its log held at the last look is read. While
it is paused or catches up its records are *deferred*: they count in no lag signal, or shedding
would feed itself, and it is read only while no other partition is behind. So catching up presses on
nothing by itself. Of several that catch up the most critical tier goes first; where the writer is
throttled, the most critical tier goes first among all.

A partition is behind when it has not been read up to where its log ended at the look before the
last one. Lag is the age of the oldest record that is not committed: since it was seen in the log.
What lay there before this writer began to look is older than that: once read, its age is taken from
when the broker appended it. It is known apart, for to work it off is to catch up as well.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple, Protocol

from k2 import limits
from k2.clock import Clock
from k2.degrade.platform import Levels
from k2.errors import NotFound, Unavailable
from k2.lake.ingest.pausing import PartitionPauses, PauseReason, ShadowPauses
from k2.lake.ingest.tape_check import WriterTape
from k2.lake.ingest.throttle import Throttle
from k2.market.events import RECORD_TIME_MAX_US
from k2.market.fold import FoldState
from k2.market.instrument import Tier
from k2.metrics import exported
from k2.tape.consumer import RawBatch

_FIRST = -1  # then those that do not catch up, then those that do

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Orders:
    """What the process says to its writer; each is asked in the writer's thread.

    Attributes:
        levels: the levels now.
        endangered: partitions of which retention nears uncommitted records: no level pauses them,
            and they go first.
        left: partitions that a writer before this one had deferred: they catch up.
    """

    levels: Callable[[], Levels] = Levels
    endangered: Callable[[], Collection[int]] = frozenset
    left: Callable[[], Collection[int]] = frozenset


class Held(Protocol):
    """What is held of one partition.

    Attributes:
        start: the lake's position.
        state: the fold's after what was judged.
        waits_for: why the next record cannot be judged now; empty when it can.
    """

    start: int
    state: FoldState
    waits_for: str

    @property
    def read_to(self) -> int:
        """The offset after all that was read."""


@dataclass(frozen=True)
class BacklogCounters:
    """What the lake does not hold yet, by tier."""

    deferred: Annotated[
        Mapping[str, int],
        exported("k2_deferred_records", "Records of partitions that a level deferred.", "tier"),
    ]
    lag_messages: Annotated[
        Mapping[str, int],
        exported("k2_consumer_lag_messages", "Records not committed and not deferred.", "tier"),
    ]
    lag_seconds: Annotated[
        Mapping[str, float],
        exported("k2_consumer_lag_seconds", "Age of the oldest of those records.", "tier"),
    ]
    partitions_paused: Annotated[
        Mapping[str, int],
        exported("k2_lake_partitions_paused", "Partitions that a level has paused.", "tier"),
    ]
    catching_up: Annotated[
        int,
        exported("k2_lake_catching_up_partitions", "Resumed partitions that are not caught up."),
    ]


class Reached(NamedTuple):
    """Where one partition stands.

    Attributes:
        position: the lake's.
        end: of its log, as of the last look.
        state: of the fold after what was judged.
    """

    position: int
    end: int
    state: FoldState


@dataclass(frozen=True)
class Backlog:
    """What the lake does not hold yet, as of the last look; a value.

    Attributes:
        deferred, lag: records by tier, of partitions that are deferred and of the others.
        since_s: by tier, the monotonic second when the oldest of the others was seen.
        found_since_s: by tier, that when the oldest of those that this writer found at its start
            was appended.
        paused: partitions by tier, as a level has them.
        deferring: partitions that are paused by a level or catch up.
        catching_up: those that catch up.
        reached: by partition, where it stands.
        looked_s: the monotonic second of that look.
    """

    deferred: Mapping[Tier, int] = field(default_factory=dict)
    lag: Mapping[Tier, int] = field(default_factory=dict)
    since_s: Mapping[Tier, float] = field(default_factory=dict)
    found_since_s: Mapping[Tier, float] = field(default_factory=dict)
    paused: Mapping[Tier, int] = field(default_factory=dict)
    deferring: frozenset[int] = frozenset()
    catching_up: frozenset[int] = frozenset()
    reached: Mapping[int, Reached] = field(default_factory=dict)
    looked_s: float = float("-inf")

    def found_age_s(self, now_s: float) -> float:
        """Return the age of the oldest record that the writer found at its start; 0 without one."""
        return now_s - min(self.found_since_s.values(), default=now_s)

    def counters(self, now_s: float) -> BacklogCounters:
        """Return it as the heartbeat counts it, each tier named."""
        since = dict(self.since_s)
        for tier, found_s in self.found_since_s.items():
            since[tier] = min(found_s, since.get(tier, found_s))
        return BacklogCounters(
            deferred={_name(tier): self.deferred.get(tier, 0) for tier in Tier},
            lag_messages={_name(tier): self.lag.get(tier, 0) for tier in Tier},
            lag_seconds={
                _name(tier): round(now_s - since[tier], 3) if tier in since else 0.0
                for tier in Tier
            },
            partitions_paused={_name(tier): self.paused.get(tier, 0) for tier in Tier},
            catching_up=len(self.catching_up),
        )


@dataclass
class _Course:
    """One partition.

    Attributes:
        shed: a level has paused it.
        resumed_s: when it began to catch up; None: it does not.
        ends: ends of its log that are not committed, each with when it was first seen.
        found_to: where its log ended at the first look; None before. 0 once it was deferred.
        found: ends of what was read below that, each with when its first record was appended.
    """

    shed: bool
    resumed_s: float | None = None
    ends: deque[tuple[float, int]] = field(default_factory=deque)
    found_to: int | None = None
    found: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def deferred(self) -> bool:
        return self.shed or self.resumed_s is not None

    def saw(self, end: int, position: int, now_s: float) -> None:
        """Note where the log ends."""
        self.found_to = end if self.found_to is None else self.found_to
        if end > max(position, self.ends[-1][1] if self.ends else 0):
            self.ends.append((now_s, end))
        if len(self.ends) > limits.LAG_LOOKS_KEPT:
            self.ends = deque([self.ends[0], *list(self.ends)[1::2]])

    def since_s(self, position: int) -> float | None:
        """Return when the record at the position was first seen; None when it is not there yet."""
        while self.ends and self.ends[0][1] <= position:
            self.ends.popleft()
        return self.ends[0][0] if self.ends else None

    def forget(self) -> None:
        """Forget how old its records are: while it is deferred they are no lag."""
        self.ends.clear()
        self.found.clear()
        self.found_to = 0

    def took(self, start: int, end: int, since_s: float) -> None:
        """Note when the first of the records from `start` to `end` was appended."""
        if self.found_to is not None and start >= self.found_to:
            return
        while self.found and self.found[-1][1] >= end:  # it is read again
            self.found.pop()
        self.found.append((since_s, end))

    def found_since_s(self, position: int) -> float | None:
        """Return when the record at the position was appended; None when it was not found.

        Until what follows is read, it counts as old as what was read before it.
        """
        if self.found_to is not None and position >= self.found_to:
            self.found.clear()
        while len(self.found) > 1 and self.found[0][1] <= position:
            self.found.popleft()
        return self.found[0][0] if self.found else None


class ReadingOrder:
    """Sets the pauses of one writer's partitions. One thread uses it; `backlog` is read by any.

    Args:
        tape: where its partitions end, and of which tier each is.
        orders: of the process.
        clock: monotonic time; wall time for the age of what is found.
        throttle: of the records that are read.

    Attributes:
        throttle: as given.
        backlog: as of the last count.
    """

    def __init__(self, tape: WriterTape, orders: Orders, clock: Clock, throttle: Throttle) -> None:
        self._tape = tape
        self._orders = orders
        self._clock = clock
        self.throttle = throttle
        self._shadow = ShadowPauses(tape.tiers)
        self._courses: dict[int, _Course] = {}
        self._tiers: tuple[Tier, ...] = ()
        self._allowed: frozenset[Tier] = frozenset()
        self._spared: frozenset[int] = frozenset()
        self._left: frozenset[int] = frozenset()
        self._look_s = self._looked_s = float("-inf")
        self._ends: tuple[int, ...] = ()
        self._before: tuple[int, ...] = ()
        self.backlog = Backlog()

    def start(self, partition: int) -> None:
        """Begin a newly assigned partition."""
        self._obey()
        self._courses[partition] = _Course(self._is_shed(partition))
        self._look_s = self._clock.monotonic_s()

    def drop(self, partition: int) -> None:
        """Forget a revoked partition."""
        self._courses.pop(partition, None)

    def sheds(self, partition: int) -> bool:
        """Return whether a level has paused a partition."""
        course = self._courses.get(partition)
        return course is not None and course.shed

    def took(self, batch: RawBatch) -> None:
        """Note how old the records of a batch are; called with each that is read."""
        course, appended = self._courses.get(batch.partition), batch.append_time
        if course is None or course.deferred or appended is None:
            return
        appended_us = int(appended[0])
        if appended_us < RECORD_TIME_MAX_US:
            age_s = max(0.0, (self._clock.now_us() - appended_us) / 1e6)  # by another clock
            since_s = self._clock.monotonic_s() - age_s
            course.took(int(batch.offset[0]), batch.next_offset, since_s)

    def arrange(self, held: Mapping[int, Held], pauses: PartitionPauses) -> None:
        """Pause and resume as it is due; called before each read.

        Args:
            held: by partition, what is committed and what is read.
            pauses: of the same partitions.
        """
        self._obey()
        bound = self._courses.keys() - self._spared
        self._shadow.say(self._orders.levels(), bound, self.backlog.lag)
        now_s = self._clock.monotonic_s()
        left = frozenset(self._orders.left())
        for partition, course in self._courses.items():
            self._move(partition, course, now_s, was_left=partition in left - self._left)
        self._left = left
        if now_s >= self._look_s:
            self._look(held, now_s)
        for partition, course in self._courses.items():
            self._arrive(partition, course, held[partition].read_to)
        pauses.hold(PauseReason.LEVEL, self._where(lambda course: course.shed), self._courses)
        pauses.hold(PauseReason.TURN, self._waiting(held), self._courses)

    def count(self, held: Mapping[int, Held]) -> None:
        """Renew the backlog; called after each read and each commit."""
        self.backlog = self._counted(held)

    # --- what is shed ----------------------------------------------------------------------------

    def _obey(self) -> None:
        """Take over what the level allows, and ask for the tiers of partitions when it changed."""
        allowed = self._orders.levels().policy.tiers
        if allowed != self._allowed:
            self._tiers, self._allowed = self._tape.tiers(), allowed
        spared = frozenset(self._orders.endangered())
        for partition in sorted(spared - self._spared):
            if partition in self._courses and self._tiers[partition] not in allowed:
                _log.warning("retention nears it: read in spite of the level", extra=_at(partition))
        self._spared = spared

    def _is_shed(self, partition: int) -> bool:
        return self._tiers[partition] not in self._allowed and partition not in self._spared

    def _move(self, partition: int, course: _Course, now_s: float, *, was_left: bool) -> None:
        """Pause or resume a partition as the level says."""
        shed = self._is_shed(partition)
        if shed and not course.shed:
            course.shed, course.resumed_s = True, None
            _log.info("a level pauses it", extra=_at(partition))
        elif not shed and (course.shed or was_left):
            course.shed, course.resumed_s = False, now_s
            self._look_s = now_s
            _log.info("it catches up", extra=_at(partition))
        if course.deferred:
            course.forget()

    def _arrive(self, partition: int, course: _Course, read_to: int) -> None:
        """End a partition's catching up once all that its log held at the last look is read."""
        resumed_s = course.resumed_s
        if resumed_s is None or self._looked_s < resumed_s:
            return
        if read_to >= self._ends[partition]:
            course.resumed_s = None
            _log.info("it has caught up", extra=_at(partition))

    # --- what is behind --------------------------------------------------------------------------

    def _look(self, held: Mapping[int, Held], now_s: float) -> None:
        """Ask where the partitions end; while the tape does not answer, what was seen stays."""
        self._look_s = now_s + limits.LAG_LOOK_S
        try:
            ends = self._tape.ends()
        except (Unavailable, NotFound):
            return
        self._before, self._ends = self._ends or ends, ends
        self._looked_s = now_s
        for partition, course in self._courses.items():
            if not course.deferred:
                course.saw(ends[partition], held[partition].start, now_s)

    def _waiting(self, held: Mapping[int, Held]) -> frozenset[int]:
        """Return the partitions that let others go first."""
        if not self._ends:
            return frozenset()
        ranks = {p: self._rank(p, course) for p, course in self._courses.items() if not course.shed}
        behind = [rank for p, rank in ranks.items() if self._is_behind(p, held[p])]
        first = min(behind, default=None)
        if first is None:
            return frozenset()
        return frozenset(
            p for p, rank in ranks.items() if rank > first and (self.throttle.bounds or rank[0] > 0)
        )

    def _rank(self, partition: int, course: _Course) -> tuple[int, Tier]:
        turn = _FIRST if partition in self._spared else int(course.resumed_s is not None)
        return turn, self._tiers[partition]

    def _is_behind(self, partition: int, held: Held) -> bool:
        if held.waits_for:
            return False  # nothing is gained by waiting for it
        catches_up = self._courses[partition].resumed_s is not None
        return held.read_to < (self._ends if catches_up else self._before)[partition]

    # --- what is counted -------------------------------------------------------------------------

    def _where(self, holds: Callable[[_Course], bool]) -> frozenset[int]:
        return frozenset(p for p, course in self._courses.items() if holds(course))

    def _counted(self, held: Mapping[int, Held]) -> Backlog:
        if not self._ends:
            return Backlog(deferring=self._where(lambda course: course.deferred))
        deferred: Counter[Tier] = Counter()
        lag: Counter[Tier] = Counter()
        since: dict[Tier, float] = {}
        found: dict[Tier, float] = {}
        for partition, course in self._courses.items():
            tier, position = self._tiers[partition], held[partition].start
            records = max(0, self._ends[partition] - position)
            (deferred if course.deferred else lag)[tier] += records
            if held[partition].waits_for:
                continue
            ages = (since, course.since_s(position)), (found, course.found_since_s(position))
            for oldest, since_s in ages:
                if since_s is not None:
                    oldest[tier] = min(since_s, oldest.get(tier, since_s))
        shed = self._where(lambda course: course.shed)
        return Backlog(
            deferred,
            lag,
            since,
            found,
            Counter(self._tiers[partition] for partition in shed),
            self._where(lambda course: course.deferred),
            self._where(lambda course: course.resumed_s is not None),
            {p: Reached(held[p].start, self._ends[p], held[p].state) for p in self._courses},
            self._looked_s,
        )


def _name(tier: Tier) -> str:
    return tier.name.lower()


def _at(partition: int) -> Mapping[str, int]:
    return {"partition": partition}
