"""The habits of CONTRIBUTING.md, held by a machine: sizes, names, docstrings, tests, reasons."""

import ast
import re
import subprocess
import warnings
from pathlib import Path

import pytest

from k2.errors import Reason
from k2.v1 import error_reason_pb2

ROOT = Path(__file__).parents[2]
SOURCE_ROOTS = ("k2", "servers", "clients/python/k2client", "clients/python/k2cli")
MODULE_LINES_MAX = 600
MODULE_LINES_USUAL = 400  # above this, ask whether the module is one concern
FUNCTION_LINES_MAX = 50
BANNED_NAMES = {"util", "utils", "common", "helper", "helpers", "manager", "base", "misc", "core"}
# `noqa` marks need a reason after the code; these are how many there may be of each rule.
NOQA_MAX = {"TID251": 24, "BLE001": 12}

# Where the tests of a module are, when they are not in tests/unit at the module's own path.
TESTED_ELSEWHERE: dict[str, str] = {}


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *patterns],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def sources() -> list[Path]:
    found = [path for root in SOURCE_ROOTS for path in tracked(f"{root}/**.py", f"{root}/*.py")]
    return sorted({path for path in found if "k2/v1" not in path.as_posix()})


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_source = pytest.mark.parametrize("path", sources(), ids=name_of)


@pytest.mark.filterwarnings("default:.*is it one concern")
@each_source
def test_a_module_is_small_and_says_what_it_is_for(path):
    text = path.read_text()
    lines = len(text.splitlines())
    assert lines <= MODULE_LINES_MAX
    if lines > MODULE_LINES_USUAL:
        warnings.warn(f"{name_of(path)} has {lines} lines: is it one concern?", stacklevel=1)
    assert ast.get_docstring(ast.parse(text)), "a module starts with its reason"


@each_source
def test_a_module_is_named_after_a_thing_of_the_domain(path):
    assert path.stem not in BANNED_NAMES


@each_source
def test_functions_are_small(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


@each_source
def test_imports_stand_at_the_top(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
            assert not inner, f"{node.name} imports inside"


@each_source
def test_a_public_module_has_tests(path):
    name = name_of(path)
    inside = name.removeprefix("clients/python/").removeprefix("k2/")
    unit = ROOT / "tests/unit" / inside
    expected = ROOT / TESTED_ELSEWHERE.get(name, unit.with_name(f"test_{unit.name}"))
    assert path.name == "__init__.py" or expected.exists(), f"{expected} is missing"


def test_exceptions_to_the_rules_are_few_and_reasoned():
    counts: dict[str, int] = {}
    for path in sources():
        for line in path.read_text().splitlines():
            for codes, reason in re.findall(r"# noqa: ([A-Z0-9, ]+?[0-9])(?![A-Z0-9,])(.*)", line):
                assert reason.strip(), f"{name_of(path)}: a noqa says why: {line.strip()}"
                for code in re.split(r"[, ]+", codes):
                    counts[code] = counts.get(code, 0) + 1
    for code, limit in NOQA_MAX.items():
        assert counts.get(code, 0) <= limit, f"{code}: {counts[code]} exceptions"


def test_error_reasons_equal_the_enum_on_the_wire():
    wire = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118
    assert wire - {"UNSPECIFIED"} == {reason.value for reason in Reason}


def test_no_test_patches_what_it_tests():
    for path in tracked("tests/**.py", "tests/*.py"):
        if path != Path(__file__):
            text = path.read_text()
            assert "mock.patch" not in text, name_of(path)
            asleep = re.search(r"^(import time|from time import)", text, re.MULTILINE)
            measures = "bench" in path.parts
            assert measures or not asleep, f"{name_of(path)}: wait with eventually(), take a Clock"


def test_the_changelog_has_its_shape():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.match(r"# Changelog\n", text)
    assert re.search(r"^## \[(Unreleased|\d+\.\d+\.\d+)\]", text, re.MULTILINE)


def test_no_address_of_a_registry_or_a_machine_is_committed():
    for path in tracked("requirements/*", "pyproject.toml", "Makefile", "artifacts.lock"):
        assert not re.search(r"https?://", path.read_text()), name_of(path)
