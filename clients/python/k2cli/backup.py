"""Implements `k2 backup` and `k2 restore`: copies what cannot be fetched again, and restores it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from k2cli import console, options
from k2cli.child import show_answer

_FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")


@click.command()
@_FOLDER
@options.common
@click.pass_context
def backup(context: click.Context, folder: Path, as_json: bool, data_dir: Path | None) -> None:
    """Copy catalog, warehouse and registry to DIR, consistently, whether the stack runs or not.

    An earlier backup in DIR is updated; only new data files are copied.
    """
    context.exit(_run("backup", [], folder, data_dir, as_json=as_json))


@click.command()
@_FOLDER
@click.option(
    "--keep-tape",
    is_flag=True,
    help="Restore a lost lake beside the tape in the data directory.",
)
@options.common
@click.pass_context
def restore(
    context: click.Context, folder: Path, keep_tape: bool, as_json: bool, data_dir: Path | None
) -> None:
    """Restore the backup in DIR to an empty data directory; every file's checksum is verified.

    Without its tape the lake continues only after `k2 tape new-epoch`.
    """
    arguments = ["--keep-tape"] if keep_tape else []
    context.exit(_run("restore", arguments, folder, data_dir, as_json=as_json))


def _run(
    name: str, arguments: list[str], folder: Path, data_dir: Path | None, *, as_json: bool
) -> int:
    directory = options.directory_of(data_dir)
    return show_answer(name, [str(folder.resolve()), *arguments], directory, _show, as_json=as_json)


def _show(answer: dict[str, Any]) -> None:
    console.echo(str(answer.get("message")))
    tables = [
        (table.get("name"), table.get("snapshot_id"), table.get("rows"), table.get("positions"))
        for table in answer.get("tables") or ()
    ]
    console.table(("table", "snapshot", "rows", "positions"), tables)
