"""The ledger of gaps against the holes that the fold leaves: is what it says of missing ids true?

Ids that the ledger calls FILLED were acknowledged by the tape before that was written. So where the
lake has taken everything that the tape held *after* the ledger was read, such an id in a hole is a
contradiction: it was lost, or it came as a dead letter. Where records still wait to be committed,
nothing can be said yet.

A hole of which the ledger says nothing is no contradiction: ids between two files that were loaded,
or below what any feed has heard, were never missed. They are counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from k2 import limits
from k2.lake.verify.report import Problem
from k2.market.fold import FoldState
from k2.market.ledger import GapEvent, GapState, Ledger


@dataclass
class ComparedGaps:
    """What was found.

    Attributes:
        problems: GAP_UNTRUE, one a partition; its offsets are trade ids.
        missing: ids in holes by what the ledger says of them: OPEN, FILLED, UNFILLABLE, VOID
            (printed without a trade), UNTOLD.
    """

    problems: list[Problem] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*GapState, "UNTOLD"), 0))


def folded_ledger(events: Iterable[GapEvent]) -> Ledger:
    """The ledger as it stands."""
    ledger = Ledger()
    for event in events:
        ledger.apply(event)
    return ledger


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
                told = ledger.within(instrument, first, last)
                for gap in told:
                    compared.missing[gap.state] += _ids(gap)
                compared.missing["UNTOLD"] += last - first + 1 - sum(map(_ids, told))
                untrue += [gap for gap in told if gap.state is GapState.FILLED]
        if untrue and partition in whole:
            message = "ids that the ledger calls filled are neither in the lake nor on the tape"
            listed = tuple(gap.first_id for gap in untrue[: limits.VERIFY_OFFSETS_LISTED])
            count = sum(map(_ids, untrue))
            compared.problems.append(Problem("GAP_UNTRUE", partition, count, listed, message))
    return compared


def _ids(gap: GapEvent) -> int:
    return gap.last_id - gap.first_id + 1
