"""One child process: started in a session of its own, watched, ended with all it started.

A child dies with its parent: on Linux the kernel kills it when the *thread* that started it ends,
so children are started from the main thread only. Killing is safe for every part of K2; each is
built to go on after `kill -9`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from k2.errors import Internal, Reason

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Command:
    """What to start.

    Attributes:
        argv: program and arguments.
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

    def __init__(self, command: Command, log: Path, *, piped: bool = False) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as messages:
            try:
                self._process = subprocess.Popen(
                    command.argv,
                    env=dict(command.env),
                    cwd=command.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE if piped else messages,
                    stderr=messages,
                    start_new_session=True,
                    preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 two system calls, no locks
                )
            except OSError as error:
                raise Internal(
                    Reason.INTERNAL, f"{command.argv[0]} cannot be started: {error}"
                ) from error

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its session."""
        return self._process.pid

    @property
    def stdout(self) -> IO[bytes] | None:
        """What it prints, if it was started with `piped`."""
        return self._process.stdout

    def exit_code(self) -> int | None:
        """Its exit code (negative: the signal that ended it); None while it runs."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self.exit_code() is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    def kill(self) -> int:
        """End it and everything in its session at once; its exit code."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()

    def stop(self, grace_s: float) -> int:
        """SIGTERM, and `kill` if it has not ended after `grace_s`; its exit code."""
        self.ask_to_stop()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        return self.kill()


def _die_with(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

    return prepare
