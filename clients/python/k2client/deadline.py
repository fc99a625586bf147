"""Limits the time of a call and decides when it is retried.

A retry waits for the `retry_after_s` of the answer and stays within the deadline: when less time is
left than it must wait, the error is raised at once. Each wait has full jitter, so that the callers
that were refused together do not come back together.

Retries of what was refused under load have a budget besides: a tenth of the calls. Without it, each
caller that is refused would add load until its deadline.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from k2client.errors import K2Error, Overloaded, Unavailable

T = TypeVar("T")

RETRY_SHARE = 0.1
RETRIES_AT_FIRST = 10

_DOUBLINGS_MAX = 30


class Deadline:
    """The time by which the caller wants an answer.

    Args:
        seconds: from now.
        monotonic: a clock in seconds that never goes back.
    """

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._end = monotonic() + seconds

    def left_s(self) -> float:
        """Return the seconds left, never negative."""
        return max(0.0, self._end - self._monotonic())


class RetryBudget:
    """Counts the retries that may still be made; safe for several threads.

    Args:
        share: of the calls, that may be retries.
        at_first: retries that may be made without calls before; no more are ever saved up.
    """

    def __init__(self, share: float = RETRY_SHARE, at_first: int = RETRIES_AT_FIRST) -> None:
        self._share = share
        self._most = float(at_first)
        self._lock = threading.Lock()
        self._left = self._most

    def count_call(self) -> None:
        """Count a call, its retries aside."""
        with self._lock:
            self._left = min(self._left + self._share, self._most)

    def take(self) -> bool:
        """Count a retry; return whether it may be made."""
        with self._lock:
            may = self._left >= 1
            self._left -= may
            return may


@dataclass(frozen=True)
class Retry:
    """When to retry a call.

    Attributes:
        attempts_max: all attempts; 1 is no retry. None: until the deadline.
        silent_attempts_max: all attempts of a call that gets no answer, or an error without
            `retry_after_s`. It does not bound reading the rows of a plan: their deadline does.
        backoff_min_s, backoff_max_s: bounds of the longest wait when the answer names none; it
            doubles with each attempt.
        sleep: waits a number of seconds.
        jitter: returns a new random number from 0 to 1.
        budget: of the retries of what was refused under load.
    """

    attempts_max: int | None = None
    silent_attempts_max: int | None = 8
    backoff_min_s: float = 0.1
    backoff_max_s: float = 5.0
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random
    budget: RetryBudget = field(default_factory=RetryBudget, compare=False, repr=False)

    def wait_s(self, error: K2Error, attempt: int, deadline: Deadline) -> float | None:
        """Return the seconds to wait before the next attempt; None to give up.

        Args:
            error: the error of the last attempt.
            attempt: the number of attempts so far.
            deadline: the time that no retry may exceed.
        """
        bounds = [self.attempts_max]
        if error.retry_after_s is None:
            bounds.append(self.silent_attempts_max)
        if any(bound is not None and attempt >= bound for bound in bounds) or not _is_transient(
            error
        ):
            return None
        wait = self._jittered(error.retry_after_s, attempt, deadline.left_s())
        if wait is not None and _is_under_load(error) and not self.budget.take():
            _say_spent(error)
            return None
        return wait

    def _jittered(self, after_s: float | None, attempt: int, left_s: float) -> float | None:
        """Return a wait of `after_s` at least and less than `left_s`; None when there is none."""
        doubled = self.backoff_min_s * 2.0 ** min(attempt - 1, _DOUBLINGS_MAX)
        spread = min(self.backoff_max_s, doubled)
        if after_s is None:
            wait = self.jitter() * spread
            return wait if wait < left_s else None
        if after_s >= left_s:
            return None
        return after_s + self.jitter() * min(max(spread, after_s), (left_s - after_s) / 2)

    def run(self, call: Callable[[], T], deadline: Deadline) -> T:
        """Call until it succeeds, fails for good, or there is no time left.

        Raises:
            K2Error: the error of the last attempt.
        """
        attempt = 0
        self.budget.count_call()
        while True:
            try:
                return call()
            except K2Error as error:
                attempt += 1
                wait = self.wait_s(error, attempt, deadline)
                if wait is None:
                    raise
            self.sleep(wait)


def _is_transient(error: K2Error) -> bool:
    """Return whether a retry can help: a part is missing, or a limit says when to retry."""
    if error.reason in {"DEADLINE_EXCEEDED", "ANSWER_CHANGED"}:
        return False
    return isinstance(error, Unavailable) or (
        isinstance(error, Overloaded) and error.retry_after_s is not None
    )


def _is_under_load(error: K2Error) -> bool:
    """Return whether a limit or a level refused it, so that a retry adds to the load.

    A call beyond what a server takes at once is refused before any work is done: many at once are
    all answered in the end, as RetryInfo and the deadline of each allow.
    """
    if error.reason == "TOO_MANY_CALLS":
        return False
    return isinstance(error, Overloaded) or error.reason == "DEFERRED"


def _say_spent(error: K2Error) -> None:
    error.metadata["retry_budget"] = "spent"
    error.message += (
        f" (not tried again: retries may be {RETRY_SHARE:.0%} of the calls, and that is spent)"
    )
    error.args = (error.message,)
