"""Decides which symbols a feed takes from the venue and backfills, as the level prescribes. Pure.

Critical symbols have connections of their own, so the others can be shut without touching them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from k2.degrade.level import Level
from k2.degrade.platform import Levels
from k2.degrade.policy import POLICIES
from k2.market.instrument import Instrument, Priorities, Tier
from k2.metrics import exported
from k2.telemetry import Gauge


@dataclass(frozen=True)
class IntakeCounters:
    """What of the intake is open."""

    intake_open: Annotated[
        Mapping[str, int],
        exported("k2_feed_intake_open", "Whether symbols of a tier are taken, 1 or 0.", "tier"),
    ]
    backfill_paused: Annotated[
        Gauge, exported("k2_feed_backfill_paused", "Symbols whose gaps wait for a lower level.")
    ]


class Intake:
    """The intake of one feed. `obey` is called by one thread, the rest by any.

    Args:
        instruments: of the feed.
        priorities: rank them.
        together: whether all share connections: a recording is played once, from the moment that
            the first connection is there.
    """

    def __init__(
        self, instruments: Iterable[Instrument], priorities: Priorities, *, together: bool = False
    ) -> None:
        self._tiers = {each: priorities.tier(each) for each in instruments}
        self._together = together
        self._policy = POLICIES[Level.NORMAL]

    def obey(self, levels: Levels) -> None:
        """Follow the policy of other levels from now on."""
        self._policy = levels.policy

    def groups(self) -> tuple[tuple[Instrument, ...], ...]:
        """Group the instruments that share connections: the critical ones, and all others."""
        if self._together:
            return (tuple(self._tiers),)
        critical = tuple(each for each, tier in self._tiers.items() if tier is Tier.CRITICAL)
        others = tuple(each for each, tier in self._tiers.items() if tier is not Tier.CRITICAL)
        return tuple(group for group in (critical, others) if group)

    def takes(self, group: Iterable[Instrument]) -> bool:
        """Return whether a group is read: it is while the policy takes any of its tiers."""
        return any(self._tiers[each] in self._policy.intake for each in group)

    def fills(self, instrument: Instrument) -> bool:
        """Return whether gaps are filled: neither the feed nor the lake's writer sheds its tier."""
        tier = self._tiers[instrument]
        return tier in self._policy.intake and tier in self._policy.tiers

    def counters(self) -> IntakeCounters:
        """Count what is open."""
        intake = self._policy.intake
        return IntakeCounters(
            intake_open={tier.name.lower(): int(tier in intake) for tier in Tier},
            backfill_paused=sum(not self.fills(each) for each in self._tiers),
        )
