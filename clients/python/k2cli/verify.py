"""`k2 verify`: fold the tape again and compare; is everything stored once, and nothing lost?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from k2cli import console, documents, options
from k2cli.child import Event
from k2cli.tools import run_tool
from k2client import stack

_HOLES_SHOWN_MAX = 20


@click.command()
@options.as_json
@options.data_dir
@click.pass_context
def verify(context: click.Context, as_json: bool, data_dir: Path | None) -> None:
    """Prove what is stored: tape against lake, dead letters and state, by partition and symbol.

    Holes in trade ids are listed, not failures. Exit code 1: loss, doubling or disagreement.
    """
    found: dict[str, Any] = {}

    def take(event: Event) -> None:
        found.update({name: value for name, value in event.items() if name != "event"})

    directory = options.directory_of(data_dir)
    code = run_tool("verify", [], directory, take, settings=tape_of(directory))
    report = found.get("report", found)
    if found and as_json:
        console.echo(documents.text(report))
    elif found:
        _show(found, report)
    context.exit(code)


def tape_of(directory: Path) -> dict[str, str]:
    """Settings that name the tape of a running stack; none where the environment names one.

    Raises:
        NotFound: STACK_NOT_RUNNING, and nothing else says where the tape is.
    """
    found = stack.read_stack(directory)
    if found.running:
        names = {"K2_TAPE__BOOTSTRAP": "broker", "K2_TAPE__REGISTRY_URL": "registry"}
        return {name: found.addresses[part] for name, part in names.items()}
    if "K2_TAPE__BOOTSTRAP" not in os.environ:
        raise stack.not_running(directory)
    return {}


def _show(found: dict[str, Any], report: dict[str, Any]) -> None:
    report = documents.document(report)
    verdict = "ok" if found.get("ok") else "FAILED"
    console.echo(f"{verdict}: {found.get('message', '')}".rstrip(": "))
    for name, listed in report.items():
        if isinstance(listed, list) and listed and isinstance(listed[0], dict):
            rows = [list(each.values()) for each in listed[:_HOLES_SHOWN_MAX]]
            console.table([str(column) for column in listed[0]], rows, title=name)
            if len(listed) > _HOLES_SHOWN_MAX:
                more = len(listed) - _HOLES_SHOWN_MAX
                console.say(f"{name}: {more:,} more; --json lists all")
