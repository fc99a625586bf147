"""Waiting for what will be true, instead of sleeping for what may be."""

import threading
from collections.abc import Callable
from typing import TypeVar

from k2.clock import SystemClock

T = TypeVar("T")


def eventually(
    check: Callable[[], T], timeout_s: float = 10.0, interval_s: float = 0.02, say: str = ""
) -> T:
    """The first truthy result of `check`, which may also raise AssertionError while it is not so.

    Raises:
        AssertionError: it was not so within `timeout_s`; says `say`, or what was seen last.
    """
    clock, pause = SystemClock(), threading.Event()
    end = clock.monotonic_s() + timeout_s
    last: object = None
    while True:
        try:
            last = result = check()
            if result:
                return result
        except AssertionError as error:
            last = error
        if clock.monotonic_s() > end:
            raise AssertionError(f"{say or 'it did not happen'} in {timeout_s} s; last: {last}")
        pause.wait(interval_s)
