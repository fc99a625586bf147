"""Pauses of partitions: a set of reasons for each, read again when no reason is left.

In shadow mode no level pauses anything; what it would pause is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum

from k2.degrade.platform import Levels
from k2.degrade.policy import POLICIES
from k2.market.instrument import Tier
from k2.tape.ports import BatchReader

_log = logging.getLogger(__name__)


class PauseReason(Enum):
    """Why a partition is not read."""

    MEMORY = "memory"  # commits fail, and the bound on what is held is reached
    WAITING = "waiting"  # records are left to be judged in a later step, or when a part is back
    LEVEL = "level"  # the degradation level defers its tier
    TURN = "turn"  # partitions that are read before it are behind


class PartitionPauses:
    """The reasons of each partition of one reader. One thread uses it.

    Args:
        reader: is paused and resumed.
    """

    def __init__(self, reader: BatchReader) -> None:
        self._reader = reader
        self._reasons: dict[int, set[PauseReason]] = {}

    def of(self, partition: int) -> frozenset[PauseReason]:
        """Return why a partition is not read; empty when it is."""
        return frozenset(self._reasons.get(partition, ()))

    def pause(self, reason: PauseReason, partitions: Collection[int]) -> None:
        """Stop reading partitions for a reason."""
        stopping = [partition for partition in partitions if not self._reasons.get(partition)]
        for partition in partitions:
            self._reasons.setdefault(partition, set()).add(reason)
        if stopping:
            self._reader.pause(stopping)

    def resume(self, reason: PauseReason, partitions: Iterable[int]) -> None:
        """Drop a reason; read those partitions again that are left without one."""
        resuming = []
        for partition in partitions:
            reasons = self._reasons.get(partition, set())
            if reason in reasons:
                reasons.discard(reason)
                if not reasons:
                    resuming.append(partition)
        if resuming:
            self._reader.resume(resuming)

    def hold(self, reason: PauseReason, partitions: Collection[int], among: Iterable[int]) -> None:
        """Make a reason hold for exactly these partitions of those among which they are."""
        self.resume(reason, [each for each in among if each not in partitions])
        self.pause(reason, [p for p in partitions if reason not in self._reasons.get(p, ())])

    def forget(self, partition: int) -> None:
        """Forget a partition that is assigned or revoked: the reader reads it from the start."""
        self._reasons.pop(partition, None)


class ShadowPauses:
    """Logs what the level would pause in shadow mode, whenever that changes. One thread uses it.

    Args:
        tiers: the tier of each partition now.
    """

    def __init__(self, tiers: Callable[[], tuple[Tier, ...]]) -> None:
        self._tiers = tiers
        self._shed: frozenset[Tier] = frozenset()

    def say(self, levels: Levels, partitions: Collection[int], behind: Mapping[Tier, int]) -> None:
        """Log the partitions that would be paused now, and how many records that would defer.

        Args:
            levels: of the process.
            partitions: those that a level may pause.
            behind: records by tier that the lake does not hold yet.
        """
        allowed = POLICIES[levels.prescribed].tiers if levels.shadow else frozenset(Tier)
        shed = frozenset(Tier) - allowed
        if shed == self._shed:
            return
        self._shed = shed
        tiers = self._tiers()
        paused = sorted(each for each in partitions if tiers[each] in shed)
        records = {tier.name.lower(): behind.get(tier, 0) for tier in sorted(shed)}
        _log.info(
            "in shadow: level %s would pause the tiers %s: partitions %s, %d records deferred now",
            levels.prescribed.name,
            ", ".join(records) or "none",
            ", ".join(map(str, paused)) or "none",
            sum(records.values()),
            extra={"partitions": paused, "deferred": records},
        )
