"""A wheel holds every file that K2 reads at run time, wherever the repository keeps it."""

import re
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from k2cli.cost import cost_model
from k2cli.demo import materials
from servers.edge import app, panels
from servers.local import artifacts, jupyter
from servers.local.observe import prometheus

ROOT = Path(__file__).parents[2]
SOURCES = ("k2", "servers", "clients/python/k2client", "clients/python/k2cli")
# What each module that names a file of its own, or one of the repository, reads.
READ = {
    "clients/python/k2cli/cost/cost_model.py": [cost_model.PRICES_FILE],
    "clients/python/k2cli/demo/materials.py": [*materials.NOTEBOOKS],
    "k2/shipped_files.py": [],
    "servers/edge/app.py": [app.ASSETS],
    "servers/edge/panels.py": [panels.FILE],
    "servers/local/artifacts.py": [artifacts.LOCK_FILE],
    "servers/local/jupyter.py": [jupyter.NOTEBOOKS],
    "servers/local/observe/prometheus.py": [prometheus.RULES],
}


@pytest.fixture(scope="module")
def held():
    """The files of a wheel: where it puts each file of the repository."""
    files = WheelBuilder(str(ROOT)).recurse_included_files()
    return {Path(file.path).resolve(): file.distribution_path for file in files}


def test_every_module_that_names_a_file_is_known():
    named = re.compile(r"\b__file__\b|importlib\.resources|\bshipped_file\(")
    found = {
        str(path.relative_to(ROOT))
        for source in SOURCES
        for path in (ROOT / source).rglob("*.py")
        if "v1" not in path.parts and named.search(path.read_text())
    }
    assert found == set(READ)


@pytest.mark.parametrize("module", [name for name, read in READ.items() if read])
def test_what_a_module_reads_is_in_the_wheel(module, held):
    for path in READ[module]:
        files = [path] if path.is_file() else [one for one in path.rglob("*") if kept(one)]
        assert files, path
        assert [one for one in files if one not in held] == []


def kept(path):
    """Whether it is a file of the repository: no cache of a tool."""
    return path.is_file() and not re.search(r"/(\.\w+|__pycache__)/", str(path))


def test_a_file_outside_the_packages_is_where_k2_looks_for_it(held):
    for path in (artifacts.LOCK_FILE, jupyter.NOTEBOOKS / "quickstart.ipynb"):
        assert held[path] == f"k2/shipped/{path.relative_to(ROOT)}"
