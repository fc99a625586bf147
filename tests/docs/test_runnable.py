"""Every block marked `bash runnable` of README and quickstart runs, in order, on one stack.

What differs from a reader's terminal: the data directory is one of the test, the venue is the
practice venue, and ports are free ones, so that a stack beside the test is not in the way.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import k2client
from k2 import settings
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/quickstart.md")
BLOCK = re.compile(r"^```bash runnable\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```(.*)$", re.MULTILINE)
KNOWN = {"", "bash", "bash runnable"}
PRELUDE = """\
set -euo pipefail
k2() {
  if [ "$1" = up ]; then
    command k2 "$@" --ports free --venue synthetic
  else
    command k2 "$@"
  fi
}
curl() { command curl --noproxy '*' "${@//localhost:8000/$EDGE}"; }
"""


def blocks(name):
    return BLOCK.findall((ROOT / name).read_text())


@pytest.mark.parametrize("name", PAGES)
def test_fences_are_of_known_kinds(name):
    fences = FENCE.findall((ROOT / name).read_text())
    assert len(fences) % 2 == 0
    assert set(fences) <= KNOWN


def test_there_are_runnable_blocks():
    found = [block for name in PAGES for block in blocks(name)]
    assert len(found) >= 6
    assert "k2 up" in "".join(found)
    assert "k2 down" in found[-1]


class Terminal:
    """A shell that runs blocks as a reader does, in a folder of its own."""

    def __init__(self, folder):
        self.data_dir = folder / "data"
        self._folder = folder
        self.environment = settings.environment() | {
            "PATH": f"{Path(sys.executable).parent}:{settings.environment()['PATH']}",
            "K2_DATA_DIR": str(self.data_dir),
            "K2_LAKE__COMMIT_INTERVAL_S": "1",  # the time that a reader takes to read
            "EDGE": "",
        }

    def run(self, block):
        return subprocess.run(
            ["bash", "-c", PRELUDE + block],
            cwd=self._folder,
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def started(self):
        """Wait for the first commit, as a reader does while reading; learn where the edge is."""
        addresses = json.loads((self.data_dir / "run/stack.json").read_text())["addresses"]
        self.environment["EDGE"] = addresses["edge"]

        with k2client.connect(data_dir=str(self.data_dir)) as k2:
            eventually(lambda: k2.snapshots(limit=1), 60, 0.2)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_blocks_run(tmp_path):
    terminal = Terminal(tmp_path)
    try:
        for name in PAGES:
            for block in blocks(name):
                done = terminal.run(block)
                assert done.returncode == 0, f"{name}:\n{block}\n{done.stdout}\n{done.stderr}"
                if "k2 up" in block:
                    terminal.started()
    finally:
        terminal.run("k2 down || true")
