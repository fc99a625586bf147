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
    """Counts what runs, such as plans. Thread-safe.

    Args:
        running_max: how many may run at once.
        what: names what is counted, for the error message.

    Attributes:
        running: how many run now.
    """

    def __init__(self, running_max: int, what: str) -> None:
        self._running_max = running_max
        self._what = what
        self._lock = threading.Lock()
        self.running = 0
        self._mean_s = _RETRY_MIN_S

    def enter(self) -> None:
        """Count one more; `leave` must follow.

        Raises:
            Overloaded: TOO_MANY_QUERIES, with the time after which one has likely ended.
        """
        with self._lock:
            if self.running >= self._running_max:
                what = f"{self.running} {self._what}, the most this server takes at once"
                raise _too_many(what, self._running_max, self._mean_s)
            self.running += 1

    def leave(self, took_s: float) -> None:
        """Count one less, which ran for `took_s`."""
        with self._lock:
            assert self.running > 0, "more left than entered"
            self.running -= 1
            self._mean_s += _WEIGHT * (took_s - self._mean_s)


class Admission:
    """Counts running queries by class and caller. Thread-safe.

    Args:
        places: of each class.
        pressure: returns the highest pressure of the process, 0..1.

    Attributes:
        answered: queries of each class that ran and ended, since the start.
    """

    def __init__(
        self,
        places: Mapping[RequestClass, int] = PLACES,
        pressure: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._places = dict(places)
        self._pressure = pressure
        self._lock = threading.Lock()
        self._running: Counter[tuple[RequestClass, str]] = Counter()
        self._of_class: Counter[RequestClass] = Counter(dict.fromkeys(RequestClass, 0))
        self._mean_s = dict.fromkeys(RequestClass, _RETRY_MIN_S)
        self.answered: Counter[RequestClass] = Counter(dict.fromkeys(RequestClass, 0))

    @property
    def running(self) -> int:
        """Queries that run now."""
        return self._of_class.total()

    def running_of(self, request_class: RequestClass) -> int:
        """Return how many queries of a class run now."""
        return self._of_class[request_class]

    def places(self, request_class: RequestClass) -> int:
        """Return how many queries of a class may run now."""
        places = self._places[request_class]
        moves = request_class is RequestClass.BATCH
        return batch_places(places, self._pressure()) if moves else places

    def check(self, caller: Caller) -> None:
        """Raise what `enter` would at this moment."""
        with self._lock:
            self._assert_free(caller)

    def enter(self, caller: Caller) -> None:
        """Count one more running query; `leave` must follow.

        Raises:
            Overloaded: TOO_MANY_QUERIES, with the time after which a query has likely ended.
        """
        with self._lock:
            self._assert_free(caller)
            self._running[caller.request_class, caller.name] += 1
            self._of_class[caller.request_class] += 1

    def leave(self, caller: Caller, took_s: float) -> None:
        """Count one query less, which ran for `took_s`."""
        key = caller.request_class, caller.name
        with self._lock:
            assert self._running[key] > 0, "more queries left than entered"
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]  # callers come and go
            self._of_class[caller.request_class] -= 1
            self.answered[caller.request_class] += 1
            mean_s = self._mean_s[caller.request_class]
            self._mean_s[caller.request_class] = mean_s + _WEIGHT * (took_s - mean_s)

    def _assert_free(self, caller: Caller) -> None:
        named, mean_s = caller.request_class, self._mean_s[caller.request_class]
        places = self.places(named)
        running = self._of_class[named]
        if running >= places:
            what = f"{running} {named} queries are running, the most this server takes at once"
            raise _too_many(what, places, mean_s)
        share = max(1, int(places * limits.QUERIES_CALLER_SHARE))
        own = self._running.get((named, caller.name), 0)
        if own >= share:
            what = f"this caller has {own} {named} queries running, the most that one caller may"
            raise _too_many(what, share, mean_s)


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
