"""The shipped page and its types are those that the sources build; its own tests pass."""

from pathlib import Path

import pytest

from tests.support import tools

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "clients/typescript"
BUILT = ROOT / "servers/edge/assets/page"
PROGRAMS = SOURCES / "node_modules/.bin"
pytestmark = pytest.mark.tools


@pytest.fixture(scope="module", autouse=True)
def packages():
    tools.tool("node")
    if not PROGRAMS.is_dir():
        tools.missing("what `npm ci` brings to clients/typescript")


def test_the_shipped_page_is_the_one_that_the_sources_build(tmp_path):
    tools.run("node", SOURCES / "build.mjs", "--out", tmp_path)
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    shipped = {path.name: path.read_bytes() for path in BUILT.iterdir()}
    assert sorted(shipped) == sorted(built)
    differing = [name for name in built if built[name] != shipped[name]]
    assert differing == [], "npm run build in clients/typescript"


def test_the_types_are_those_of_the_interface_document(tmp_path):
    made = tmp_path / "edge.ts"
    tools.run("node", PROGRAMS / "openapi-typescript", SOURCES / "openapi.json", "-o", made)
    committed = (SOURCES / "src/generated/edge.ts").read_text()
    assert made.read_text() == committed, "npm run types in clients/typescript"


def test_the_sources_have_no_type_errors():
    tools.run("node", PROGRAMS / "tsc", "-p", SOURCES)


def test_what_decides_passes_its_own_tests():
    tools.run("node", SOURCES / "build.mjs", "--tests")
    built = sorted((SOURCES / ".build").glob("*.test.mjs"))
    assert built
    tools.run("node", "--test", *built)
