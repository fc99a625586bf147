"""Whom a request is about: which instruments, and where on the tape they have their rows."""

from __future__ import annotations

from dataclasses import dataclass

from k2.errors import NotFound, Reason
from k2.market.instrument import Instrument
from k2.query.request import TradesRequest
from k2.query.sides import Homes, TailSource


@dataclass(frozen=True)
class Asked:
    """Whom a request is about.

    Attributes:
        instruments: which; None for all.
        partitions: of the tape, where they have their rows.
    """

    instruments: frozenset[Instrument] | None
    partitions: frozenset[int]


def asked_by(request: TradesRequest, placement: Homes, tail: TailSource, partitions: int) -> Asked:
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
        raise NotFound(
            Reason.UNKNOWN_SYMBOL,
            f"no trade of {', '.join(unknown)} was ever seen",
            metadata={"unknown": ",".join(unknown)},
        )
    instruments = frozenset(filter(request.names, homes))
    return Asked(instruments, frozenset(homes[one] for one in instruments))
