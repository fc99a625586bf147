"""Implements `k2 down`: asks the supervisor to drain and stop the stack, and waits for its end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import click

from k2cli import console, options
from k2client import stack
from k2client.errors import Overloaded

_POLL_S = 0.05
_AGAIN_S = 0.3


@click.command()
@click.option(
    "--timeout", "timeout_s", type=float, default=90.0, show_default=True, help="Seconds to wait."
)
@options.data_dir
def down(timeout_s: float, data_dir: Path | None) -> None:
    """Stop the stack of a data directory. Stored data stays; `k2 up` continues from it."""
    target = stack.read_stack(options.directory_of(data_dir))
    if target.supervisor_pid is None:
        console.say(f"no K2 runs in {target.directory}: nothing to stop")
        return
    console.say(f"stopping the K2 of {target.directory} (process {target.supervisor_pid})")
    began = time.monotonic()
    stop(target, timeout_s)
    console.say(f"stopped in {time.monotonic() - began:.1f} s")


def stop(target: stack.Stack, timeout_s: float, *, at_once: bool = False) -> None:
    """Signal the supervisor and wait until it releases its lock.

    Args:
        target: the stack that runs.
        timeout_s: the longest time to wait.
        at_once: ask twice, so that processes are killed and not drained.

    Raises:
        Overloaded: DEADLINE_EXCEEDED when it still holds the lock after `timeout_s`.
    """
    assert target.supervisor_pid is not None, "the stack runs"
    try:
        os.kill(target.supervisor_pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    began = time.monotonic()
    end, again_s = began + timeout_s, began + _AGAIN_S
    while stack.is_locked(target.directory / "run" / "lock"):
        if time.monotonic() > end:
            raise Overloaded(
                "DEADLINE_EXCEEDED",
                f"process {target.supervisor_pid} still drains after {timeout_s:g} s:"
                " run `k2 down` again to stop it at once",
            )
        if at_once and time.monotonic() > again_s:
            at_once = False
            with contextlib.suppress(ProcessLookupError):
                os.kill(target.supervisor_pid, signal.SIGTERM)
        time.sleep(_POLL_S)
