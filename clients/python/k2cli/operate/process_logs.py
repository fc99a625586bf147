"""Implements `k2 logs`: shows what processes said, from the files under the data directory.

A file belongs to a process, holds a JSON object a line (`telemetry` writes them), and is emptied
by the supervisor when it has grown large. The broker and the registry write lines of their own,
which are shown only when they are named.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click

from k2cli import console, options
from k2client.errors import NotFound

_OTHERS = ("broker", "registry")
_BLOCK_BYTES = 64 * 1024
_TURN_S = 0.2  # between two looks at the files
_FIELDS = ("at", "level", "process", "logger", "message", "exception")


@click.command()
@click.argument("process", required=False)
@click.option("--tail", type=click.IntRange(min=0), default=20, show_default=True, metavar="N")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now on.")
@options.common
def logs(
    process: str | None, tail: int, follow: bool, as_json: bool, data_dir: Path | None
) -> None:
    """Show the last lines of the logs of K2's processes, or of PROCESS alone.

    --json shows the lines as they are written, a JSON object each.
    """
    folder = options.directory_of(data_dir) / "logs"
    shown = _files(folder, process)
    files = {path: LogFile(path) for path in shown}
    for line in tailed(files.values(), tail):
        console.echo(line.text if as_json else line.legible)
    if follow:
        for line in following(files, lambda: _files(folder, process)):
            console.echo(line.text if as_json else line.legible)


class LogLine(NamedTuple):
    """One line of a log: seconds since 1970 where it says so, its process, and its text."""

    at_s: float | None
    process: str
    text: str

    @property
    def legible(self) -> str:
        """Time, level, process and message for people, then what else the line holds."""
        said = _object(self.text)
        if said is None:
            return f"{self.process}  {self.text}"
        moment = datetime.fromtimestamp(self.at_s or 0.0, UTC)
        message = str(said.get("message", "")).replace("\n", "\n    ")
        more = " ".join(f"{name}={value}" for name, value in said.items() if name not in _FIELDS)
        line = (
            f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}Z"
            f"  {said.get('level', ''):<7}  {said.get('process', self.process):<8}  {message}"
        )
        raised = str(said.get("exception") or "")
        parts = [line + (f"  ({more})" if more else ""), *raised.splitlines()]
        return "\n    ".join(parts)


class LogFile:
    """The log of one process, read from its end on.

    Args:
        path: of the file, which may come later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._begun = b""  # a line whose end is not written yet

    def tail(self, count: int) -> list[LogLine]:
        """Read the last lines; `fresh` goes on behind them."""
        try:
            with self._path.open("rb") as file:
                self._at = start = file.seek(0, 2)
                text = b""
                while start > 0 and text.count(b"\n") <= count:
                    start = max(0, start - _BLOCK_BYTES)
                    file.seek(start)
                    text = file.read(self._at - start)
        except OSError:
            return []
        *whole, self._begun = text.split(b"\n")
        return self._lines(whole[-count:] if count else [])

    def fresh(self) -> list[LogLine]:
        """Read the lines that were written since; from the start where the file was emptied."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._at:
                    self._at, self._begun = 0, b""
                file.seek(self._at)
                text = file.read()
        except OSError:
            return []
        self._at += len(text)
        *whole, self._begun = (self._begun + text).split(b"\n")
        return self._lines(whole)

    def _lines(self, whole: Iterable[bytes]) -> list[LogLine]:
        """Make lines; one that says no time follows the one before it."""
        lines: list[LogLine] = []
        at_s: float | None = None
        for raw in whole:
            text = raw.decode(errors="replace").rstrip("\r")
            at = (_object(text) or {}).get("at")
            at_s = float(at) if isinstance(at, int | float) else at_s
            lines.append(LogLine(at_s, self._path.stem, text))
        return lines


def tailed(files: Iterable[LogFile], count: int) -> list[LogLine]:
    """Return the last lines of all files together, in the order of time."""
    lines = [line for file in files for line in file.tail(count)]
    return sorted(lines, key=_time)[-count:] if count else []


def following(files: dict[Path, LogFile], listed: Callable[[], list[Path]]) -> Iterator[LogLine]:
    """Yield what is written from now on, also to files that come; it does not end."""
    never = threading.Event()
    while not never.wait(_TURN_S):
        for path in listed():
            files.setdefault(path, LogFile(path))
        yield from sorted((line for file in files.values() for line in file.fresh()), key=_time)


def _time(line: LogLine) -> float:
    return line.at_s or 0.0


def _files(folder: Path, process: str | None) -> list[Path]:
    """Return the log of a process, or those of K2's own.

    Raises:
        NotFound: no process has written any yet.
        click.UsageError: the process has none.
    """
    found = {path.stem: path for path in sorted(folder.glob("*.log"))}
    if not found:
        raise NotFound("STACK_NOT_RUNNING", f"there are no logs in {folder}: k2 up writes them")
    if process is None:
        return [path for name, path in found.items() if name not in _OTHERS]
    if process not in found:
        raise click.UsageError(f"{process!r} has no log: choose one of {', '.join(found)}")
    return [found[process]]


def _object(text: str) -> dict[str, Any] | None:
    """Read a line's JSON object; None when it is another line."""
    try:
        said = json.loads(text)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None
