"""Decides which dead letters are new: a letter's identity is the place of its record.

A writer that is killed between publishing letters and committing publishes them again, so the table
of letters accepts by the fold's rule with the origin as the instrument and the offset as the trade
id: exact intervals of what was accepted.

Bad records are mostly far apart, each an interval of its own, so the state is bounded differently
than for trades: the older intervals of an origin become one range of offsets that *may* have been
accepted, and the table is asked which of them were. The origins without letters for the longest
time are forgotten altogether, and a mark records that some were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from k2 import limits
from k2.market.events import Bools, Int64s
from k2.market.fold import FoldState, Seen, accept_ids
from k2.market.instrument import Instrument


class Origin(NamedTuple):
    """Where offsets count: a partition of a topic's epoch, or a run of a feed."""

    topic: str
    epoch: int
    partition: int

    @property
    def key(self) -> Instrument:
        """The instrument that stands for it in the fold's state."""
        return Instrument(f"{self.topic}/{self.epoch}", str(self.partition))


Stored = Callable[[Origin, Sequence[int]], Iterable[int]]

_FORGOTTEN = Instrument("~", "~")  # the mark
_ALL = np.array([[0, 2**63 - 1]], dtype=np.int64)
_NONE: Int64s = np.empty((0, 2), dtype=np.int64)


def accept_letters(
    state: FoldState, letters: Sequence[tuple[Origin, int]], time_us: int, stored: Stored
) -> tuple[FoldState, list[bool]]:
    """Judge the next letters of a topic.

    Args:
        state: of the letters before them.
        letters: origin and offset of each, in the order of the topic.
        time_us: when they were read, microseconds.
        stored: which of these offsets of an origin the table holds, where the state does not say.

    Returns:
        The state after them, and whether each is new.
    """
    seen = dict(state.seen)
    new = np.zeros(len(letters), dtype=np.bool_)
    rows: dict[Origin, list[int]] = {}
    for row, (origin, _) in enumerate(letters):
        rows.setdefault(origin, []).append(row)
    for origin, of_origin in rows.items():
        offsets = np.array([letters[row][1] for row in of_origin], dtype=np.int64)
        new[of_origin] = _accept(seen, origin, offsets, time_us, stored)
    accepted = int(new.sum())
    after = FoldState(
        seen, state.accepted + accepted, state.duplicate + len(letters) - accepted, state.dead
    )
    return after, new.tolist()


def bounded(state: FoldState) -> FoldState:
    """Reduce a state to its bounds: old intervals become a range, old origins are forgotten."""
    seen = dict(state.seen)
    for key, ids in state.seen.items():
        excess = len(ids.intervals) - limits.LETTER_INTERVALS_MAX
        if excess > 0:
            old = ids.intervals[: excess + limits.LETTER_INTERVALS_MAX // 2]
            _add_range(seen, key, int(old[0, 0]), int(old[-1, 1]))
            seen[key] = Seen(ids.intervals[len(old) :], ids.time_max_us)
    exact = [key for key in seen if not _is_mark(key)]
    for key in sorted(exact, key=lambda origin: (seen[origin].time_max_us, origin)):
        if len(exact) <= limits.LETTER_ORIGINS_MAX:
            break
        exact.remove(key)
        seen[_FORGOTTEN] = Seen(_ALL, 0)
        del seen[key]
        seen.pop(_range_of(key), None)
    return FoldState(seen, state.accepted, state.duplicate, state.dead)


def _accept(
    seen: dict[Instrument, Seen], origin: Origin, offsets: Int64s, time_us: int, stored: Stored
) -> Bools:
    key = origin.key
    before = seen.get(key)
    if before is None and _FORGOTTEN in seen:
        _add_range(seen, key, 0, 2**63 - 1)
    intervals, new = accept_ids(before.intervals if before else _NONE, offsets)
    seen[key] = Seen(intervals, time_us)
    doubtful = seen.get(_range_of(key))
    if doubtful is not None:
        first, last = doubtful.intervals[0].tolist()
        asked = offsets[new & (offsets >= first) & (offsets <= last)]
        if len(asked):
            new &= ~np.isin(offsets, list(stored(origin, asked.tolist())))
    return new


def _range_of(key: Instrument) -> Instrument:
    """Return the key of an origin's offsets that may have been accepted."""
    return Instrument(key.exchange, f"~{key.symbol}")


def _is_mark(key: Instrument) -> bool:
    return key.symbol.startswith("~")


def _add_range(seen: dict[Instrument, Seen], key: Instrument, first: int, last: int) -> None:
    known = seen.get(_range_of(key))
    if known is not None:
        first = min(first, int(known.intervals[0, 0]))
        last = max(last, int(known.intervals[0, 1]))
    seen[_range_of(key)] = Seen(np.array([[first, last]], dtype=np.int64), 0)
