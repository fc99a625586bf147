"""What people see: progress on stderr while something works, tables on stdout when it is done."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol, Self

import click
from rich import box
from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH = 10_000
_STYLES = {
    "SERVING": "green",
    "NORMAL": "green",
    "ok": "green",
    "STARTING": "yellow",
    "DRAINING": "yellow",
    "SOFT": "yellow",
    "GRACEFUL": "yellow",
    "LOST": "red",
    "FAILING": "red",
    "DEAD": "red",
    "failed": "red",
    "AGGRESSIVE": "red",
    "CIRCUIT_BREAK": "red",
}


class Steps(Protocol):
    """Shows how far something is."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def step(self, part: str, message: str, done: float | None, total: float | None) -> None:
        """What a part is at; `done` of `total` where that is known."""
        ...


def steps(*, quiet: bool = False) -> Steps:
    """A display that moves on a terminal; elsewhere a line for each change; quiet: none."""
    console = Console(stderr=True)
    return _Moving(console) if console.is_terminal and not quiet else _Lines(quiet)


def say(message: str) -> None:
    """A line for a person, on stderr."""
    click.echo(message, err=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """A table on stdout; numbers to the right, states in their colour."""
    rows = [list(row) for row in rows]
    made = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(columns):
        numeric = any(isinstance(row[position], int | float) for row in rows)
        last = position == len(columns) - 1
        side: JustifyMethod = "right" if numeric else "left"
        made.add_column(name, justify=side, overflow="fold", no_wrap=not last)
    for row in rows:
        made.add_row(*(cell(value) for value in row))
    # A pipe has no width: nothing is folded or cut there.
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(made)


def cell(value: object) -> Text:
    """A value as people read it."""
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(f"{value:,}")
    if isinstance(value, float):
        return Text(f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}")
    if isinstance(value, datetime):
        return Text(value.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z")
    words = str(value)
    return Text(words, style=_STYLES.get(words, ""))


class _Moving:
    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.fields[part]:<10}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, part: str, message: str, done: float | None, total: float | None) -> None:
        task = self._tasks.get(part)
        if task is None:
            task = self._tasks[part] = self._progress.add_task(message, total=None, part=part)
        changes: dict[str, Any] = {"description": message}
        if done is not None and total:
            changes |= {"completed": done, "total": total}
        elif message in ("SERVING", "done"):
            changes |= {"completed": 1, "total": 1}
        self._progress.update(task, **changes)


class _Lines:
    """One line a change of words: a percentage alone would fill a log."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._last: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def step(self, part: str, message: str, done: float | None, total: float | None) -> None:
        if self._last.get(part) != message and not self._quiet:
            say(f"{part}: {message}" if part else message)
        self._last[part] = message
