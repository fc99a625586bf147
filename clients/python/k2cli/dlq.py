"""`k2 dlq`: records that K2 could not take; look at them, and put repaired ones back."""

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
    """Dead letters: records that K2 could not take, with their bytes."""


@dlq.command("list")
@click.option("--from", "start", help="Only those judged from this time on.")
@click.option("--to", "end", help="Only those judged before this time.")
@click.option("--fault", default="", help="Only those with this fault, such as TRUNCATED.")
@click.option("--origin", default="", help="Only those of this topic or run of a feed.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@options.as_json
@options.data_dir
def list_letters(  # noqa: PLR0913 what may be asked of dead letters, by name
    *,
    start: str | None,
    end: str | None,
    fault: str,
    origin: str,
    limit: int,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """The newest dead letters, newest first."""
    with options.connect(data_dir) as k2:
        found = k2.dead_letters(
            start=start, end=end, fault=fault.upper(), origin=origin, limit=limit
        )
    if as_json:
        console.echo_json({"letters": found})
        return
    rows = [
        (
            *(each.name, each.fault, each.judged_time, each.stored, each.replay_time),
            *(each.overruled, each.error),
        )
        for each in found
    ]
    columns = ("letter", "fault", "judged", "in the table", "replayed", "overruled")
    console.table((*columns, "what is wrong"), rows)


@dlq.command()
@click.argument("name")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the bytes.")
@options.as_json
@options.data_dir
def show(name: str, out: Path | None, as_json: bool, data_dir: Path | None) -> None:
    """One dead letter: where it was, its bytes, and what they would be today.

    With --json the bytes are base64.
    """
    with options.connect(data_dir) as k2:
        found = k2.dead_letter(name)
    if out is not None:
        with output.target(out) as to:
            to.write(found.value or b"")
    if as_json:
        value = None if found.value is None else base64.b64encode(found.value).decode()
        console.echo_json(vars(found) | {"value": value})
        return
    for field in dataclasses.fields(found.letter):
        value = getattr(found.letter, field.name)
        plain = type(value) is int  # a number that names something is not grouped
        told = str(value) if plain else console.cell(value).plain
        console.echo(f"{field.name:<17}{told}")
    console.echo(f"{'today':<17}{found.fault_now or 'good: it can be replayed as it is'}")
    if found.trade is not None:
        console.echo(f"{'trade':<17}{console.json_line(found.trade)}")
    _show_bytes(found)


@dlq.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--value-file", type=_FILE, help="A whole message in the place of the bytes.")
@click.option("--trade-file", type=_FILE, help="A trade as JSON instead, as `show` prints it.")
@click.option("--again", is_flag=True, help="Also what was replayed before.")
@options.as_json
@options.data_dir
@click.pass_context
def replay(  # noqa: PLR0913 what may be said of a replay, by name
    context: click.Context,
    *,
    names: tuple[str, ...],
    value_file: Path | None,
    trade_file: Path | None,
    again: bool,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Put dead letters back on the tape, as they are or repaired.

    What would be dead again is refused; exit code 1 then.
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
        rows = [(one.name, one.state, one.partition, one.offset, one.message) for one in outcomes]
        console.table(columns, rows)
    context.exit(0 if all(one.state != "REFUSED" for one in outcomes) else 1)


def _trade(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise Invalid("BAD_REQUEST", f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise Invalid("BAD_REQUEST", f"{path} is not the JSON object of a trade")
    return found


def _show_bytes(found: records.DeadLetterContent) -> None:
    if found.value is None:
        console.echo("no bytes")
        return
    console.echo(f"{found.value_bytes:,} bytes")
    for line in hexdump(found.value[:_SHOWN_BYTES_MAX]):
        console.echo(line)
    if found.value_bytes > _SHOWN_BYTES_MAX:
        console.say(f"the first {_SHOWN_BYTES_MAX:,} bytes; --out FILE writes up to 1 MiB")


def hexdump(content: bytes) -> Iterator[str]:
    """Lines of offset, bytes in hexadecimal, and what of them can be read."""
    for start in range(0, len(content), _LINE_BYTES):
        line = content[start : start + _LINE_BYTES]
        text = "".join(chr(each) if 32 <= each < 127 else "." for each in line)
        yield f"{start:06x}  {line.hex(' '):<{3 * _LINE_BYTES - 1}}  {text}"
