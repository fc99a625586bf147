"""Compares the ledger of gaps with the holes that the fold leaves.

Ids that the ledger calls FILLED were acknowledged by the tape before that was written. So where the
lake has taken everything that the tape held *after* the ledger was read, such an id in a hole is a
contradiction: it was lost, or it came as a dead letter. Where records still wait to be committed,
nothing can be concluded yet.

A hole without an entry in the ledger is no contradiction: ids between two files that were loaded,
or below what any feed has heard, were never reported missing. They are counted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from k2 import limits
from k2.lake.verify.report import Problem
from k2.market.fold import FoldState
from k2.market.ledger import GapEvent, GapState, Ledger


@dataclass
class ComparedGaps:
    """The result of the comparison.

    Attributes:
        problems: GAP_UNTRUE, one a partition; its offsets are trade ids.
        missing: ids in holes by their state in the ledger: OPEN, FILLED, UNFILLABLE, VOID (printed
            without a trade), `UNTOLD` (no entry).
    """

    problems: list[Problem] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*GapState, "UNTOLD"), 0))


def compare_gaps(
    ledger: Ledger, states: Mapping[int, FoldState], whole: Collection[int]
) -> ComparedGaps:
    """Compare the ledger with the holes.

    Args:
        ledger: read before the tape's ends were asked for.
        states: of the fold, by partition.
        whole: partitions of which the lake has everything up to those ends.
    """
    compared = ComparedGaps()
    for partition, state in sorted(states.items()):
        untrue: list[GapEvent] = []
        for instrument, seen in sorted(state.seen.items()):
            for first, last in seen.holes():
                known = ledger.within(instrument, first, last)
                for gap in known:
                    compared.missing[gap.state] += _ids(gap)
                compared.missing["UNTOLD"] += last - first + 1 - sum(map(_ids, known))
                untrue += [gap for gap in known if gap.state is GapState.FILLED]
        if untrue and partition in whole:
            message = "ids that the ledger calls filled are neither in the lake nor on the tape"
            listed = tuple(gap.first_id for gap in untrue[: limits.VERIFY_OFFSETS_LISTED])
            count = sum(map(_ids, untrue))
            compared.problems.append(Problem("GAP_UNTRUE", partition, count, listed, message))
    return compared


def _ids(gap: GapEvent) -> int:
    return gap.last_id - gap.first_id + 1
