"""Executes a notebook on a running stack. Needs the extra `notebook`.

`python -m k2cli.demo.notebook_run FILE.ipynb --to DIR --data-dir DIR` does it in a process.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import nbclient
import nbformat

import k2client

CELL_TIMEOUT_S = 120


def execute(text: str, name: str, folder: Path, data_dir: str | None) -> dict[str, Any]:
    """Execute a notebook and return it with its outputs, as the document of an .ipynb file.

    The copy starts with a cell that says when and on which trades it ran.

    Args:
        text: of the .ipynb file.
        name: of the file, without its suffix.
        folder: where its cells run.
        data_dir: of the stack; None: the one that a client finds without.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    client = nbclient.NotebookClient(
        notebook, timeout=CELL_TIMEOUT_S, kernel_name="python3", record_timing=False
    )
    found = {"K2_DATA_DIR": data_dir} if data_dir else {}
    client.execute(env={**os.environ, **found}, cwd=str(folder))
    document: dict[str, Any] = json.loads(nbformat.writes(notebook))  # type: ignore[no-untyped-call]
    document["cells"].insert(0, _label(name, data_dir))
    document["metadata"]["language_info"] = {"name": "python"}
    return document


def _label(name: str, data_dir: str | None) -> dict[str, Any]:
    with k2client.connect(data_dir=data_dir) as k2:
        status = k2.status()
    text = (
        f"> **Executed copy** of `{name}.ipynb`, made on {status.time:%Y-%m-%d %H:%M} UTC by K2"
        f" {status.version} on **{status.source.lower()}** trades. It is a record of that run: the"
        " notebook itself is in the folder above."
    )
    return {"cell_type": "markdown", "id": f"{name}-00", "metadata": {}, "source": [text]}


def main() -> None:
    """Execute the notebook of the command line into a folder."""
    parser = argparse.ArgumentParser(prog="python -m k2cli.demo.notebook_run")
    parser.add_argument("file", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--data-dir", required=True)
    given = parser.parse_args()
    path: Path = given.file
    document = execute(path.read_text(), path.stem, path.parent, given.data_dir)
    text = json.dumps(document, indent=1, ensure_ascii=False)
    (given.to / path.name).write_text(text + "\n")


if __name__ == "__main__":
    main()
