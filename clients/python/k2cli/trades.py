"""Implements `k2 trades`: queries trades and writes them as a table, text, Arrow or Parquet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

import k2client
from k2cli import console, options, output
from k2client import records

# All sixteen columns do not fit a screen; --columns shows the others.
_TABLE_COLUMNS = ("event_time", "exchange", "symbol", "trade_id", "side", "price", "quantity")
_TERMINAL_ROWS_MAX = 1000


@click.command(epilog="Example: k2 trades BTCUSDT --last 15m --format csv -o btc.csv")
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
@click.option("--exchange", "exchanges", multiple=True, help="Only this exchange; may be repeated.")
@click.option("--last", metavar="DURATION", help="A range that ends now: 90s, 15m, 2h, 1d.")
@click.option(
    "--from", "start", metavar="TIME", help="First time inside: ISO 8601, or us since 1970."
)
@click.option("--to", "end", metavar="TIME", help="First time outside.")
@click.option("--limit", type=int, help="The largest number of rows, the first in the order.")
@click.option(
    "--order",
    type=click.Choice(["asc", "desc"]),
    default="asc",
    show_default=True,
    help="Oldest or newest first.",
)
@click.option("--columns", metavar="A,B", help="The columns to write, in this order.")
@click.option(
    "--consistency",
    type=click.Choice(["union", "committed"]),
    help="Lake and tail (default), or the lake only.",
)
@click.option("--as-of", metavar="ID|TIME|TOKEN", help="A snapshot, or a read token.")
@click.option("--allow-partial", is_flag=True, help="Answer although a side is missing.")
@click.option(
    "--format",
    "form",
    type=click.Choice(output.FORMATS),
    help="[default: as FILE says, else table]",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to this file; its suffix says the format: .csv, .tsv, .json, .ndjson, .jsonl"
    " (each also .gz), .arrow, .feather, .arrows, .parquet.",
)
@options.data_dir
def trades(  # noqa: PLR0913, PLR0917 one parameter an option
    symbols: tuple[str, ...],
    exchanges: tuple[str, ...],
    columns: str | None,
    form: str | None,
    as_json: bool,
    path: Path | None,
    data_dir: Path | None,
    **asked: Any,  # noqa: ANN401 options named as the question's fields
) -> None:
    """Query trades of one or several symbols, exactly once, from lake and tail as one table.

    Without a range, all trades are returned. The origin of the rows is printed to stderr, with the
    read token that requests the same rows again at any later time.
    """
    form = output.format_of("json" if as_json else form, path)
    if form in output.BINARY and path is None and sys.stdout.isatty():
        raise click.UsageError(f"{form} is not for a terminal: add -o FILE, or a pipe")
    wanted = _split(columns) if columns is not None else None
    question = k2client.TradesQuestion(
        symbols=_split(*symbols),
        exchanges=_split(*exchanges) or None,
        columns=_TABLE_COLUMNS if form == "table" and wanted is None else wanted,
        **asked,
    )
    shown_max = _TERMINAL_ROWS_MAX if form == "table" and question.limit is None else None
    with options.connect(data_dir) as k2:
        answer = k2.ask(question)
        rows = _write(answer, form, path, shown_max if sys.stdout.isatty() else None)
        console.say(summary(rows, answer.provenance))
        if again := how_again(answer.provenance, resolved=question.last is not None):
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


def _split(*names: str) -> tuple[str, ...]:
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
        parts[0] += f" ({origin.rows_lake:,} lake, {origin.rows_tail:,} tail)"
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
