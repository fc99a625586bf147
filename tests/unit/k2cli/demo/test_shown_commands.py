"""Each `k2` command that a page of the demonstration shows has options that exist."""

import re
import shlex
from pathlib import Path

import click
import pytest

from k2cli.main import k2

REPOSITORY = Path(__file__).parents[4]
PAGES = (*sorted((REPOSITORY / "docs/demo").glob("*.md")), REPOSITORY / "docs/claims.md")
SHOWN = re.compile(r"`(?:uv run )?k2 ([^`|]+)")


def shown():
    found = {line for page in PAGES for line in SHOWN.findall(page.read_text())}
    return sorted(line.split(" : ")[0].strip() for line in found)


@pytest.mark.parametrize("line", shown())
def test_a_shown_command_is_one(line):
    command, words = k2, shlex.split(line, comments=True)
    context = click.Context(k2, info_name="k2")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            break
        command, words = found, words[1:]
        context = click.Context(command, parent=context, info_name=command.name)
    assert command is not k2, f"k2 {line}: no such command"
    command.make_parser(context).parse_args(words)  # an option that is not there raises


def test_there_are_many():
    assert len(shown()) > 20
