"""Starts a child process in a session of its own, and ends it with all that it started.

A child dies with its parent: on Linux the kernel kills it when the *thread* that started it ends,
so children are started from the main thread only. Killing is safe for every part of K2; each is
built to go on after `kill -9`. A small program asks the kernel for that and then becomes the child:
doing it in the fork itself is not safe in a process with threads.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from k2.clock import SystemClock

_POLL_S = 0.02
_CLOCK = SystemClock()

_BECOME = """
import ctypes, os, signal, sys
parent, program = int(sys.argv[1]), sys.argv[2:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != parent:
    sys.exit(1)
try:
    os.execve(program[0], program, os.environ)
except OSError as error:
    sys.exit(f"{program[0]} cannot be started: {error}")
"""


@dataclass(frozen=True)
class ChildCommand:
    """A program to start.

    Attributes:
        argv: program, as an absolute path, and arguments.
        env: the child's whole environment.
        cwd: its working directory; None keeps the parent's.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None


class Child:
    """A process that was started; `log` gets its stderr, and its stdout unless `piped`.

    Args:
        command: what to start.
        log: the file its messages are appended to.
        piped: whether `stdout` can be read here.
    """

    def __init__(self, command: ChildCommand, log: Path, *, piped: bool = False) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as messages:
            self._process = subprocess.Popen(
                (sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *command.argv),
                env=dict(command.env),
                cwd=command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else messages,
                stderr=messages,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its session."""
        return self._process.pid

    @property
    def stdout(self) -> IO[bytes] | None:
        """The child's stdout, if it was started with `piped`."""
        return self._process.stdout

    def exit_code(self) -> int | None:
        """Its exit code (negative: the signal that ended it); None while it runs.

        What it had started itself, and left in its session, ends with it.
        """
        if self._process.returncode is None and _has_ended(self.pid):
            self._end_session()
        return self._process.poll()

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code, as soon as it ends; None if that takes longer."""
        end = _CLOCK.monotonic_s() + timeout_s
        while self.exit_code() is None and _CLOCK.monotonic_s() < end:
            _CLOCK.sleep(_POLL_S)
        return self.exit_code()

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self.exit_code() is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    def kill(self) -> int:
        """End it and everything in its session at once; its exit code."""
        if self._process.returncode is None:
            self._end_session()
        return self._process.wait()

    def stop(self, grace_s: float) -> int:
        """SIGTERM, and `kill` if it has not ended after `grace_s`; its exit code."""
        self.ask_to_stop()
        self.wait(grace_s)
        return self.kill()

    def _end_session(self) -> None:
        """Kill all in its session; it is not reaped yet, so its id cannot be another's."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def _has_ended(pid: int) -> bool:
    """Whether a child has ended, leaving it to be reaped."""
    if not hasattr(os, "waitid"):
        return False
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
