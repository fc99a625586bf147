"""Implements `k2 tape`: decisions about the tape that need an operator."""

from __future__ import annotations

from pathlib import Path

import click

from k2cli import console, options
from k2cli.child import tool_answer


@click.group()
def tape() -> None:
    """Decide about the tape (Kafka) that the lake is written from."""


@tape.command("new-epoch")
@click.option("--yes", is_flag=True, help="Do it; the default only shows what would happen.")
@click.option("--force", is_flag=True, help="Do it although no fault of the tape is known.")
@options.common
@click.pass_context
def new_epoch(
    context: click.Context, yes: bool, force: bool, as_json: bool, data_dir: Path | None
) -> None:
    """Continue with a tape that no longer matches the lake.

    Use it when `k2 up` refuses the tape: recreated, truncated, of another cluster, with other
    partitions, or overtaken by retention. The stack must be down. The lake keeps every trade
    exactly once; the next `k2 up` continues with the present tape, and lost trades show as gaps.
    """
    arguments = [name for name, given in (("--yes", yes), ("--force", force)) if given]
    code, answer = tool_answer("new-epoch", arguments, options.directory_of(data_dir))
    if answer and as_json:
        console.echo_json(answer)
    elif answer:
        reason = f"{answer['reason']}: " if answer.get("reason") else ""
        console.echo(f"{reason}{answer.get('message')}")
    context.exit(code)
