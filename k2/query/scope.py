"""Whom a request is about: which instruments, and where on the tape they have their rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from k2 import limits
from k2.errors import NotFound, Reason, some_of
from k2.market.instrument import Instrument
from k2.query.lake_snapshots import TailSource
from k2.query.request import TradesRequest
from k2.tape.partition_map import PartitionMap


@dataclass(frozen=True)
class Asked:
    """Whom a request is about.

    Attributes:
        instruments: which; None for all.
        partitions: of the tape, where they have their rows.
    """

    instruments: frozenset[Instrument] | None
    partitions: frozenset[int]


def asked_by(
    request: TradesRequest, placement: PartitionMap, tail: TailSource, partitions: int
) -> Asked:
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
