"""Defines the options that all questions about trades share, and how their answers are written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import pyarrow as pa

import k2client
from k2cli import console, output
from k2cli import options as shared
from k2client import records

_TERMINAL_ROWS_MAX = 1000

F = TypeVar("F", bound=Callable[..., Any])
Question = k2client.TradesQuestion | k2client.ShapeQuestion

symbols: Callable[[F], F] = click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
some_symbols: Callable[[F], F] = click.argument("symbols", nargs=-1, metavar="[SYMBOL...]")

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--exchange", "exchanges", multiple=True, help="Only this exchange; may be repeated."
    ),
    click.option("--last", metavar="DURATION", help="A range that ends now: 90s, 15m, 2h, 1d."),
    click.option(
        "--from", "start", metavar="TIME", help="First time inside: ISO 8601, or us since 1970."
    ),
    click.option("--to", "end", metavar="TIME", help="First time outside."),
    click.option("--limit", type=int, help="The largest number of rows, the first in the order."),
    click.option(
        "--order",
        type=click.Choice(["asc", "desc"]),
        default="asc",
        show_default=True,
        help="Oldest or newest first.",
    ),
    click.option("--columns", metavar="A,B", help="The columns to write, in this order."),
    click.option(
        "--consistency",
        type=click.Choice(["union", "committed"]),
        help="Lake and tail (default), or the lake only.",
    ),
    click.option("--as-of", metavar="ID|TIME|TOKEN", help="A snapshot, or a read token."),
    click.option("--allow-partial", is_flag=True, help="Answer although a side is missing."),
    click.option(
        "--format",
        "form",
        type=click.Choice(output.FORMATS),
        help="[default: as FILE says, else table]",
    ),
    click.option("--json", "as_json", is_flag=True, help="The same as --format json."),
    click.option(
        "-o",
        "--output",
        "path",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write to this file; its suffix says the format: .csv, .tsv, .json, .ndjson, .jsonl"
        " (each also .gz), .arrow, .feather, .arrows, .parquet.",
    ),
    shared.data_dir,
)


def options(command: F) -> F:
    """Add the options of a question about trades."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Typed:
    """A question as it was typed.

    Attributes:
        of: the trades that it names.
        form: the format to write.
        path: where to; None: standard output.
        data_dir: of the stack; None: the default one.
    """

    of: k2client.TradesQuestion
    form: str
    path: Path | None
    data_dir: Path | None

    @classmethod
    def of_options(
        cls,
        symbols: tuple[str, ...],
        asked: Mapping[str, Any],
        table_columns: tuple[str, ...] | None = None,
    ) -> Typed:
        """Read the options of a command.

        Args:
            symbols: its arguments; none: all.
            asked: its other options, those of `options`.
            table_columns: the columns of a table, where none are named; None: all.
        """
        given = dict(asked)
        path, columns = given.pop("path"), given.pop("columns")
        named = given.pop("form")
        form = output.format_of("json" if given.pop("as_json") else named, path)
        if form in output.BINARY and path is None and sys.stdout.isatty():
            raise click.UsageError(f"{form} is not for a terminal: add -o FILE, or a pipe")
        wanted = split(columns) if columns is not None else None
        data_dir = given.pop("data_dir")
        question = k2client.TradesQuestion(
            symbols=split(*symbols) or None,
            exchanges=split(*given.pop("exchanges")) or None,
            columns=table_columns if form == "table" and wanted is None else wanted,
            **given,
        )
        return cls(question, form, path, data_dir)


def answer(asked: Typed, question: Question) -> None:
    """Ask, and write the rows and where they come from."""
    in_terminal = sys.stdout.isatty() and asked.form == "table" and asked.of.limit is None
    with shared.connect(asked.data_dir) as k2:
        rows_of = k2.ask(question)
        rows = _write(rows_of, asked.form, asked.path, _TERMINAL_ROWS_MAX if in_terminal else None)
        console.say(summary(rows, rows_of.provenance))
        if again := how_again(rows_of.provenance, resolved=asked.of.last is not None):
            console.say(again)


def _write(answer: k2client.Trades, form: str, path: Path | None, shown_max: int | None) -> int:
    batches = answer.batches()
    if shown_max is not None and path is None:
        batches = _first(batches, shown_max)
    with output.target(path, compressed=output.is_compressed(path)) as to:
        page = console.page() if path is None else console.FILE
        return output.write(form, answer.schema, batches, to, page)


def _first(batches: Iterator[pa.RecordBatch], rows_max: int) -> Iterator[pa.RecordBatch]:
    left = rows_max
    for batch in batches:
        yield batch.slice(0, left)
        left -= min(left, batch.num_rows)
        if left == 0:
            console.say(f"only the first {rows_max:,} rows are shown: use --limit or --format")
            return


def split(*names: str) -> tuple[str, ...]:
    """Split names at commas: `BTCUSDT,ETHUSDT` is the same as `BTCUSDT ETHUSDT`."""
    return tuple(part for name in names for part in name.split(","))


def how_again(origin: records.Provenance, *, resolved: bool) -> str | None:
    """Describe how to request the same rows later; None when the answer is not repeatable.

    Args:
        origin: the provenance of the answer.
        resolved: whether its range was `--last`, which cannot be used with a token.
    """
    if not origin.token or origin.missing:
        return None
    start = origin.range.start_time if resolved else None
    since = f"--from {start.isoformat()} (for --last) " if start else ""
    return f"the same rows again: {since}--as-of {origin.token}"


def summary(rows: int, origin: records.Provenance) -> str:
    """Describe the origin of an answer in one line."""
    parts = [f"{rows:,} rows"]
    if origin.rows_lake is not None and origin.rows_tail is not None:
        of = "" if rows == origin.rows_lake + origin.rows_tail else "read: "
        parts[0] += f" ({of}{origin.rows_lake:,} lake, {origin.rows_tail:,} tail)"
    if origin.snapshot_id is None:
        parts.append("no snapshot yet")
    else:
        parts.append(f"snapshot {origin.snapshot_id}")
        if origin.snapshot_commit_time is not None:
            parts.append(f"committed {console.cell(origin.snapshot_commit_time)}")
    parts += [origin.source.lower(), origin.completeness, f"level {origin.level}"]
    if origin.gaps_total:
        missing = sum(gap.last_trade_id - gap.first_trade_id + 1 for gap in origin.gaps)
        at_least = "at least " if origin.gaps_total > len(origin.gaps) else ""
        parts.append(f"{origin.gaps_total:,} gaps ({at_least}{missing:,} trade ids missing)")
    if origin.covered_until_time is not None:
        parts.append(f"covered until {console.cell(origin.covered_until_time)}")
    if origin.as_of_ahead_ms is not None:
        ahead_s = origin.as_of_ahead_ms / 1000
        parts.append(f"as of {ahead_s:,.3f} s in the future: check the clock of this machine")
    parts += [f"{part.part} missing: {part.reason}: {part.message}" for part in origin.missing]
    if origin.freshness_ms is not None:
        parts.append(f"{origin.freshness_ms:.1f} ms old at most")
    return " · ".join(parts)
