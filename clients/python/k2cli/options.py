"""Defines the options and connections that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

import k2client
from k2client import stack

F = TypeVar("F", bound=Callable[..., Any])

# Interactive use: give up sooner than a program would when nothing answers.
RETRY = k2client.Retry(silent_attempts_max=4)
DEADLINE_S = 30.0

data_dir: Callable[[F], F] = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Data directory of the stack.  [default: K2_DATA_DIR, else ./.k2]",
)

as_json: Callable[[F], F] = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document on stdout, for programs."
)


def common(command: F) -> F:
    """Add the options `--json` and `--data-dir`."""
    return as_json(data_dir(command))


def arguments(given: Mapping[str, object]) -> list[str]:
    """Return the given options as arguments of a process; it takes the others from its settings."""
    return [
        part
        for name, value in given.items()
        if value is not None
        for part in (f"--{name}", str(value))
    ]


def directory_of(data_dir: Path | None) -> Path:
    """Return the given data directory, or the default one; absolute."""
    return stack.data_dir(data_dir)


def connect(data_dir: Path | None) -> k2client.Client:
    """Connect to the stack of the given data directory, or to K2_ADDRESS."""
    return k2client.connect(
        data_dir=str(data_dir) if data_dir else None, deadline_s=DEADLINE_S, retry=RETRY
    )


def connect_at(address: str, *, deadline_s: float) -> k2client.Client:
    """Connect to an address; calls are not retried."""
    return k2client.connect(address, deadline_s=deadline_s, retry=k2client.Retry(attempts_max=1))
