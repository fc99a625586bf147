"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

import k2client
from k2client import stack

F = TypeVar("F", bound=Callable[..., Any])

# A person waits: give up sooner than a program would when nothing answers.
RETRY = k2client.Retry(silent_attempts_max=4)
DEADLINE_S = 30.0

data_dir: Callable[[F], F] = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The stack to speak to, by its data directory.  [default: K2_DATA_DIR, else ./.k2]",
)

as_json: Callable[[F], F] = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document on stdout, for programs."
)


def directory_of(data_dir: Path | None) -> Path:
    """The data directory that was given, or the default one; absolute."""
    return stack.data_dir(data_dir)


def connect(data_dir: Path | None) -> k2client.Client:
    """A connection to the stack that was given, or to where K2_ADDRESS says."""
    return k2client.connect(
        data_dir=str(data_dir) if data_dir else None, deadline_s=DEADLINE_S, retry=RETRY
    )


def connect_at(address: str, *, deadline_s: float) -> k2client.Client:
    """A connection that is tried once."""
    return k2client.connect(address, deadline_s=deadline_s, retry=k2client.Retry(attempts_max=1))
