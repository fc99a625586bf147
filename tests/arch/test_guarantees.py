"""The pages name what exists: tests of guarantees, source files, decisions."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md")),
    ]
)
DECISIONS = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
PARTS_OF_A_DECISION = ["Context", "Decision", "Rejected", "Evidence"]
ARCHITECTURE_LINES_MAX = 120

each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)
each_decision = pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.stem)


def named_in(text):
    """Repository paths in code spans, `{a,b}` spelled out, each with its test function if any."""
    code = " ".join(re.findall(r"`([^`]+)`", text))
    roots = "k2|servers|clients|protos|tests|scripts|docs"
    pattern = rf"(?<![\w./-])((?:{roots})/[\w./{{}},-]*[\w}}/])(?:::(\w+))?"
    for name, function in re.findall(pattern, code):
        for path in spelled_out(name):
            yield path, function


def spelled_out(name):
    braces = re.search(r"\{([^}]*)\}", name)
    if not braces:
        return [name]
    return [name.replace(braces[0], each) for each in braces[1].split(",")]


def without_examples(text):
    return re.sub(r"\n```.*?\n```", "", text, flags=re.DOTALL)


@each_page
def test_each_path_and_test_function_exists(page):
    for name, function in named_in(without_examples(page.read_text())):
        path = ROOT / name
        assert path.exists(), name
        if function:
            defined = {
                node.name for node in ast.parse(path.read_text()).body if hasattr(node, "name")
            }
            assert function in defined, f"{name}::{function}"


@each_page
def test_each_command_has_its_module(page):
    for module in re.findall(r"python -m ((?:tests|servers)(?:\.\w+)*)", page.read_text()):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_each_guarantee_names_a_proof():
    page = (ROOT / "docs/guarantees.md").read_text()
    rows = re.findall(r"^\| (?!what holds|---)(.*) \|$", page, re.MULTILINE)
    for row in rows:
        what, _, proof, _ = row.split(" | ")
        assert re.search(r"`(tests/|python -m |make )", proof), what


@each_decision
def test_a_decision_has_its_parts_and_is_indexed(decision):
    text = decision.read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == PARTS_OF_A_DECISION
    title = re.match(r"# (\d{4}): (.+)\n", text)
    assert title
    assert decision.name.startswith(title[1])
    line = f"[{title[1]}]({decision.name}) | {title[2]} |"
    assert line in (ROOT / "docs/decisions/README.md").read_text()


def test_the_architecture_is_one_page():
    lines = len((ROOT / "ARCHITECTURE.md").read_text().splitlines())
    assert lines <= ARCHITECTURE_LINES_MAX
