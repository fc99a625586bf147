"""Starts processes of `servers` and reads the JSON lines that they print.

The command imports nothing from `servers`; it only runs `python -m servers NAME`. The child has a
session of its own, so Ctrl-C in the terminal reaches it once, forwarded by the command, and it
drains in its own order.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any, Self

from k2cli import console

Event = dict[str, Any]

_FORWARDED = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,
}
_POLL_S = 0.05
_LAST_WORDS_BYTES = 4096
_LOG_BYTES_MAX = 8 << 20  # of earlier starts
INTERRUPTED = 130
_PROGRESS = ("step", "progress", "serving")


class Spawned:
    """A running `python -m servers NAME`.

    Args:
        name: the process to run.
        arguments: its arguments.
        directory: the data directory, passed on as K2_DATA_DIR.
        settings: additional settings, as environment variables.
        detached: write its lines to a file, so that it can outlive this process.

    Attributes:
        interrupted: whether a signal was forwarded to it.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        directory: Path,
        *,
        settings: Mapping[str, str] | None = None,
        detached: bool = False,
    ) -> None:
        self.interrupted = False
        self._logs = directory / "logs"
        self._errors = self._open(f"{'supervisor' if name == 'up' else name}.err")
        self._errors_start = self._errors.tell()
        self._events = self._open(f"{name}.jsonl") if detached else None
        self._events_start = self._events.tell() if self._events else 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "servers", name, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._events or subprocess.PIPE,
            stderr=self._errors,
            # Modules in the user's working directory must not be imported.
            env=os.environ
            | {"K2_DATA_DIR": str(directory), "PYTHONSAFEPATH": "1"}
            | dict(settings or {}),
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def events(self) -> Iterator[Event]:
        """Yield the events that it prints, until it ends."""
        lines = self._follow(self._events) if self._events else self._process.stdout
        for line in lines or ():
            if event := _event(line):
                yield event

    def wait(self) -> int:
        """Wait for its end; return its exit code, or 128 + the signal that ended it."""
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def detach(self) -> None:
        """Leave it running; this process no longer waits for it."""
        self._process.returncode = 0

    def last_words(self) -> str:
        """Return the last line of its log, which explains an end without a `failed` event."""
        self._errors.flush()
        self._errors.seek(0, os.SEEK_END)
        start = max(self._errors_start, self._errors.tell() - _LAST_WORDS_BYTES)
        self._errors.seek(start)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return _message(lines[-1]) if lines else ""

    @contextlib.contextmanager
    def forwarding(self) -> Iterator[None]:
        """Forward signals that would end this process to the child while the block runs."""

        def forward(number: int, _frame: FrameType | None) -> None:
            self.interrupted = True
            if self._process.poll() is None:
                self._process.send_signal(_FORWARDED[signal.Signals(number)])

        before = {number: signal.signal(number, forward) for number in _FORWARDED}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the child, unless `detach` was called, after any outcome of the block."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        for file in (self._process.stdout, self._errors, self._events):
            if file is not None:
                file.close()

    def _open(self, name: str) -> IO[bytes]:
        """Open a log to append to, else a temporary file: the child itself reports the reason."""
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            file: IO[bytes] = (self._logs / name).open("a+b")
        except OSError:
            file = tempfile.TemporaryFile()  # noqa: SIM115 it lives as long as the child
        if file.seek(0, os.SEEK_END) > _LOG_BYTES_MAX:
            file.truncate(0)
            file.seek(0)
        return file

    def _follow(self, file: IO[bytes]) -> Iterator[bytes]:
        """Yield the lines that the child appends to a file, until it ends."""
        position, unfinished = self._events_start, b""
        while True:
            ended = self._process.poll() is not None
            new = os.pread(file.fileno(), 1 << 16, position)
            position += len(new)
            *lines, unfinished = (unfinished + new).split(b"\n")
            yield from lines
            if not new and ended:
                return
            if not new:
                time.sleep(_POLL_S)


def run_tool(
    name: str,
    arguments: Sequence[str],
    directory: Path,
    take: Callable[[Event], None],
    settings: Mapping[str, str] | None = None,
) -> int:
    """Run a process that works and then ends (doctor, record, verify), and show its progress.

    Args:
        name: the process to run.
        arguments: its arguments.
        directory: the data directory it works on.
        take: takes every event but progress, failures and an early end.
        settings: additional settings, as environment variables.

    Returns:
        Its exit code; never 0 when it failed.
    """
    failure: Event | None = None
    answered = False
    with Spawned(name, arguments, directory, settings=settings) as tool, tool.forwarding():
        with console.steps() as step:
            for event in tool.events():
                if event["event"] == "failed":
                    failure = event
                elif event["event"] in _PROGRESS:
                    part = str(event.get("name") or name)
                    words = event.get("message") or event.get("what") or event["event"]
                    step(part, str(words), event.get("done"), event.get("total"))
                elif event["event"] == "stopped":
                    answered = True
                    console.say(str(event.get("message")))
                else:
                    answered = True
                    take(event)
        code = tool.wait()
        if failure is not None:
            console.say(f"k2: {failure.get('reason')}: {failure.get('message')}")
            return code or 1
        if tool.interrupted:
            return code or INTERRUPTED
        if code and not answered and (words := tool.last_words()):
            console.say(f"k2: {name} ended with {code}: {words}")
        return code


def tool_answer(
    name: str,
    arguments: Sequence[str],
    directory: Path,
    settings: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, Any]]:
    """Run a process as `run_tool` does; return its exit code and the fields of its events."""
    answer: dict[str, Any] = {}

    def take(event: Event) -> None:
        answer.update({field: value for field, value in event.items() if field != "event"})

    return run_tool(name, arguments, directory, take, settings), answer


def show_answer(
    name: str,
    arguments: Sequence[str],
    directory: Path,
    show: Callable[[dict[str, Any]], None],
    *,
    as_json: bool,
) -> int:
    """Run a process as `tool_answer` does and show its answer, if any; return its exit code."""
    code, answer = tool_answer(name, arguments, directory)
    if answer:
        (console.echo_json if as_json else show)(answer)
    return code


def _message(line: str) -> str:
    """Return the message of a log line that is a JSON object, else the line."""
    try:
        logged = json.loads(line)
    except ValueError:
        return line
    return str(logged.get("message", line)) if isinstance(logged, dict) else line


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
