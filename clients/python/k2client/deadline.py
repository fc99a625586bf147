"""How long a call may take, and when it is tried again.

A retry obeys the `retry_after_s` of the answer and never outlives the deadline: when there is not
enough time left to wait as told, the error is raised at once.
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
    """A moment by which the caller wants an answer.

    Args:
        seconds: from now.
        monotonic: seconds that never go back.
    """

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._end = monotonic() + seconds

    def left_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - self._monotonic())


@dataclass(frozen=True)
class Retry:
    """How often to try.

    Attributes:
        attempts_max: tries in all; 1 is no retry. None: until the deadline.
        silent_attempts_max: tries in all of a call that nothing answers, or that is not said when
            to come back. Rows of a planned answer do not end with it: there the deadline decides.
        backoff_min_s, backoff_max_s: waits where the answer names none, doubling, with jitter.
        sleep: waits so many seconds.
        jitter: a number from 0 to 1, anew each time.
    """

    attempts_max: int | None = None
    silent_attempts_max: int | None = 8
    backoff_min_s: float = 0.1
    backoff_max_s: float = 5.0
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random

    def wait_s(self, error: K2Error, attempt: int, deadline: Deadline) -> float | None:
        """Seconds to wait before trying again; None: give up.

        Args:
            error: what the last try ended with.
            attempt: how many tries there were.
            deadline: what must not be outlived.
        """
        bounds = [self.attempts_max]
        if error.retry_after_s is None:
            bounds.append(self.silent_attempts_max)
        if any(most is not None and attempt >= most for most in bounds) or not _passes(error):
            return None
        doubled = self.backoff_min_s * 2 ** min(attempt - 1, _DOUBLINGS_MAX)
        backoff = min(self.backoff_max_s, doubled)
        wait = max(error.retry_after_s or 0.0, backoff * (0.5 + self.jitter() / 2))
        return wait if wait < deadline.left_s() else None

    def run(self, call: Callable[[], T], deadline: Deadline) -> T:
        """Call until it succeeds, fails for good, or there is no time left.

        Raises:
            K2Error: what the last try ended with.
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


def _passes(error: K2Error) -> bool:
    """Whether time alone may mend it: a missing part, or a limit that says when to come back."""
    if error.reason in {"DEADLINE_EXCEEDED", "ANSWER_CHANGED"}:
        return False
    return isinstance(error, Unavailable) or (
        isinstance(error, Overloaded) and error.retry_after_s is not None
    )
