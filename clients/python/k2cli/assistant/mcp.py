"""Implements `k2 mcp`: a read-only MCP server on stdin and stdout, for an assistant that starts it.

The SDK is an extra, and slow to import: it is loaded when the command runs.
"""

from __future__ import annotations

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from k2cli import console, options
from k2client.errors import Invalid

_HOW_TO_GET = "the MCP SDK is not installed: pip install 'k2-lakehouse[mcp]'"
_FOR_PEOPLE = (
    "k2 mcp speaks the Model Context Protocol on stdin and stdout: enter it as the command of an"
    " MCP server in an assistant. Ctrl-C ends it."
)


@click.command()
@options.data_dir
def mcp(data_dir: Path | None) -> None:
    """Serve K2 to an assistant by the Model Context Protocol, read-only, on stdin and stdout.

    Tools: trades, bars, vwap, twap, latest, asof, markouts, summary, symbols, availability,
    snapshots, gaps, status. Each answer has its provenance, and at most 1,000 rows. The stack is
    looked for at each call, so it may start later.
    """
    server = _sdk_module().build(partial(options.connect, data_dir))
    if sys.stdin.isatty():
        console.say(_FOR_PEOPLE)
    server.run("stdio")


def _sdk_module() -> Any:  # noqa: ANN401 a module
    """Import the module that needs the SDK.

    Raises:
        Invalid: BAD_REQUEST when the SDK is not installed.
    """
    try:
        return importlib.import_module("k2cli.assistant.mcp_server")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise Invalid("BAD_REQUEST", _HOW_TO_GET) from error
