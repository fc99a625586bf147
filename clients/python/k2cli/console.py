"""Prints progress to stderr, and tables or JSON documents to stdout.

Numbers and names are never cut: a table that is too wide for the terminal is stacked, with one line
per value. A character that the terminal's encoding lacks is escaped. In JSON, ids are strings and
times are ISO 8601 with microseconds and Z.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from k2client.json_form import json_value

_PIPE_WIDTH = 10_000
_LAST_WIDTH_MIN = 24  # the last column is folded to this width, the others never
_EDGES, _BETWEEN = 2, 3  # the columns that box.SIMPLE_HEAD adds
_PLAIN = {"·": "-", "…": "...", "✓": "*"}  # for encodings that lack them
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


Step = Callable[[str, str, float | None, float | None], None]
"""Shows the present step of a part: part, message, and `done` of `total` where they are known."""


@contextlib.contextmanager
def steps() -> Iterator[Step]:
    """Show the progress of several parts: live on a terminal, else as a line per change."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line_steps()
        return
    with _progress(console) as progress:
        yield _live_steps(progress)


class Page(NamedTuple):
    """The place that text is written to.

    Attributes:
        width: columns of the terminal; None without a terminal, when nothing is folded.
        encoding: the encoding of its characters.
    """

    width: int | None
    encoding: str


FILE = Page(None, "utf-8")


def page() -> Page:
    """Return the page of stdout."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return Page(width, sys.stdout.encoding or "utf-8")


def legible(text: str, encoding: str) -> str:
    """Escape the characters of a text that an encoding lacks."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = "".join(_PLAIN.get(character, character) for character in text)
        return plain.encode(encoding, "backslashreplace").decode(encoding)
    return text


def echo(message: str, *, err: bool = False) -> None:
    """Print a line to stdout, or to stderr."""
    stream = sys.stderr if err else sys.stdout
    stream.write(legible(message, stream.encoding or "utf-8") + "\n")
    stream.flush()


def say(message: str) -> None:
    """Print a message to stderr."""
    echo(message, err=True)


def echo_json(value: object) -> None:
    """Write one JSON document to stdout, laid out for reading."""
    echo(json.dumps(json_value(value), indent=2, ensure_ascii=_is_escaped()))


def json_line(value: object) -> str:
    """Format one JSON document on one line, for programs that read a running command."""
    return json.dumps(json_value(value), ensure_ascii=_is_escaped())


def _is_escaped() -> bool:
    """Return whether stdout has an encoding that JSON does not, so characters are escaped."""
    return not (sys.stdout.encoding or "utf-8").lower().startswith("utf")


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    title: str = "",
    console: Console | None = None,
) -> None:
    """Print a table to stdout; numbers are right-aligned, states have their colour.

    If the terminal is too narrow, each row becomes a block with one line per value.
    """
    # A pipe has no width, so nothing is folded.
    console = console or Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    rows = [list(row) for row in rows]
    cells = [[_encoded(cell(value), console.encoding) for value in row] for row in rows]
    if _width(columns, cells) > console.width:
        _stack(console, columns, cells, title)
        return
    printed = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(columns):
        numeric = any(isinstance(row[position], int | float) for row in rows)
        last = position == len(columns) - 1
        side: JustifyMethod = "right" if numeric else "left"
        printed.add_column(name, justify=side, overflow="fold", no_wrap=not last)
    for row_cells in cells:
        printed.add_row(*row_cells)
    console.print(printed)


def _width(columns: Sequence[str], cells: Sequence[Sequence[Text]]) -> int:
    """Return the narrowest terminal width that shows the whole table."""
    widths = [
        max(cell_len(name), *(row[position].cell_len for row in cells), 0)
        for position, name in enumerate(columns)
    ]
    widths[-1] = min(widths[-1], _LAST_WIDTH_MIN)
    return sum(widths) + _BETWEEN * (len(widths) - 1) + _EDGES


def _stack(
    console: Console, columns: Sequence[str], cells: Sequence[Sequence[Text]], title: str
) -> None:
    names = max(map(cell_len, columns))
    if title:
        console.print(Text(title, style="italic"), soft_wrap=True)
    for row in cells:
        for name, value in zip(columns, row, strict=True):
            line = Text.assemble((f"{name:<{names}}", "bold"), "  ", value)
            console.print(line, soft_wrap=True)
        console.print()


def _encoded(text: Text, encoding: str) -> Text:
    return Text(legible(text.plain, encoding), style=text.style)


def cell(value: object) -> Text:
    """Format a value for a table."""
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


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(
            "dots" if console.encoding.startswith("utf") else "line",
            finished_text=f"[green]{legible('✓', console.encoding)}",
        ),
        TextColumn("{task.fields[part]:<10}"),
        BarColumn(bar_width=24),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def _live_steps(progress: Progress) -> Step:
    tasks: dict[str, TaskID] = {}

    def step(part: str, message: str, done: float | None, total: float | None) -> None:
        if part not in tasks:
            tasks[part] = progress.add_task(message, total=None, part=part)
        changes: dict[str, Any] = {"description": message}
        if done is not None and total:
            changes |= {"completed": done, "total": total}
        elif message in ("SERVING", "done"):
            changes |= {"completed": 1, "total": 1}
        progress.update(tasks[part], **changes)

    return step


def _line_steps() -> Step:
    """Print a line when the step changes; a line per percentage would fill a log."""
    last: dict[str, str] = {}

    def step(part: str, message: str, done: float | None, total: float | None) -> None:
        if last.get(part) != message:
            say(f"{part}: {message}" if part else message)
        last[part] = message

    return step
