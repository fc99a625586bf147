"""Implements `k2 open` and `k2 completion`: the pages of a stack, and the shell's completion."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from k2cli import console, options
from k2cli.demo.stage.page_addresses import HEALTHY, PAGES, looked_at, opened_url
from k2cli.operate.running_stack import described_at
from k2client import stack
from k2client.errors import NotFound, Unavailable

_PAGES = {page.name: page for page in PAGES}


@click.command("open")
@click.argument("page", type=click.Choice(list(_PAGES)), default="edge")
@click.option("--print", "only_print", is_flag=True, help="Print the address and open nothing.")
@options.data_dir
def open_page(page: str, only_print: bool, data_dir: Path | None) -> None:
    """Open a page of the stack in a browser; its status page (edge) unless another is named."""
    described = described_at(data_dir)
    (found,) = looked_at(described, pages=[_PAGES[page]])
    if found.state != HEALTHY:
        if not described.running:
            raise stack.not_running(described.directory)
        if found.state.startswith("not"):
            raise NotFound("STACK_NOT_RUNNING", f"{page} is {found.state}: {found.message}")
        raise Unavailable("PEER_UNAVAILABLE", f"{page} does not answer: {found.message}")
    url = opened_url(described, _PAGES[page])
    console.echo(url)
    if not only_print and not webbrowser.open(url):
        console.say("there is no browser here: open the address yourself")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion of a shell: `eval "$(k2 completion bash)"`."""
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    console.echo(kind(context.find_root().command, {}, "k2", "_K2_COMPLETE").source())
