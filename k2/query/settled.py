"""What of the tail's judgements may yet change, and what did: only a commit decides.

A record whose schema or symbol is not known when it is judged may be good to whoever judges at
another moment (`k2/lake/dead_letters/superseded.py`). So an answer over such a record that no
commit has passed does not call itself COMPLETE; and once a commit has passed it and found
otherwise, the tail begins again from that commit, so that what follows is folded on what the lake
holds. A read token of the time before then gives the rows as the commit decided.
"""

from __future__ import annotations

import logging

from k2.market.offsets import OffsetVector
from k2.query.lake_snapshots import PlannableSnapshot, TailSource
from k2.query.scope import Asked

log = logging.getLogger(__name__)


def judged_otherwise(tail: TailSource, lake: PlannableSnapshot) -> bool:
    """Whether the writer that committed knew more, or less, than the tail did; it is logged."""
    counters = lake.snapshot.counters if lake.snapshot else {}
    dead = {partition: counts[2] for partition, counts in counters.items()}
    differing = tail.disagreeing(lake.facts.positions, dead)
    if differing:
        log.warning(
            "the lake judged records otherwise than the tail, which begins again from there",
            extra={"partitions": sorted(differing), "snapshot_id": str(lake.snapshot_id)},
        )
    return bool(differing)


def is_settled(tail: TailSource, covered: OffsetVector, end: OffsetVector, asked: Asked) -> bool:
    """Whether what is known of holes now is what an answer up to `end` has, and will have.

    Args:
        tail: of the answer.
        covered: positions of the newest commit.
        end: E.
        asked: what for.
    """
    stayed = tail.holes_stayed(end, asked.partitions, asked.instruments)
    return stayed and not tail.undecided(covered, end, asked.partitions)
