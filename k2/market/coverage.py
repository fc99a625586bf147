"""Coverage of an instrument by feeds: each id of a range is on the tape, or in the ledger.

The document of it outlives the feed and the tape's epoch, also where the lake has no row of the
instrument. So it shows which trades are lost when the tape is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard


@dataclass(frozen=True)
class Coverage:
    """The ids above one and up to another.

    Attributes:
        began_after: the id below the first that was ever covered; -1 where that is 0.
        trade_id: the last id covered; not below `began_after`.
    """

    began_after: int
    trade_id: int

    def values(self) -> dict[str, int]:
        """Return the part of a document that `coverage_of` reads."""
        return asdict(self)


def carried(own: Coverage | None, all_of: Iterable[Coverage]) -> Coverage:
    """Return the coverage a feed resumes from: its own, extended by those that overlap it.

    Args:
        own: of the feed; without one it goes on from the one that began first.
        all_of: of all feeds, at least one.
    """
    ordered = sorted(all_of, key=lambda part: part.began_after)
    whole = own or ordered[0]
    for part in ordered:
        if part.began_after <= whole.trade_id and whole.began_after <= part.trade_id:
            whole = hull((whole, part))
    return whole


def hull(coverages: Iterable[Coverage]) -> Coverage:
    """Span from where the first coverage began to where the last ends; there is at least one."""
    parts = [*coverages]
    return Coverage(min(part.began_after for part in parts), max(part.trade_id for part in parts))


def coverage_of(document: Mapping[str, Any]) -> Coverage | None:
    """Read the coverage of a document; None where it cannot be read.

    A document without `began_after`, of an earlier K2, has the beginning of the run that wrote it;
    a document without either covers nothing below its `trade_id`.
    """
    trade_id, first_id = document.get("trade_id"), document.get("first_id")
    if not _is_bound(trade_id):
        return None
    began = [document.get("began_after"), document.get("resumed_after")]
    began += [first_id - 1] if isinstance(first_id, int) else []
    began_after = next(filter(_is_bound, began), trade_id)
    return Coverage(min(began_after, trade_id), trade_id)


def _is_bound(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and value >= -1
