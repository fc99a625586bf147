"""The machine as a process sees it: a clock, an identity, signals, a stdout for programs.

A process says what it does in JSON lines on stdout; its logs go to stderr.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from typing import TextIO, TypeVar

from k2 import limits
from k2.clock import Clock, SystemClock
from k2.errors import Overloaded, Unavailable

_WAIT_S = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
T = TypeVar("T")

INTERRUPTED = 128 + signal.SIGINT  # the exit code of work that was stopped before its end

_log = logging.getLogger(__name__)


class Interrupted(BaseException):
    """The process was asked to stop in the midst of its work; no handler of failures takes it."""


@dataclass(frozen=True)
class Runtime:
    """The machine as a process sees it.

    Attributes:
        clock: time.
        run_id: 32 hexadecimal digits, new for each life of a process.
        stopping: set when the process is asked to stop.
        second_signal: set when it is asked again.
        interrupting: set while a request to stop raises `Interrupted`.
        serving: set when the process has said that it serves.
        stuck: set when a library keeps threads that nothing can end; `end` does not wait for them.
        out: where JSON lines go.
    """

    clock: Clock
    run_id: str
    stopping: threading.Event = field(default_factory=threading.Event)
    second_signal: threading.Event = field(default_factory=threading.Event)
    serving: threading.Event = field(default_factory=threading.Event)
    stuck: threading.Event = field(default_factory=threading.Event)
    interrupting: threading.Event = field(default_factory=threading.Event)
    out: TextIO = sys.stdout
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def emit(self, event: str, **fields: object) -> None:
        """Print one JSON line; a reader that has gone away does not matter. Thread-safe."""
        line = json.dumps({"event": event, **fields}, default=str)
        with self._lock:
            try:
                self.out.write(line + "\n")
                self.out.flush()
            except (OSError, ValueError):
                self._forget_reader()
        if event == "serving":
            self.serving.set()

    def retry_until_stopped(self, attempt: Callable[[], T]) -> T | None:
        """Retry `attempt` while what it needs is unavailable; None when asked to stop."""
        while not self.stopping.is_set():
            try:
                return attempt()
            except (Unavailable, Overloaded) as error:
                _log.warning("waiting: %s", error.message, extra={"reason": error.reason.value})
                self.stopping.wait(_WAIT_S)
        return None

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a request to stop raise `Interrupted` in the main thread, wherever that is.

        For work that may end anywhere: it only reads, or what it writes survives a crash.
        """
        self.interrupting.set()
        try:
            if self.stopping.is_set():
                raise Interrupted
            yield
        finally:
            self.interrupting.clear()

    def progress(self) -> Callable[[str, int, int], None]:
        """Make a function that prints message, done and total a few times a second at most."""
        last_s = -math.inf

        def progress(message: str, done: int, total: int) -> None:
            nonlocal last_s
            if self.interrupting.is_set() and self.stopping.is_set():
                raise Interrupted  # what is raised inside a finalizer is lost
            now_s = self.clock.monotonic_s()
            if now_s - last_s >= limits.VERIFY_PROGRESS_INTERVAL_S:
                last_s = now_s
                self.emit("progress", message=message, done=done, total=total)

        return progress

    def end(self, code: int) -> int:
        """Return the exit code, for `sys.exit`; a stuck process ends here, with that code.

        Requests to stop change nothing any more: the interpreter, as it ends, would let them kill.
        """
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if self.stuck.is_set():
            _log.warning("calls are left that do not end: the process ends without them")
            logging.shutdown()
            os._exit(code)
        return code

    def _forget_reader(self) -> None:
        """Let what is still buffered go nowhere, so that the process ends without a complaint."""
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.out.fileno())
            os.close(nowhere)
        except (OSError, ValueError):
            pass


class _NoPandas(MetaPathFinder):
    """Makes pandas look absent: no process uses it, but pyarrow would load it where it is.

    It would cost each process a second of start and 35 MiB.
    """

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Refuse pandas; leave all else to others."""
        if fullname == "pandas":
            raise ModuleNotFoundError("processes of K2 do without pandas", name=fullname)


def start() -> Runtime:
    """Make the runtime of this process; SIGTERM, SIGINT and SIGHUP ask it to stop from now on."""
    sys.meta_path.insert(0, _NoPandas())
    run_id = uuid.uuid4().hex  # noqa: TID251 identities are made here
    runtime = Runtime(SystemClock(), run_id)

    def ask(_signal: int, _frame: object) -> None:
        if runtime.stopping.is_set():
            runtime.second_signal.set()
        runtime.stopping.set()
        if runtime.interrupting.is_set():
            raise Interrupted

    for number in _SIGNALS:
        signal.signal(number, ask)
    return runtime
