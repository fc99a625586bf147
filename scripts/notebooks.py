"""Builds the notebooks from `clients/notebooks/sources`, and executes them on a running stack.

    python -m scripts.notebooks                        build the .ipynb files, without outputs
    python -m scripts.notebooks --execute              also execute them, to `executed/`
    python -m scripts.notebooks --execute --to DIR --data-dir DIR NAME...

A source is a Python file in percent cells, so that it is formatted, checked and reviewed as code.
An executed copy starts with a cell that says when and on which trades it ran. Its charts are small,
so that copies can be committed; a chart above `CHART_BYTES_MAX` is an error.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from k2cli.demo import notebook_run

FOLDER = Path(__file__).parents[1] / "clients/notebooks"
SOURCES = FOLDER / "sources"
EXECUTED = FOLDER / "executed"
NAMES = tuple(sorted(path.stem for path in SOURCES.glob("*.py")))
CHART_BYTES_MAX = 100_000

_CELL = re.compile(r"^# %%(?: \[(markdown)\])?\n", re.MULTILINE)
_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def build(name: str) -> str:
    """Return the notebook of a source as the text of an .ipynb file."""
    text = (SOURCES / f"{name}.py").read_text()
    cells = [
        _cell(f"{name}-{number:02}", kind, body)
        for number, (kind, body) in enumerate(split(text), start=1)
    ]
    return _text(
        {
            "cells": cells,
            "metadata": {"kernelspec": _KERNEL, "language_info": {"name": "python"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
    )


def execute(name: str, data_dir: str | None = None) -> str:
    """Execute a notebook on the stack of a data directory and return it with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; it names the notebook.
        ValueError: a chart is too large.
    """
    document = notebook_run.execute(build(name), name, FOLDER, data_dir)
    for chart in charts(document):
        if len(chart) > CHART_BYTES_MAX:
            raise ValueError(f"{name}: a chart has {len(chart)} bytes: make it smaller")
    return _text(document)


def charts(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the charts of a notebook, as base64."""
    for cell in document["cells"]:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                yield output["data"]["image/png"]


def split(text: str) -> Iterator[tuple[str, str]]:
    """Yield kind and body of each cell of a source in percent format."""
    parts = _CELL.split(text)
    if parts[0].strip():
        raise ValueError("a source starts with a cell")
    for kind, body in zip(parts[1::2], parts[2::2], strict=True):
        if kind:
            yield "markdown", re.sub(r"^# ?", "", body.strip("\n"), flags=re.MULTILINE)
        else:
            yield "code", body.strip("\n")


def _cell(cell_id: str, kind: str, body: str) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "cell_type": kind,
        "id": cell_id,
        "metadata": {},
        "source": body.splitlines(keepends=True),
    }
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Build all notebooks; execute those that are named, or all, where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m scripts.notebooks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--execute", action="store_true")
    parser.add_argument("--to", type=Path, default=EXECUTED)
    parser.add_argument("--data-dir")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"there is no notebook {', '.join(sorted(unknown))}")
    for name in NAMES:
        (FOLDER / f"{name}.ipynb").write_text(build(name))
    for name in given.names or NAMES if given.execute else ():
        text = execute(name, given.data_dir)
        given.to.mkdir(parents=True, exist_ok=True)
        (given.to / f"{name}.ipynb").write_text(text)
        print(f"{name}: executed")


if __name__ == "__main__":
    main()
