"""`k2 record`: keep what a venue sends, frame by frame, to play it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from k2cli import documents, options, screen
from k2cli.spawned import Event
from k2cli.tools import run_tool


@click.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--venue", metavar="auto|live|URL", help="Whom to listen to.")
@click.option("--symbols", metavar="A,B", help="What to listen to.")
@click.option("--duration", metavar="DURATION", help="So long: 90s, 15m.  [default: until Ctrl-C]")
@options.as_json
@options.data_dir
@click.pass_context
def record(  # noqa: PLR0913, PLR0917 one parameter an option
    context: click.Context,
    path: Path,
    venue: str | None,
    symbols: str | None,
    duration: str | None,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Write a venue's frames to FILE (or FILE.zst); `k2 up --venue recording:FILE` plays it."""
    given = {"--venue": venue, "--symbols": symbols, "--duration": duration}
    arguments = [str(path.resolve())]
    arguments += [part for name, value in given.items() if value for part in (name, value)]
    found: dict[str, Any] = {}

    def take(event: Event) -> None:
        found.update({name: value for name, value in event.items() if name != "event"})

    code = run_tool("record", arguments, options.directory_of(data_dir), take)
    if as_json:
        click.echo(documents.text(found))
    elif found.get("message"):
        screen.say(str(found["message"]))
    context.exit(code)
