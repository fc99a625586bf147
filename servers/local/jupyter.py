"""Serves the notebooks of K2 beside a stack, by JupyterLab on loopback with a token.

JupyterLab comes with the extra `notebook`, which K2 does without: where it is missing, the stack
runs as before. Users edit copies of their own in the data directory; a copy that is there is never
overwritten. Settings, kernels and caches stay in `jupyter/` of the data directory, and nothing of
it asks the network. A notebook finds the stack by `K2_DATA_DIR`.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from typing import Final

from k2.shipped_files import shipped_file
from servers.local.child_process import ChildCommand
from servers.probes import answers_ok

PORT: Final = 8888
NOTEBOOKS: Final = shipped_file("clients/notebooks")
HOW_TO_GET: Final = (
    "jupyterlab is not installed: pip install 'k2-lakehouse[notebook]' (k2 up --notebooks)"
)

_MODULES = ("jupyterlab", "ipykernel", "matplotlib", "polars")
_PROBE_S: Final = 2.0  # the first answer loads extensions
_OTHER_STACK = ("K2_ADDRESS", "K2_API_KEY")  # of the user's shell: they may name another stack
# JupyterLab asks the network for news and updates unless it is asked not to.
_LAB_CONFIG: Final = {
    "LabApp": {
        "news_url": None,
        "check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "extension_manager": "readonly",
    }
}


@dataclass(frozen=True)
class Jupyter:
    """A JupyterLab to run.

    Attributes:
        port: on loopback, where it is to listen.
        token: what a browser must show, in the URL or a form.
        environment: of the stack, which kernels inherit.
        source: the notebooks that are copied.
    """

    port: int
    token: str = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    source: Path = NOTEBOOKS

    @property
    def url(self) -> str:
        """Its page, with the token that opens it."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    def prepare(self, data_dir: Path) -> ChildCommand:
        """Copy the notebooks to `notebooks/` of a data directory, and say what to start."""
        folder, state = data_dir / "notebooks", data_dir / "jupyter"
        with suppress(OSError):  # Jupyter then says what is wrong, and the stack goes on without it
            state.mkdir(parents=True, exist_ok=True)
            (state / "jupyter_lab_config.json").write_text(json.dumps(_LAB_CONFIG, indent=1))
            copy_notebooks(self.source, folder)
        inherited = {
            name: value for name, value in self.environment.items() if name not in _OTHER_STACK
        }
        own = {
            "K2_DATA_DIR": str(data_dir),
            "JUPYTER_TOKEN": self.token,  # not an argument: those are public on a machine
            "JUPYTER_CONFIG_DIR": str(state),
            "JUPYTER_DATA_DIR": str(state / "data"),
            "JUPYTER_RUNTIME_DIR": str(state / "runtime"),
            "IPYTHONDIR": str(state / "ipython"),
            "MPLCONFIGDIR": str(state / "matplotlib"),
        }
        argv = (
            *(sys.executable, "-P", "-m", "jupyterlab", "--no-browser"),
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={folder}",
            "--ServerApp.allow_root=True",  # as the stack itself, which runs as its user
        )
        return ChildCommand(argv, inherited | own, cwd=data_dir)

    def answers(self) -> bool:
        """Whether it serves to those that show its token."""
        headers = {"Authorization": f"token {self.token}"}
        return answers_ok(self.port, "/api/status", _PROBE_S, headers)


def is_installed() -> bool:
    """Whether what the notebooks need can be imported."""
    return all(util.find_spec(name) is not None for name in _MODULES)


def copy_notebooks(source: Path, folder: Path) -> None:
    """Copy the notebooks that a folder lacks, and the executed copies beside them."""
    for notebook in sorted([*source.glob("*.ipynb"), *source.glob("executed/*.ipynb")]):
        copy = folder / notebook.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            shutil.copyfile(notebook, copy)
    folder.mkdir(parents=True, exist_ok=True)
