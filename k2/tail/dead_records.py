"""Dead records of one partition as the tail judged them, to be held against what commits say.

Two faults depend on what is known when a record is judged (`market/events.py`, TIMELY), and tail
and writer judge at different moments. So the tail keeps where the newest dead records are: a commit
says how many there are below its position, and if that is another number, the two disagree.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from k2 import limits
from k2.market.events import Bools, Int64s


@dataclass(frozen=True, eq=False)
class DeadSeen:
    """A value, replaced at each change.

    Attributes:
        total: dead records so far, since the epoch began.
        since: every dead record from this offset on is among `offsets`.
        offsets: of the newest dead records, ascending. int64[n]
        undecided: of each, whether it may be good to who knows more. bool[n]
        forgotten: such ones that are not among `offsets` any more lie below this offset.
    """

    total: int
    since: int
    offsets: Int64s = field(default_factory=lambda: np.empty(0, np.int64))
    undecided: Bools = field(default_factory=lambda: np.empty(0, np.bool_))
    forgotten: int = 0

    def and_then(self, offsets: Int64s, undecided: Bools, covered: int) -> DeadSeen:
        """With more of them, all above those known.

        Args:
            offsets: theirs.
            undecided: of each, see the class.
            covered: what lies below is needed no more.
        """
        known = np.concatenate((self.offsets, offsets))
        marks = np.concatenate((self.undecided, undecided))
        first = int(np.searchsorted(known, covered))
        first = max(first, len(known) - limits.TAIL_DEAD_KEPT)
        gone = known[:first]
        since = int(gone[-1]) + 1 if first else self.since
        doubtful = gone[marks[:first]]
        forgotten = int(doubtful[-1]) + 1 if len(doubtful) else self.forgotten
        total = self.total + len(offsets)
        return DeadSeen(total, since, known[first:], marks[first:], forgotten)

    def below(self, offset: int) -> int | None:
        """How many there are below an offset that was reached; None where that is forgotten."""
        if offset < self.since:
            return None
        return self.total - len(self.offsets) + int(np.searchsorted(self.offsets, offset))

    def any_undecided(self, start: int, end: int) -> bool:
        """Whether there may be one in start <= offset < end that is good to who knows more."""
        low, high = np.searchsorted(self.offsets, (start, end))
        return self.forgotten > start or bool(self.undecided[low:high].any())
