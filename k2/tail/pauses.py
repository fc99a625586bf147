"""Keeps why partitions are not read, and paces those that catch up after a level paused them.

The reasons of a partition are a set: it is read again when the last of them has gone, so what a
level paused is not resumed because there is memory again, nor the reverse.

A partition whose pause ends is read at a bounded pace, together with the others that catch up, and
never far ahead of the lake: else its rows would fill the tail. It reaches the tape when its
position is at an end that was noted a moment ago, and it has caught up when the lake covers that
position. Until then its rows press nothing: the lake reads them last, so they stay in the tail for
as long as other partitions are behind.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum

from k2 import limits
from k2.market.offsets import OffsetVector
from k2.tape.ports import BatchReader


class Why(Enum):
    """A reason not to read a partition."""

    UNJUDGED = "records are left to be judged"
    MEMORY = "the tail was full"
    LEVEL = "its tier is paused"
    PACE = "it catches up, and others go first"


class Pauses:
    """The reasons of each partition; none at first."""

    def __init__(self) -> None:
        self._why: dict[int, set[Why]] = {}

    def has(self, partition: int, why: Why) -> bool:
        """Tell whether this is one of the reasons of a partition."""
        return why in self._why.get(partition, ())

    def add(self, reader: BatchReader, partition: int, why: Why) -> None:
        """Add a reason; the first one pauses the partition."""
        reasons = self._why.setdefault(partition, set())
        if not reasons:
            reader.pause([partition])
        reasons.add(why)

    def remove(self, reader: BatchReader, partition: int, why: Why) -> None:
        """Remove a reason; the last one resumes the partition."""
        reasons = self._why.get(partition, set())
        if why in reasons:
            reasons.discard(why)
            if not reasons:
                reader.resume([partition])


class Deferral:
    """What a level pauses, and what catches up after that. For the thread of the tail.

    Args:
        ahead_max: so many records of what catches up may lie above the lake's positions.

    Attributes:
        paused: partitions that the level pauses.
        catching_up: partitions that it paused, until the lake covers where they reached the tape.
        all: both: partitions of which the tail may lack records; any thread may read it.
    """

    def __init__(self, ahead_max: int = limits.TAIL_CATCH_UP_AHEAD) -> None:
        self._ahead_max = ahead_max
        self.paused: frozenset[int] = frozenset()
        self.catching_up: frozenset[int] = frozenset()
        self.all: frozenset[int] = frozenset()
        self._end: OffsetVector | None = None  # noted last, since a partition was resumed
        self._reached: dict[int, int] = {}  # where a partition was at the end of the tape
        self._allowed = 0.0
        self._at_s: float | None = None

    def obey(
        self, wanted: Collection[int], pauses: Pauses, reader: BatchReader, now_s: float
    ) -> None:
        """Pause exactly these partitions; those that were paused begin to catch up."""
        paused = frozenset(wanted)
        resumed = self.paused - paused
        for partition in paused - self.paused:
            pauses.add(reader, partition, Why.LEVEL)
            pauses.remove(reader, partition, Why.PACE)
        if resumed:
            self._end, self._at_s, self._allowed = None, now_s, limits.CONSUME_BATCH_RECORDS
        for partition in resumed:
            pauses.remove(reader, partition, Why.LEVEL)
            self._reached.pop(partition, None)
        self.paused, self.catching_up = paused, (self.catching_up | resumed) - paused
        self.all = self.paused | self.catching_up

    def note_end(
        self, end: OffsetVector, position: OffsetVector, covered: OffsetVector
    ) -> frozenset[int]:
        """Note where the tape ends; return the partitions that have caught up."""
        before, self._end = self._end, end
        for p in self.catching_up - self._reached.keys():
            if before is not None and position[p] >= before[p]:
                self._reached[p] = position[p]
        done = frozenset(
            p for p in self.catching_up if p in self._reached and covered[p] >= self._reached[p]
        )
        self.catching_up -= done
        self.all = self.paused | self.catching_up
        return done

    def pace(
        self, position: OffsetVector, covered: OffsetVector, pauses: Pauses, reader: BatchReader
    ) -> None:
        """Pause what catches up while it was read faster than it may, or far above the lake."""
        ahead = sum(max(0, position[p] - covered[p]) for p in self.catching_up)
        too_fast = self._allowed <= 0 or ahead > self._ahead_max
        for partition in self.catching_up:
            (pauses.add if too_fast else pauses.remove)(reader, partition, Why.PACE)

    def count(self, read: Iterable[tuple[int, int]], now_s: float) -> None:
        """Count the records that were read of each partition up to now."""
        if self._at_s is None:
            return
        passed_s, self._at_s = now_s - self._at_s, now_s
        earned = passed_s * limits.TAIL_CATCH_UP_RECORDS_PER_S
        spent = sum(records for partition, records in read if partition in self.catching_up)
        self._allowed = min(self._allowed + earned, limits.CONSUME_BATCH_RECORDS) - spent
