"""The table of what each level prescribes.

K2 measures and publishes levels; no component acts on them yet, and the wire says so
(`GetDegradation`).
"""

from __future__ import annotations

from dataclasses import dataclass

from k2.degrade.level import Level


@dataclass(frozen=True)
class Policy:
    """What one level prescribes.

    Attributes:
        summary: the prescription in one sentence, for operators.
    """

    summary: str


POLICIES = {
    Level.NORMAL: Policy("Everything runs."),
    Level.SOFT: Policy("Enrichment and maintenance wait; every row and every query is served."),
    Level.GRACEFUL: Policy("Low-priority partitions are paused and heavy scans refused."),
    Level.AGGRESSIVE: Policy(
        "Only critical partitions are consumed, only point and latest queries run."
    ),
    Level.CIRCUIT_BREAK: Policy(
        "The feed accepts nothing and queries are refused; health and status answer."
    ),
}
