"""Implements `k2 dlq`: lists and shows dead letters, and replays them as they are or repaired."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from k2cli import console, options, output
from k2client import records
from k2client.errors import Invalid

_LINE_BYTES = 16
_SHOWN_BYTES_MAX = 1024
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def dlq() -> None:
    """List, show and replay dead letters: records that K2 cannot store as rows."""


@dlq.command("list")
@click.option("--from", "start", help="Only letters judged at this time or later.")
@click.option("--to", "end", help="Only letters judged before this time.")
@click.option("--fault", default="", help="Only letters with this fault, such as TRUNCATED.")
@click.option("--origin", default="", help="Only letters of this topic or run of a feed.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@options.common
def list_letters(
    *,
    fault: str,
    as_json: bool,
    data_dir: Path | None,
    **asked: Any,  # noqa: ANN401 options named as the parameters of `dead_letters`
) -> None:
    """List dead letters, newest first."""
    with options.connect(data_dir) as k2:
        letters = k2.dead_letters(fault=fault.upper(), **asked)
    if as_json:
        console.echo_json({"letters": letters})
        return
    rows = [
        (
            *(letter.name, letter.fault, letter.judged_time, letter.stored, letter.replay_time),
            *(letter.overruled, letter.error),
        )
        for letter in letters
    ]
    columns = ("letter", "fault", "judged", "in the table", "replayed", "overruled")
    console.table((*columns, "what is wrong"), rows)


@dlq.command()
@click.argument("name")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the bytes to this file."
)
@options.common
def show(name: str, out: Path | None, as_json: bool, data_dir: Path | None) -> None:
    """Show a dead letter: its origin, its bytes, and the result of decoding them now.

    With --json the bytes are base64.
    """
    with options.connect(data_dir) as k2:
        content = k2.dead_letter(name)
    if out is not None:
        with output.target(out) as to:
            to.write(content.value or b"")
    if as_json:
        value = None if content.value is None else base64.b64encode(content.value).decode()
        console.echo_json(vars(content) | {"value": value})
        return
    for field in dataclasses.fields(content.letter):
        value = getattr(content.letter, field.name)
        plain = type(value) is int  # identifiers have no thousands separators
        shown = str(value) if plain else console.cell(value).plain
        console.echo(f"{field.name:<17}{shown}")
    console.echo(f"{'today':<17}{content.fault_now or 'good: it can be replayed as it is'}")
    if content.trade is not None:
        console.echo(f"{'trade':<17}{console.json_line(content.trade)}")
    _show_bytes(content)


@dlq.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--value-file", type=_FILE, help="A whole message that replaces the bytes.")
@click.option(
    "--trade-file", type=_FILE, help="A trade as JSON instead, in the form that `show` prints."
)
@click.option("--again", is_flag=True, help="Also replay letters that were replayed before.")
@options.common
@click.pass_context
def replay(  # noqa: PLR0913 one parameter per option, by name
    context: click.Context,
    *,
    names: tuple[str, ...],
    value_file: Path | None,
    trade_file: Path | None,
    again: bool,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Send dead letters to the tape again, as they are or repaired.

    A letter that would be dead again is refused; the exit code is then 1.
    """
    if value_file and trade_file:
        raise click.UsageError("give --value-file or --trade-file, not both")
    value = value_file.read_bytes() if value_file else None
    trade = _trade(trade_file) if trade_file else None
    with options.connect(data_dir) as k2:
        outcomes = k2.replay_dead_letters(names, value=value, trade=trade, again=again)
    if as_json:
        console.echo_json({"outcomes": outcomes})
    else:
        columns = ("letter", "state", "partition", "offset", "message")
        rows = [
            (outcome.name, outcome.state, outcome.partition, outcome.offset, outcome.message)
            for outcome in outcomes
        ]
        console.table(columns, rows)
    context.exit(1 if any(outcome.state == "REFUSED" for outcome in outcomes) else 0)


def _trade(path: Path) -> dict[str, Any]:
    try:
        trade = json.loads(path.read_text())
    except ValueError as error:
        raise Invalid("BAD_REQUEST", f"{path} is not JSON: {error}") from error
    if not isinstance(trade, dict):
        raise Invalid("BAD_REQUEST", f"{path} is not the JSON object of a trade")
    return trade


def _show_bytes(content: records.DeadLetterContent) -> None:
    if content.value is None:
        console.echo("no bytes")
        return
    console.echo(f"{content.value_bytes:,} bytes")
    for line in hexdump(content.value[:_SHOWN_BYTES_MAX]):
        console.echo(line)
    if content.value_bytes > _SHOWN_BYTES_MAX:
        console.say(f"the first {_SHOWN_BYTES_MAX:,} bytes; --out FILE writes up to 1 MiB")


def hexdump(content: bytes) -> Iterator[str]:
    """Yield lines of offset, bytes in hexadecimal, and their printable characters."""
    for start in range(0, len(content), _LINE_BYTES):
        line = content[start : start + _LINE_BYTES]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
        yield f"{start:06x}  {line.hex(' '):<{3 * _LINE_BYTES - 1}}  {text}"
