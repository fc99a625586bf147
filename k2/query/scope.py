"""Resolves a request's symbols to instruments and tape partitions, and finds unsettled verdicts.

A record whose schema or symbol is unknown when it is judged may be valid for a process that judges
it at another moment (`k2/lake/dead_letters/superseded.py`); the commit decides. While no commit has
passed such a record, an answer over it is not COMPLETE. When a commit has passed it with another
verdict, the tail starts again from that commit, so that what follows is folded on what the lake
holds. A read token made before then gives the rows as the commit decided.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from k2 import limits
from k2.errors import NotFound, Reason, some_of
from k2.market.instrument import Instrument
from k2.market.offsets import OffsetVector
from k2.query.lake_snapshots import PlannableSnapshot
from k2.query.request import TradesRequest
from k2.tail.tail import Tail
from k2.tape.partition_map import PartitionMap

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """Whom a request is about.

    Attributes:
        instruments: which; None for all.
        partitions: of the tape, where they have their rows.
    """

    instruments: frozenset[Instrument] | None
    partitions: frozenset[int]


def asked_by(request: TradesRequest, placement: PartitionMap, tail: Tail, partitions: int) -> Asked:
    """Whom a request is about, now.

    Args:
        request: validated.
        placement: the partition map; read again where it may lack somebody.
        tail: has read instruments that the map may lack.
        partitions: how many the tape has.

    Raises:
        NotFound: UNKNOWN_SYMBOL when a symbol or exchange named was never seen.
    """
    if not request.symbols and not request.exchanges:
        return Asked(None, frozenset(range(partitions)))
    homes = placement.known()
    read = filter(request.names, tail.instruments())
    if request.unknown_among(homes) or any(one not in homes for one in read):
        homes = placement.refresh()
    unknown = request.unknown_among(homes)
    if unknown:
        raise _unknown(request, unknown, homes)
    instruments = frozenset(filter(request.names, homes))
    return Asked(instruments, frozenset(homes[one] for one in instruments))


def _unknown(
    request: TradesRequest, names: Sequence[str], homes: Collection[Instrument]
) -> NotFound:
    """The error that says which names are unknown, or known but never seen together."""
    symbols, exchanges = {one.symbol for one in homes}, {one.exchange for one in homes}
    of = [name for name in request.symbols if name not in symbols]
    on = [name for name in request.exchanges if name not in exchanges]
    unknown = [*of, *on]
    if not unknown:
        unknown = list(names)
        of = [name for name in request.symbols if name in names] or list(request.symbols)
        on = [name for name in request.exchanges if name in names] or list(request.exchanges)
    named = f" of {some_of(of)}" if of else ""
    placed = f" on {some_of(on)}" if on else ""
    return NotFound(
        Reason.UNKNOWN_SYMBOL,
        f"no trade{named}{placed} was ever seen",
        metadata={"unknown": ",".join(unknown[: limits.ERROR_NAMES_MAX])},
    )


def judged_otherwise(tail: Tail, lake: PlannableSnapshot) -> bool:
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


def is_settled(tail: Tail, covered: OffsetVector, end: OffsetVector, asked: Asked) -> bool:
    """Whether what is known of holes now is what an answer up to `end` has, and will have.

    Args:
        tail: of the answer.
        covered: positions of the newest commit.
        end: E.
        asked: what for.
    """
    stayed = tail.holes_stayed(end, asked.partitions, asked.instruments)
    return stayed and not tail.undecided(covered, end, asked.partitions)
