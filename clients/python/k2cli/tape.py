"""`k2 tape`: what a person decides about the tape."""

from __future__ import annotations

from pathlib import Path

import click

from k2cli import console, options
from k2cli.child import tool_answer


@click.group()
def tape() -> None:
    """What a person decides about the tape (Kafka) that the lake is written from."""


@tape.command("new-epoch")
@click.option("--yes", is_flag=True, help="Do it; without, only show what would happen.")
@click.option("--force", is_flag=True, help="Do it though nothing is known to be wrong.")
@options.as_json
@options.data_dir
@click.pass_context
def new_epoch(
    context: click.Context, yes: bool, force: bool, as_json: bool, data_dir: Path | None
) -> None:
    """Go on with a tape that no longer fits the lake.

    For when `k2 up` refused it: made again, truncated, of another cluster, with other partitions,
    or overtaken by retention. The stack must be down. Every trade in the lake stays, each once;
    the next `k2 up` goes on with the tape that is there, and what was lost shows as gaps.
    """
    arguments = [name for name, given in (("--yes", yes), ("--force", force)) if given]
    code, answer = tool_answer("new-epoch", arguments, options.directory_of(data_dir))
    if answer and as_json:
        console.echo_json(answer)
    elif answer:
        reason = f"{answer['reason']}: " if answer.get("reason") else ""
        console.echo(f"{reason}{answer.get('message')}")
    context.exit(code)
