"""Calls K2 from the event loop: connections by request class, and a bounded number of threads.

The client blocks, so its calls run in threads. A call that finds too many others in work is refused
at once: a request that waits in a queue is answered late or for no one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Final, TypeVar

import k2client
from k2 import limits
from k2.clock import Clock
from k2client.errors import Overloaded

T = TypeVar("T")
_ONCE: Final = k2client.Retry(attempts_max=1)  # the caller decides whether to try again


class Connections:
    """Connections to one K2, one a request class, each made when it is first needed."""

    def __init__(self, address: str, deadline_s: float = limits.EDGE_CALL_S) -> None:
        self._address = address
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._made: dict[str | None, k2client.Client] = {}

    def client(self, request_class: str | None = None) -> k2client.Client:
        """Return the connection of a class; None: as the server has it by default.

        Raises:
            Invalid: BAD_REQUEST when there is no such class.
        """
        with self._lock:
            if request_class not in self._made:
                self._made[request_class] = k2client.connect(
                    self._address,
                    deadline_s=self._deadline_s,
                    retry=_ONCE,
                    request_class=request_class,
                )
            return self._made[request_class]

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            for client in self._made.values():
                client.close()
            self._made.clear()


class CallThreads:
    """Threads for blocking calls, and how many calls may be in work or wait for one.

    Args:
        name: of the threads.
        threads: how many.
        calls_max: more are refused.
        clock: tells how long calls wait.
    """

    def __init__(self, name: str, threads: int, calls_max: int, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[object, float] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._calls_max = calls_max
        self._counting = threading.Lock()
        self._calls = 0

    @property
    def queued(self) -> int:
        """Calls that wait for a thread."""
        return len(self._waiting)

    @property
    def longest_wait_s(self) -> float:
        """How long the oldest of them has waited; 0 without one."""
        now_s = self._clock.monotonic_s()
        with self._counting:
            return now_s - min(self._waiting.values(), default=now_s)

    async def run(self, work: Callable[[], T]) -> T:
        """Run a call in a thread, in the trace of the caller.

        Raises:
            Overloaded: TOO_MANY_CALLS.
        """
        with self._counting:
            if self._calls >= self._calls_max:
                raise Overloaded(
                    "TOO_MANY_CALLS",
                    f"{self._calls} requests are in work: ask again in a moment",
                    retry_after_s=1.0,
                )
            self._calls += 1
            call = object()
            self._waiting[call] = self._clock.monotonic_s()
        future = self._pool.submit(copy_context().run, self._begun, call, work)
        future.add_done_callback(partial(self._ended, call))
        return await asyncio.wrap_future(future)

    async def go_on(self, work: Callable[[], T]) -> T:
        """Run a further call of work that was admitted before."""
        return await asyncio.wrap_future(self._pool.submit(copy_context().run, work))

    def submit(self, work: Callable[[], object]) -> None:
        """Run what nothing waits for, such as closing a stream that its reader left."""
        self._pool.submit(work)

    def close(self) -> None:
        """Take no more calls."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begun(self, call: object, work: Callable[[], T]) -> T:
        self._leave_queue(call)
        return work()

    def _ended(self, call: object, _future: Future[Any]) -> None:
        self._leave_queue(call)  # it may have been cancelled there
        with self._counting:
            self._calls -= 1

    def _leave_queue(self, call: object) -> None:
        with self._counting:
            self._waiting.pop(call, None)


class StreamPlaces:
    """Places for answers that are sent while they are read.

    Args:
        most: so many at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: set[object] = set()

    def enter(self) -> Callable[[], None]:
        """Take a place; returns what gives it back, once or more often.

        Raises:
            Overloaded: TOO_MANY_CALLS.
        """
        if len(self._taken) >= self._most:
            raise Overloaded(
                "TOO_MANY_CALLS",
                f"{self._most} answers are being sent: ask again in a moment",
                retry_after_s=1.0,
            )
        place = object()
        self._taken.add(place)
        return lambda: self._taken.discard(place)
