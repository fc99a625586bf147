"""Limits the time of a call and decides when it is retried.

A retry waits for the `retry_after_s` of the answer and stays within the deadline: when less time is
left than it must wait, the error is raised at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from k2client.errors import K2Error, Overloaded, Unavailable

T = TypeVar("T")

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


@dataclass(frozen=True)
class Retry:
    """When to retry a call.

    Attributes:
        attempts_max: all attempts; 1 is no retry. None: until the deadline.
        silent_attempts_max: all attempts of a call that gets no answer, or an error without
            `retry_after_s`. It does not bound reading the rows of a plan: their deadline does.
        backoff_min_s, backoff_max_s: bounds of the wait when the answer names none; it doubles
            with each attempt and has jitter.
        sleep: waits a number of seconds.
        jitter: returns a new random number from 0 to 1.
    """

    attempts_max: int | None = None
    silent_attempts_max: int | None = 8
    backoff_min_s: float = 0.1
    backoff_max_s: float = 5.0
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random

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
        doubled = self.backoff_min_s * 2 ** min(attempt - 1, _DOUBLINGS_MAX)
        backoff = min(self.backoff_max_s, doubled)
        wait = max(error.retry_after_s or 0.0, backoff * (0.5 + self.jitter() / 2))
        return wait if wait < deadline.left_s() else None

    def run(self, call: Callable[[], T], deadline: Deadline) -> T:
        """Call until it succeeds, fails for good, or there is no time left.

        Raises:
            K2Error: the error of the last attempt.
        """
        attempt = 0
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
