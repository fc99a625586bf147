"""`k2 backup` and `k2 restore`: keep what cannot be fetched again, and put it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from k2cli import console, documents, options
from k2cli.child import Event
from k2cli.tools import run_tool

_FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")


@click.command()
@_FOLDER
@options.as_json
@options.data_dir
@click.pass_context
def backup(context: click.Context, folder: Path, as_json: bool, data_dir: Path | None) -> None:
    """Copy catalog, warehouse and registry to DIR, consistently, whether the stack runs or not.

    A DIR with an earlier backup is brought up to date; only new data files are copied.
    """
    context.exit(_run("backup", [], folder, data_dir, as_json=as_json))


@click.command()
@_FOLDER
@click.option(
    "--keep-tape",
    is_flag=True,
    help="Restore a lost lake beside the tape that is still in the data directory.",
)
@options.as_json
@options.data_dir
@click.pass_context
def restore(
    context: click.Context, folder: Path, keep_tape: bool, as_json: bool, data_dir: Path | None
) -> None:
    """Put the backup in DIR into an empty data directory, every file held against its checksum.

    Without its tape the lake goes on only after `k2 tape new-epoch`.
    """
    arguments = ["--keep-tape"] if keep_tape else []
    context.exit(_run("restore", arguments, folder, data_dir, as_json=as_json))


def _run(
    name: str, arguments: list[str], folder: Path, data_dir: Path | None, *, as_json: bool
) -> int:
    found: dict[str, Any] = {}

    def take(event: Event) -> None:
        found.update({key: value for key, value in event.items() if key != "event"})

    directory = options.directory_of(data_dir)
    code = run_tool(name, [str(folder.resolve()), *arguments], directory, take)
    if found and as_json:
        console.echo(documents.text(found))
    elif found:
        _show(found)
    return code


def _show(found: dict[str, Any]) -> None:
    console.echo(str(found.get("message")))
    tables = [
        (each.get("name"), each.get("snapshot_id"), each.get("rows"), each.get("positions"))
        for each in found.get("tables") or ()
    ]
    console.table(("table", "snapshot", "rows", "positions"), tables)
