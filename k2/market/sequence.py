"""Trade ids as a feed sees them: next, missing, duplicate, late or restarted. Pure.

A venue's ids are contiguous per instrument, so every id says something. The check is *exact* above
a floor: it remembers which ids from there on are missing, so "duplicate" is only ever said of an id
that was seen in this run. Below the floor (before the first id, or where too many gaps were open to
remember them) nothing is known, and an id there is at most late.

The check informs and counts; what becomes a row is decided by the fold (`market/fold.py`).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from enum import IntEnum

from k2 import limits


class Finding(IntEnum):
    """The place of an id among those before it."""

    FIRST = 0  # nothing was known of the instrument
    NEXT = 1  # the one expected
    GAP = 2  # above the one expected: those between are missing
    DUPLICATE = 3  # seen before, certainly
    REORDERED = 4  # below the newest, and not seen before as far as is known
    RESET = 5  # so far from all before that the venue must have restarted its ids
    REUSED = 6  # an earlier id, with a time so late that the trade is another; not said here


@dataclass
class Counts:
    """Counts of each finding, and of the ids missing when a gap opened."""

    seen: int = 0
    gaps: int = 0
    missing: int = 0
    duplicates: int = 0
    reordered: int = 0
    resets: int = 0


class Sequence:
    """The check of one instrument.

    Args:
        acknowledged: the newest id known from an earlier run. The ids between it and the first one
            observed are then a gap: ids missed while no feed listened.

    Attributes:
        counts: what was found so far.
        first: the first id observed in this run; None before it.
        last: the newest id known; None before any.
        leapt: first and last id that the last `Finding.RESET` left behind it; None where it fell.
    """

    def __init__(self, acknowledged: int | None = None) -> None:
        self.counts = Counts()
        self.first: int | None = None
        self.last = acknowledged
        self.leapt: tuple[int, int] | None = None
        self._next = -1 if acknowledged is None else acknowledged + 1
        self._floor = self._next
        # Missing ids above the floor: disjoint, ascending, first and last of each.
        self._gap_first: list[int] = []
        self._gap_last: list[int] = []

    @property
    def gaps(self) -> tuple[tuple[int, int], ...]:
        """First and last missing id of each gap that is open, ascending."""
        return tuple(zip(self._gap_first, self._gap_last, strict=True))

    @property
    def newest_gap(self) -> tuple[int, int]:
        """First and last missing id of the gap that the last `Finding.GAP` opened."""
        return self._gap_first[-1], self._gap_last[-1]

    def observe(self, trade_id: int) -> Finding:
        """Judge one id, which is not negative, and remember it."""
        if trade_id == self._next:
            self._next = trade_id + 1
            self.last = trade_id
            self.counts.seen += 1
            if self.first is None:
                self.first = trade_id
            return Finding.NEXT
        finding = self._judge(trade_id)
        if finding is Finding.DUPLICATE:
            self.counts.duplicates += 1
            return finding
        self.counts.seen += 1
        if self.first is None:
            self.first = trade_id
        return finding

    def _judge(self, trade_id: int) -> Finding:
        if self.last is None:
            self._begin(trade_id)
            return Finding.FIRST
        if trade_id > self.last:
            return self._jump(trade_id)
        if trade_id < self._floor:
            return self._below(trade_id)
        at = bisect_right(self._gap_first, trade_id) - 1
        if at < 0 or trade_id > self._gap_last[at]:
            return Finding.DUPLICATE
        self._fill(at, trade_id)
        self.counts.reordered += 1
        return Finding.REORDERED

    def _begin(self, trade_id: int) -> None:
        self._gap_first.clear()
        self._gap_last.clear()
        self._floor = trade_id
        self._next = trade_id + 1
        self.last = trade_id

    def _jump(self, trade_id: int) -> Finding:
        missing = trade_id - self._next
        if missing > limits.SEQUENCE_JUMP_MAX:
            return self._reset(trade_id)
        self._gap_first.append(self._next)
        self._gap_last.append(trade_id - 1)
        self._forget_oldest()
        self.counts.gaps += 1
        self.counts.missing += missing
        self._next = trade_id + 1
        self.last = trade_id
        return Finding.GAP

    def _below(self, trade_id: int) -> Finding:
        if self._floor - trade_id > limits.SEQUENCE_REORDER_MAX:
            return self._reset(trade_id)
        self.counts.reordered += 1
        return Finding.REORDERED

    def _reset(self, trade_id: int) -> Finding:
        self.leapt = (self._next, trade_id - 1) if trade_id > self._next else None
        self._begin(trade_id)
        self.counts.resets += 1
        return Finding.RESET

    def _fill(self, at: int, trade_id: int) -> None:
        """Take one id out of the gap at an index: shorten, split or close it."""
        first, last = self._gap_first[at], self._gap_last[at]
        if first == last:
            del self._gap_first[at], self._gap_last[at]
        elif trade_id == first:
            self._gap_first[at] = first + 1
        elif trade_id == last:
            self._gap_last[at] = last - 1
        else:
            self._gap_last[at] = trade_id - 1
            self._gap_first.insert(at + 1, trade_id + 1)
            self._gap_last.insert(at + 1, last)
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Keep the open gaps bounded: the floor rises above the oldest."""
        if len(self._gap_first) > limits.SEQUENCE_GAPS_MAX:
            del self._gap_first[0]
            self._floor = self._gap_last.pop(0) + 1
