"""Implements `k2 compact` and `k2 expire`: maintenance that the lake also does by itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from k2cli import console, options
from k2cli.child import show_answer
from k2client import times
from k2client.errors import Invalid


@click.command()
@options.common
@click.pass_context
def compact(context: click.Context, as_json: bool, data_dir: Path | None) -> None:
    """Merge small files of the lake's tables, until nothing is worth merging.

    No row changes, and queries continue. The lake does the same by itself.
    """
    context.exit(_done(["compact"], as_json, data_dir))


@click.command()
@click.option(
    "--older-than",
    metavar="AGE|TIME",
    help="Expire snapshots committed longer ago (`7d`) or before a time (`2026-01-31`)."
    "  [default: none]",
)
@options.common
@click.pass_context
def expire(
    context: click.Context, older_than: str | None, as_json: bool, data_dir: Path | None
) -> None:
    """Expire old snapshots, and remove files unreferenced for the whole grace period.

    Each table keeps its newest snapshot and those that are tagged. Files that only expired
    snapshots referenced wait until no query can still read them.
    """
    task = ["expire"] if older_than is None else ["expire", str(before_us(older_than))]
    context.exit(_done(task, as_json, data_dir))


def before_us(text: str) -> int:
    """Convert an age or a time to a time in microseconds since 1970.

    Raises:
        Invalid: BAD_REQUEST when the text is neither.
    """
    try:
        age_us = times.duration_us(text)
    except Invalid:
        return max(0, times.to_us(text))
    return max(0, time.time_ns() // 1000 - age_us)


def _done(task: Sequence[str], as_json: bool, data_dir: Path | None) -> int:
    """Run a maintenance task, show its result and return the exit code."""
    directory = options.directory_of(data_dir)
    return show_answer("maintain", task, directory, _show, as_json=as_json)


def _show(answer: Mapping[str, Any]) -> None:
    """Print the result and the counts of each table."""
    console.echo(f"ok: {answer.get('message', '')}")
    tables = answer.get("tables", {})
    names = [*dict.fromkeys(name for counts in tables.values() for name in counts)]
    console.table(
        ["table", *(name.replace("_", " ") for name in names)],
        [[table, *(counts[name] for name in names)] for table, counts in tables.items()],
    )
