"""Implements `k2 verify`: folds the tape again and compares the result with the lake."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from k2cli import console, options
from k2cli.child import tool_answer
from k2client import stack
from k2client.json_form import json_value

_HOLES_SHOWN_MAX = 20


@click.command()
@options.common
@click.pass_context
def verify(context: click.Context, as_json: bool, data_dir: Path | None) -> None:
    """Compare tape, lake, dead letters and state by partition and symbol.

    It proves that every record is stored exactly once. Holes in trade ids are listed, but are no
    failures. Exit code 1: loss, duplication or disagreement.
    """
    directory = options.directory_of(data_dir)
    code, answer = tool_answer("verify", [], directory, tape_of(directory))
    report = answer.get("report", answer)
    if answer and as_json:
        console.echo_json(report)
    elif answer:
        _show(answer, report)
    context.exit(code)


def tape_of(directory: Path) -> dict[str, str]:
    """Return settings that name the tape of a running stack; none if the environment names one.

    Raises:
        NotFound: STACK_NOT_RUNNING, and the environment names no tape.
    """
    described = stack.read_stack(directory)
    if described.running:
        names = {"K2_TAPE__BOOTSTRAP": "broker", "K2_TAPE__REGISTRY_URL": "registry"}
        return {name: described.addresses[part] for name, part in names.items()}
    if "K2_TAPE__BOOTSTRAP" not in os.environ:
        raise stack.not_running(directory)
    return {}


def _show(answer: dict[str, Any], report: dict[str, Any]) -> None:
    report = json_value(report)
    verdict = "ok" if answer.get("ok") else "FAILED"
    console.echo(f"{verdict}: {answer.get('message', '')}".rstrip(": "))
    for name, listed in report.items():
        if isinstance(listed, list) and listed and isinstance(listed[0], dict):
            rows = [list(entry.values()) for entry in listed[:_HOLES_SHOWN_MAX]]
            console.table([str(column) for column in listed[0]], rows, title=name)
            if len(listed) > _HOLES_SHOWN_MAX:
                more = len(listed) - _HOLES_SHOWN_MAX
                console.say(f"{name}: {more:,} more; --json lists all")
