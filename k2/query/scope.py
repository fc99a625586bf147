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
class Scope:
    """The instruments and partitions that a request is about.

    Attributes:
        instruments: the instruments; None for all.
        partitions: of the tape, where these instruments have their rows.
    """

    instruments: frozenset[Instrument] | None
    partitions: frozenset[int]


def scope_of(request: TradesRequest, placement: PartitionMap, tail: Tail, partitions: int) -> Scope:
    """Resolve a request to its instruments and partitions.

    Args:
        request: validated.
        placement: the partition map; read again where it may lack an instrument.
        tail: may have read instruments that the map lacks.
        partitions: number of partitions of the tape.

    Raises:
        NotFound: UNKNOWN_SYMBOL when a named symbol or exchange was never seen.
    """
    if not request.read_symbols and not request.exchanges:
        return Scope(None, frozenset(range(partitions)))
    partition_of = placement.known()
    read = filter(request.names, tail.instruments())
    if request.unknown_among(partition_of) or any(name not in partition_of for name in read):
        partition_of = placement.refresh()
    unknown = request.unknown_among(partition_of)
    if unknown:
        raise _unknown(request, unknown, partition_of)
    instruments = frozenset(filter(request.names, partition_of))
    return Scope(instruments, frozenset(partition_of[name] for name in instruments))


def _unknown(
    request: TradesRequest, names: Sequence[str], instruments: Collection[Instrument]
) -> NotFound:
    """Make the error that names what is unknown, or known but never seen together."""
    symbols = {instrument.symbol for instrument in instruments}
    exchanges = {instrument.exchange for instrument in instruments}
    of = [name for name in request.read_symbols if name not in symbols]
    on = [name for name in request.exchanges if name not in exchanges]
    unknown = [*of, *on]
    if not unknown:
        unknown = list(names)
        of = [name for name in request.read_symbols if name in names] or list(request.read_symbols)
        on = [name for name in request.exchanges if name in names] or list(request.exchanges)
    named = f" of {some_of(of)}" if of else ""
    placed = f" on {some_of(on)}" if on else ""
    return NotFound(
        Reason.UNKNOWN_SYMBOL,
        f"no trade{named}{placed} was ever seen",
        metadata={"unknown": ",".join(unknown[: limits.ERROR_NAMES_MAX])},
    )


def judged_otherwise(tail: Tail, lake: PlannableSnapshot) -> bool:
    """Tell whether a commit counts other dead records than the tail, and log it."""
    counters = lake.snapshot.counters if lake.snapshot else {}
    dead = {partition: counts[2] for partition, counts in counters.items()}
    differing = tail.disagreeing(lake.facts.positions, dead)
    if differing:
        log.warning(
            "the lake judged records otherwise than the tail, which starts again from there",
            extra={"partitions": sorted(differing), "snapshot_id": str(lake.snapshot_id)},
        )
    return bool(differing)


def is_settled(tail: Tail, covered: OffsetVector, end: OffsetVector, scope: Scope) -> bool:
    """Tell whether the holes known now are those that an answer up to `end` has, and will keep.

    `covered` has the positions of the newest commit.
    """
    stayed = tail.holes_stayed(end, scope.partitions, scope.instruments)
    return stayed and not tail.undecided(covered, end, scope.partitions)
