"""Bounds how many queries or plans run at once, and the bytes of rows that queries hold. Sans-IO.

A refusal is cheap and says when to come back; a queue would hide the overload behind a deadline.

Each class of requests has places of its own, so a flood of one leaves the others theirs. Batch has
fewer as the pressure rises. One caller may hold a share of the places of a class, so that its flood
is refused before it is load.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from k2 import limits
from k2.degrade.policy import batch_places
from k2.errors import Overloaded, Reason
from k2.query.request import Caller, RequestClass

_RETRY_MIN_S = 0.1
_RETRY_MAX_S = 5.0
_WEIGHT = 0.2  # of the newest query in the mean
PART_BYTES_MAX = 64 * limits.MIB  # of the rows that a part of a query holds

PLACES: Final[Mapping[RequestClass, int]] = {
    RequestClass.CRITICAL: limits.QUERIES_CRITICAL_MAX,
    RequestClass.INTERACTIVE: limits.QUERIES_INTERACTIVE_MAX,
    RequestClass.BATCH: limits.QUERIES_BATCH_MAX,
}


class Places:
    """Counts what runs, such as plans, by caller. Thread-safe.

    Args:
        running_max: how many may run at once.
        what: names what is counted, for the error message.
        now: returns how many of `running_max` may run at this moment.

    Attributes:
        running: how many run now.
        answered: how many ran and ended, since the start.
    """

    def __init__(
        self, running_max: int, what: str, now: Callable[[int], int] = lambda most: most
    ) -> None:
        self._running_max = running_max
        self._what = what
        self._now = now
        self._lock = threading.Lock()
        self._callers: Counter[str] = Counter()
        self.running = 0
        self.answered = 0
        self._mean_s = _RETRY_MIN_S

    @property
    def most(self) -> int:
        """How many may run at this moment."""
        return self._now(self._running_max)

    def check(self, caller: Caller) -> None:
        """Raise what `enter` would at this moment."""
        most = self.most
        share = max(1, int(most * limits.QUERIES_CALLER_SHARE))
        own = self._callers.get(caller.name, 0)
        if self.running >= most:
            running = f"{self.running} {self._what}, the most this server takes at once"
            raise _too_many(running, most, self._mean_s)
        if own >= share:
            running = f"{own} {self._what} for this caller, the most that one may have at once"
            raise _too_many(running, share, self._mean_s)

    def enter(self, caller: Caller) -> None:
        """Count one more; `leave` must follow.

        Raises:
            Overloaded: TOO_MANY_QUERIES, with the time after which one has likely ended.
        """
        with self._lock:
            self.check(caller)
            self.running += 1
            self._callers[caller.name] += 1

    def leave(self, caller: Caller, took_s: float) -> None:
        """Count one less, which ran for `took_s`."""
        with self._lock:
            assert self._callers[caller.name] > 0, "more left than entered"
            self.running -= 1
            self._callers[caller.name] -= 1
            if not self._callers[caller.name]:
                del self._callers[caller.name]  # callers come and go
            self.answered += 1
            self._mean_s += _WEIGHT * (took_s - self._mean_s)


class Admission:
    """Counts running queries by class and caller. Thread-safe.

    Args:
        places: of each class.
        pressure: returns the highest pressure of the process, 0..1.

    Attributes:
        classes: the places of each class.
    """

    def __init__(
        self,
        places: Mapping[RequestClass, int] = PLACES,
        pressure: Callable[[], float] = lambda: 0.0,
    ) -> None:
        def now(most: int) -> int:
            return batch_places(most, pressure())

        self.classes: Mapping[RequestClass, Places] = {
            name: Places(most, f"{name} queries are running", now)
            if name is RequestClass.BATCH
            else Places(most, f"{name} queries are running")
            for name, most in places.items()
        }

    @property
    def running(self) -> int:
        """Queries that run now."""
        return sum(places.running for places in self.classes.values())

    @property
    def answered(self) -> int:
        """Queries that ran and ended, since the start."""
        return sum(places.answered for places in self.classes.values())

    def check(self, caller: Caller) -> None:
        """Raise what `enter` would at this moment."""
        self.classes[caller.request_class].check(caller)

    def enter(self, caller: Caller) -> None:
        """Count one more running query; `leave` must follow.

        Raises:
            Overloaded: TOO_MANY_QUERIES, with the time after which a query has likely ended.
        """
        self.classes[caller.request_class].enter(caller)

    def leave(self, caller: Caller, took_s: float) -> None:
        """Count one query less, which ran for `took_s`."""
        self.classes[caller.request_class].leave(caller, took_s)


def _too_many(what: str, running_max: int, mean_s: float) -> Overloaded:
    return Overloaded(
        Reason.TOO_MANY_QUERIES,
        what,
        metadata={"running_max": str(running_max)},
        retry_after_s=min(max(mean_s, _RETRY_MIN_S), _RETRY_MAX_S),
    )


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
