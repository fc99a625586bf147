"""Warns when the tape's retention nears records that the lake does not hold yet.

The broker removes by itself what is older than its hours or beyond its bytes, whether it was
committed or not. Where a writer lags or a partition is paused for long, that would be a loss, so it
is said loudly while there is time: a partition is in danger when it has records that are not
committed, and

* the oldest of them has lived for `ALARM` of the hours; or
* the broker has begun to remove, and less than `1 - ALARM` of what it keeps is committed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from k2 import limits
from k2.clock import Clock
from k2.errors import Unavailable
from k2.market.offsets import OffsetVector
from k2.settings import TapeSettings
from k2.tape.topics import TopicDescription

ALARM = 0.8
_MARGIN_SHARE = 1 / 128  # of the hours: how finely the margin is known
_HOUR_US = 3_600_000_000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Danger:
    """Records that retention will remove before they are committed, unless something is done.

    Attributes:
        partition: of the tape.
        records: not committed.
        overtaken: of those, removed already.
    """

    partition: int
    records: int
    overtaken: int


def dangers(
    facts: TopicDescription, positions: OffsetVector, young: tuple[int, ...]
) -> tuple[Danger, ...]:
    """Find the partitions in danger.

    Args:
        facts: of the topic now.
        positions: what the lake holds is below.
        young: per partition the first offset that has not lived for `ALARM` of the hours.
    """
    found = []
    for partition, at in enumerate(positions.offsets):
        start, end = facts.log_start[partition], facts.log_end[partition]
        full = start > 0 and at - start < (1 - ALARM) * (end - start)
        if at < end and (young[partition] > at or full):
            found.append(Danger(partition, end - at, max(0, start - at)))
    return tuple(found)


class TapeWatch:
    """Looks now and then, in a thread that runs `run`; what it found may be read by any.

    Attributes:
        margin_s: time until the tape's hours remove a record that is not in the lake, at least;
            None before the first look.

    Args:
        facts: asks the cluster.
        offsets_since: asks it for the first offsets written at or after a time, microseconds.
        positions: of the lake; None while not known.
        clock: of the records' age.
        settings: how long the tape is kept.
    """

    def __init__(
        self,
        *,
        facts: Callable[[], TopicDescription],
        offsets_since: Callable[[int], tuple[int, ...]],
        positions: Callable[[], OffsetVector | None],
        clock: Clock,
        settings: TapeSettings,
    ) -> None:
        self._facts = facts
        self._offsets_since = offsets_since
        self._positions = positions
        self._clock = clock
        self._settings = settings
        self._dangers: tuple[Danger, ...] = ()
        self.margin_s: float | None = None

    @property
    def alerts(self) -> list[str]:
        """The present dangers in words, one for each partition."""
        return [self._words(danger) for danger in self._dangers]

    @property
    def endangered(self) -> frozenset[int]:
        """The partitions in danger at present."""
        return frozenset(danger.partition for danger in self._dangers)

    def run(self, stopping: threading.Event) -> None:
        """Look until `stopping` is set."""
        while not stopping.wait(limits.TAPE_WATCH_S):
            self.look()

    def look(self) -> None:
        """Look once; when the broker does not answer, the earlier result stays."""
        positions = self._positions()
        if positions is None:
            return
        age_us = int(ALARM * self._settings.retention_hours * _HOUR_US)
        try:
            young = self._offsets_since(self._clock.now_us() - age_us)
            facts = self._facts()
            self._dangers = dangers(facts, positions, young)
            self.margin_s = self._margin_s(facts, positions)
        except Unavailable as error:
            log.info("the tape's retention is not watched: %s", error.message)
            return
        for words in self.alerts:
            log.warning(words)

    def _margin_s(self, facts: TopicDescription, positions: OffsetVector) -> float:
        """Bound from below the time until the oldest uncommitted record is removed."""
        hours_us, now_us = self._settings.retention_hours * _HOUR_US, self._clock.now_us()
        behind = [p for p, at in enumerate(positions.offsets) if at < facts.log_end[p]]

        def older(share: float) -> bool:
            since = self._offsets_since(now_us - int(share * hours_us))
            return any(positions[p] < since[p] for p in behind)

        low, high = 0.0, _MARGIN_SHARE  # of the hours: the age of the oldest lies between
        if behind and older(high):
            low, high = high, 1.0
            while high - low > _MARGIN_SHARE:
                middle = (low + high) / 2
                low, high = (middle, high) if older(middle) else (low, middle)
        return (1 - high if behind else 1.0) * hours_us / 1e6

    def _words(self, danger: Danger) -> str:
        gone = f", {danger.overtaken:,} were removed already" if danger.overtaken else ""
        mib = self._settings.retention_bytes_per_partition // limits.MIB
        return (
            f"partition {danger.partition}: {danger.records:,} records are not in the lake and"
            f" near the end of the tape's retention ({self._settings.retention_hours} h,"
            f" {mib:,} MiB){gone}: "
            "let the writer catch up, or raise tape.retention_hours and "
            "tape.retention_bytes_per_partition"
        )
