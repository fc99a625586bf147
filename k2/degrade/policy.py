"""What each level prescribes, as a table that components read.

Levels are measured and published in this version; the components that act on the table come with
the actions of degradation, and the wire says so (`GetDegradation`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from k2.degrade.level import Level
from k2.market.instrument import Tier


class Admitted(IntEnum):
    """Which queries run; a higher number admits fewer."""

    ALL = 0
    NO_HEAVY_SCANS = 1
    POINT_AND_LATEST = 2
    NONE = 3


@dataclass(frozen=True)
class Policy:
    """What one level prescribes.

    Attributes:
        enrichment: whether quality statistics and pre-computed bars are made.
        maintenance: whether compaction and expiry run.
        tiers: whose partitions are consumed; the others are paused, never skipped.
        queries: which queries run.
        feeding: whether the feed accepts frames.
        summary: the row in one sentence, for a person.
    """

    enrichment: bool
    maintenance: bool
    tiers: frozenset[Tier]
    queries: Admitted
    feeding: bool
    summary: str


_ALL_TIERS = frozenset(Tier)

POLICIES = {
    Level.NORMAL: Policy(True, True, _ALL_TIERS, Admitted.ALL, True, "Everything runs."),
    Level.SOFT: Policy(
        False, False, _ALL_TIERS, Admitted.ALL, True,
        "Enrichment and maintenance wait; every row and every query is served.",
    ),
    Level.GRACEFUL: Policy(
        False, False, _ALL_TIERS - {Tier.LOW}, Admitted.NO_HEAVY_SCANS, True,
        "Low-priority partitions are paused and heavy scans refused.",
    ),
    Level.AGGRESSIVE: Policy(
        False, False, frozenset({Tier.CRITICAL}), Admitted.POINT_AND_LATEST, True,
        "Only critical partitions are consumed, only point and latest queries run.",
    ),
    Level.CIRCUIT_BREAK: Policy(
        False, False, frozenset({Tier.CRITICAL}), Admitted.NONE, False,
        "The feed accepts nothing and queries are refused; health and status answer.",
    ),
}  # fmt: skip
