"""Bounds how many queries or plans run at once, and the bytes of rows that queries hold. Sans-IO.

A refusal is cheap and says when to come back; a queue would hide the overload behind a deadline.
"""

from __future__ import annotations

import threading

from k2 import limits
from k2.errors import Overloaded, Reason

_RETRY_MIN_S = 0.1
_RETRY_MAX_S = 5.0
_WEIGHT = 0.2  # of the newest query in the mean
PART_BYTES_MAX = 64 * limits.MIB  # of the rows that a part of a query holds


class Admission:
    """Counts running queries. Thread-safe.

    Args:
        running_max: how many may run at once.
        what: names what is counted, for the error message.

    Attributes:
        running: queries that run now.
        refused, answered: queries refused, and queries that ran and ended, since the start.
    """

    def __init__(
        self, running_max: int = limits.QUERIES_RUNNING_MAX, what: str = "queries are running"
    ) -> None:
        self._running_max = running_max
        self._what = what
        self._lock = threading.Lock()
        self.running = 0
        self.refused = self.answered = 0
        self._mean_s = _RETRY_MIN_S

    def enter(self) -> None:
        """Count one more running query; `leave` must follow.

        Raises:
            Overloaded: TOO_MANY_QUERIES, with the time after which a query has likely ended.
        """
        with self._lock:
            if self.running >= self._running_max:
                self.refused += 1
                raise Overloaded(
                    Reason.TOO_MANY_QUERIES,
                    f"{self.running} {self._what}, the most this server takes at once",
                    metadata={"running_max": str(self._running_max)},
                    retry_after_s=min(max(self._mean_s, _RETRY_MIN_S), _RETRY_MAX_S),
                )
            self.running += 1

    def leave(self, took_s: float) -> None:
        """Count one query less, which ran for `took_s`."""
        with self._lock:
            assert self.running > 0, "more queries left than entered"
            self.running -= 1
            self.answered += 1
            self._mean_s += _WEIGHT * (took_s - self._mean_s)


class MemoryBudget:
    """Counts the bytes of rows that all running queries hold. Thread-safe.

    Args:
        bytes_max: bound on all of them together.

    Attributes:
        held: bytes held now.
    """

    def __init__(self, bytes_max: int = limits.QUERY_PARTS_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self.held = 0

    def take(self, size: int) -> bool:
        """Add `size` bytes; return whether all are within the bound."""
        with self._lock:
            self.held += size
            return self.held <= self._bytes_max

    def give(self, size: int) -> None:
        """Subtract `size` bytes."""
        with self._lock:
            self.held -= size


class MemoryShare:
    """The bytes that one part of one query holds; leaving the context gives them back."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._size = 0

    def take(self, size: int) -> bool:
        """Add `size` bytes; return whether that is within the bounds of a part and of all."""
        self._size += size
        return self._budget.take(size) and self._size <= PART_BYTES_MAX

    def __enter__(self) -> MemoryShare:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.give(self._size)
        self._size = 0
