"""Keeps where the tail found dead records of a partition, to compare them with what commits count.

Some faults depend on what is known when a record is judged (`market.events.RETRIABLE_FAULTS`), and
tail and writer judge at different moments. So the tail keeps where the newest dead records are: a
commit counts the dead records below its position, and where the tail counts another number, the two
disagree.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from k2 import limits
from k2.market.events import Bools, Int64s


@dataclass(frozen=True, eq=False)
class DeadSeen:
    """Dead records of one partition; a value, replaced at each change.

    Attributes:
        total: dead records since the epoch began.
        since: every dead record from this offset on is among `offsets`.
        offsets: of the newest dead records, ascending. int64[n]
        undecided: per offset, whether the writer, which may know more, may accept it. bool[n]
        forgotten: undecided ones that are no longer among `offsets` lie below this offset.
    """

    total: int
    since: int
    offsets: Int64s = field(default_factory=lambda: np.empty(0, np.int64))
    undecided: Bools = field(default_factory=lambda: np.empty(0, np.bool_))
    forgotten: int = 0

    def and_then(self, offsets: Int64s, undecided: Bools, covered: int) -> DeadSeen:
        """Return this with more dead records, all above those known.

        Args:
            offsets: of the new ones.
            undecided: per offset, as in the class.
            covered: records below are needed no more.
        """
        known = np.concatenate((self.offsets, offsets))
        marks = np.concatenate((self.undecided, undecided))
        first = int(np.searchsorted(known, covered))
        first = max(first, len(known) - limits.TAIL_DEAD_KEPT)
        dropped = known[:first]
        since = int(dropped[-1]) + 1 if first else self.since
        unsure = dropped[marks[:first]]
        forgotten = int(unsure[-1]) + 1 if len(unsure) else self.forgotten
        total = self.total + len(offsets)
        return DeadSeen(total, since, known[first:], marks[first:], forgotten)

    def below(self, offset: int) -> int | None:
        """Count the dead records below an offset that was reached; None where that is forgotten."""
        if offset < self.since:
            return None
        return self.total - len(self.offsets) + int(np.searchsorted(self.offsets, offset))

    def any_undecided(self, start: int, end: int) -> bool:
        """Tell whether an undecided one may lie in start <= offset < end."""
        low, high = np.searchsorted(self.offsets, (start, end))
        return self.forgotten > start or bool(self.undecided[low:high].any())
