"""The table of what each level prescribes; every component that sheds reads it here.

A process obeys the policy of its effective level (`Levels`). Two knobs move inside a level, with
the pressure, so that a level is rarely reached: the size of commits and the places of batch
queries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from k2.degrade.level import Level
from k2.market.instrument import Tier

_COMMIT_SCALE_MAX = 2.0


class QueryScope(IntEnum):
    """Which queries are answered; a higher number answers fewer."""

    ALL = 0
    LIGHT = 1  # no heavy scans
    POINT = 2  # of few rows or a short range, and the latest
    NONE = 3


@dataclass(frozen=True)
class Policy:
    """What one level prescribes. No level changes a row's content.

    Attributes:
        summary: the prescription in one sentence, for operators.
        enriches: quality statistics are made of each commit.
        maintains: files are merged, snapshots and orphan files removed.
        commit_scale: multiplies interval and size of a commit.
        trace_scale: multiplies the share of traces that are sampled.
        tiers: symbols of these tiers are written to the lake and read by the tail.
        intake: symbols of these tiers are taken from the venue.
        queries: which are answered.
    """

    summary: str
    enriches: bool
    maintains: bool
    commit_scale: float
    trace_scale: float
    tiers: frozenset[Tier]
    intake: frozenset[Tier]
    queries: QueryScope


_ALL = frozenset(Tier)
_CRITICAL = frozenset({Tier.CRITICAL})

POLICIES = {
    Level.NORMAL: Policy("Everything runs.", True, True, 1.0, 1.0, _ALL, _ALL, QueryScope.ALL),
    Level.SOFT: Policy(
        "Enrichment and maintenance wait; every row and every query is served.",
        enriches=False,
        maintains=False,
        commit_scale=_COMMIT_SCALE_MAX,
        trace_scale=0.1,
        tiers=_ALL,
        intake=_ALL,
        queries=QueryScope.ALL,
    ),
    Level.GRACEFUL: Policy(
        "Low-priority partitions are paused and heavy scans refused.",
        enriches=False,
        maintains=False,
        commit_scale=_COMMIT_SCALE_MAX,
        trace_scale=0.1,
        tiers=_ALL - {Tier.LOW},
        intake=_ALL,
        queries=QueryScope.LIGHT,
    ),
    Level.AGGRESSIVE: Policy(
        "Only critical partitions are consumed, only point and latest queries run.",
        enriches=False,
        maintains=False,
        commit_scale=_COMMIT_SCALE_MAX,
        trace_scale=0.0,
        tiers=_CRITICAL,
        intake=_CRITICAL,
        queries=QueryScope.POINT,
    ),
    Level.CIRCUIT_BREAK: Policy(
        "The feed accepts nothing and queries are refused; health and status answer.",
        enriches=False,
        maintains=False,
        commit_scale=_COMMIT_SCALE_MAX,
        trace_scale=0.0,
        tiers=_CRITICAL,
        intake=frozenset(),
        queries=QueryScope.NONE,
    ),
}


def commit_scale(level: Level, pressure: float) -> float:
    """Return by how much interval and size of a commit are multiplied.

    Args:
        level: the effective level.
        pressure: the highest of the process, 0..1; it moves the knob below SOFT.
    """
    return max(POLICIES[level].commit_scale, 1.0 + pressure * (_COMMIT_SCALE_MAX - 1.0))


def batch_places(places: int, pressure: float) -> int:
    """Return how many batch queries may run at once: all without pressure, one under the highest.

    Args:
        places: without pressure, at least 1.
        pressure: the highest of the process, 0..1.
    """
    return max(1, math.ceil(places * (1.0 - pressure)))
