"""What feeds have promised of an instrument: each id of a range is on the tape, or in the ledger.

The document that says so outlives the feed, the tape's epoch and the lake's ignorance of the
instrument, so it is what tells which trades are lost when the tape is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard


@dataclass(frozen=True)
class Coverage:
    """The ids above one and up to another.

    Attributes:
        began_after: the id below the first that was ever promised; -1 where that is 0.
        trade_id: the last id promised; not below `began_after`.
    """

    began_after: int
    trade_id: int

    def values(self) -> dict[str, int]:
        """The part of a document that `coverage_of` reads."""
        return asdict(self)


def carried(own: Coverage | None, all_of: Iterable[Coverage]) -> Coverage:
    """The promise that a feed goes on from: its own, as far as those of all feeds carry it.

    Args:
        own: of the feed; without one it goes on from the one that began first.
        all_of: of all feeds, at least one.
    """
    ordered = sorted(all_of, key=lambda one: one.began_after)
    whole = own or ordered[0]
    for one in ordered:
        if one.began_after <= whole.trade_id and whole.began_after <= one.trade_id:
            whole = hull((whole, one))
    return whole


def hull(promises: Iterable[Coverage]) -> Coverage:
    """From where the first of them began to where the last of them ends.

    Args:
        promises: at least one.
    """
    known = [*promises]
    return Coverage(min(one.began_after for one in known), max(one.trade_id for one in known))


def coverage_of(document: Mapping[str, Any]) -> Coverage | None:
    """The promise of a document; None where it cannot be read.

    A document of before `began_after` says where the run that wrote it began; one that does not say
    even that promises nothing below its `trade_id`.
    """
    trade_id, first_id = document.get("trade_id"), document.get("first_id")
    if not _is_promised(trade_id):
        return None
    began = [document.get("began_after"), document.get("resumed_after")]
    began += [first_id - 1] if isinstance(first_id, int) else []
    began_after = next(filter(_is_promised, began), trade_id)
    return Coverage(min(began_after, trade_id), trade_id)


def _is_promised(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and value >= -1
