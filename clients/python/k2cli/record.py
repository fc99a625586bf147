"""Implements `k2 record`: stores a venue's frames in a file that can be replayed."""

from __future__ import annotations

import json
from pathlib import Path

import click

from k2cli import console, options, output
from k2cli.child import tool_answer
from k2client import stack


@click.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--venue", metavar="auto|live|URL", help="The venue to record.  [default: auto]")
@click.option("--symbols", metavar="A,B", help="Symbols to record.")
@click.option(
    "--duration", metavar="DURATION", help="Time to record: 90s, 15m.  [default: until Ctrl-C]"
)
@click.option("--frames", type=click.IntRange(min=1), help="The largest number of frames.")
@options.common
@click.pass_context
def record(
    context: click.Context, /, path: Path, as_json: bool, data_dir: Path | None, **given: object
) -> None:
    """Write a venue's frames to FILE (or FILE.zst); `k2 up --venue recording:FILE` replays it.

    `auto` is the practice venue of the stack, if it runs with one, else live Binance.
    """
    wanted = {name: value or None for name, value in given.items()}
    arguments = [str(output.for_another_process(path)), *options.arguments(wanted)]
    directory = options.directory_of(data_dir)
    code, answer = tool_answer("record", arguments, directory, venue_of(directory))
    if as_json:
        console.echo_json(answer)
    elif answer.get("message"):
        console.say(str(answer["message"]))
    context.exit(code)


def venue_of(directory: Path) -> dict[str, str]:
    """Return settings that name the practice venue of a running stack; none if it has none."""
    described = stack.read_stack(directory)
    if "venue" not in described.addresses:
        return {}
    return {
        "K2_FEED__VENUE_URL": f"ws://{described.addresses['venue']}",
        "K2_FEED__SYMBOLS": json.dumps(described.content.get("symbols", [])),
    }
