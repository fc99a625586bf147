"""Pauses in the tail the partitions of the tiers that a level sheds, as the lake's writer does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from k2.degrade.platform import Levels
from k2.market.instrument import Instrument, Priorities, Tier
from k2.tail.tail import Tail


class TierPauses:
    """Tells the tail what to pause whenever the level or the placement has changed.

    Args:
        tail: obeys.
        placed: returns the partition of each instrument, without a request.
        priorities: of the settings.
        partitions_per_tier: of the tape.
    """

    def __init__(
        self,
        tail: Tail,
        placed: Callable[[], Mapping[Instrument, int]],
        priorities: Priorities,
        partitions_per_tier: int,
    ) -> None:
        self._tail = tail
        self._placed = placed
        self._priorities = priorities
        self._partitions_per_tier = partitions_per_tier
        self._tiers = frozenset(Tier)

    def obey(self, levels: Levels) -> None:
        """Pause what these levels shed; for `Process.subscribe`."""
        self._tiers = levels.policy.tiers
        self.refresh()

    def refresh(self) -> None:
        """Pause by the placement of this moment: a new symbol may make a partition critical."""
        paused = [p for p, tier in enumerate(self._of_partitions()) if tier not in self._tiers]
        self._tail.defer(paused)

    def counts(self) -> dict[str, int]:
        """Count the partitions that are paused or catch up, by tier."""
        tiers, counts = self._of_partitions(), {tier.name.lower(): 0 for tier in Tier}
        for partition in self._tail.deferred():
            counts[tiers[partition].name.lower()] += 1
        return counts

    def _of_partitions(self) -> tuple[Tier, ...]:
        return self._priorities.of_partitions(self._placed(), self._partitions_per_tier)
