"""The habits of CONTRIBUTING.md, held by a machine: sizes, names, docstrings, tests, reasons."""

import ast
import functools
import io
import json
import re
import subprocess
import sys
import tokenize
import warnings
from collections import defaultdict
from pathlib import Path

import pytest

from k2.errors import Reason
from k2.v1 import error_reason_pb2

ROOT = Path(__file__).parents[2]
SOURCE_ROOTS = ("k2", "servers", "clients/python/k2client", "clients/python/k2cli")
MODULE_LINES_MAX = 600
MODULE_LINES_USUAL = 400  # above this, ask whether the module is one concern
FUNCTION_LINES_MAX = 50
PACKAGE_MODULES_USUAL = 12  # above this, ask whether the package is one noun of the domain
PACKAGE_MODULES_MAX = {"clients/python/k2cli": 19, "servers/local": 19, "servers/venue": 10}
BANNED_NAMES = {"util", "utils", "common", "helper", "helpers", "manager", "base", "misc", "core"}
# `noqa` marks need a reason after the code; these are how many there may be of each rule.
NOQA_MAX = {"TID251": 24, "BLE001": 12}

# Phrases that hide which component does what.
BANNED_WORDS = re.compile(
    r"\b(?:whoever|whom|whose day|told|untold|anew|of before|nobody|everybody|he|lets go|in vain"
    r"|just now|a person|for ever)\b",
    re.IGNORECASE,
)

# Modules and public classes of one name, and why they are not renamed.
COMMAND_TWIN = "named after the command: its process, and the part that does the work"
CLIENT_TWIN = "the client has its own, made of what the wire says: it imports nothing of the server"
SAME_NAME = {
    **dict.fromkeys(
        ("backfill", "backup", "doctor", "record", "restore", "up", "verify", "trades"),
        COMMAND_TWIN,
    ),
    **dict.fromkeys(
        (
            "errors",
            "K2Error",
            "Invalid",
            "NotFound",
            "Unavailable",
            "Overloaded",
            "Data",
            "Internal",
            "DeadLetter",
            "Estimate",
            "Gap",
            "MissingPart",
            "OffsetVector",
            "Override",
            "Provenance",
            "TimeRange",
            "Transition",
        ),
        CLIENT_TWIN,
    ),
}


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


def packages() -> dict[str, list[Path]]:
    """The modules of each package, by its folder."""
    found: dict[str, list[Path]] = {}
    for path in sources():
        found.setdefault(name_of(path.parent), []).append(path)
    return found


def documents() -> list[str]:
    return sorted({name_of(path) for path in tracked("*.md", "docs/**.md")})


each_source = pytest.mark.parametrize("path", sources(), ids=name_of)
each_package = pytest.mark.parametrize("package", packages())


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
    """A test file mirrors its module, or covers its package from inside its folder or beside it."""
    inside = name_of(path).removeprefix("clients/python/").removeprefix("k2/")
    unit = ROOT / "tests/unit" / inside
    folder = unit.parent
    fitting = (
        unit.with_name(f"test_{unit.name}"),
        folder / f"test_{folder.name}.py",
        folder.with_name(f"test_{folder.name}.py"),
    )
    assert path.name == "__init__.py" or any(one.exists() for one in fitting), (
        f"{fitting[0]} is missing"
    )


@pytest.mark.filterwarnings("default:.*is it one noun")
@each_package
def test_a_package_is_small(package):
    modules = [path for path in packages()[package] if path.name != "__init__.py"]
    if package in PACKAGE_MODULES_MAX:
        assert len(modules) <= PACKAGE_MODULES_MAX[package], "it has grown: make a sub-package"
    elif len(modules) > PACKAGE_MODULES_USUAL:
        warnings.warn(f"{package} has {len(modules)} modules: is it one noun?", stacklevel=1)


def test_a_name_is_one_thing():
    """No module and no public class has the name of another."""
    where: dict[str, list[str]] = defaultdict(list)
    for path in sources():
        if path.stem not in ("__init__", "__main__"):
            where[path.stem].append(name_of(path))
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where[node.name].append(name_of(path))
    twice = {name: places for name, places in where.items() if len(places) > 1}
    assert {name: places for name, places in twice.items() if name not in SAME_NAME} == {}
    assert set(SAME_NAME) - set(twice) == set(), "names that are one thing again"


@each_package
def test_a_package_is_written_in_plain_words(package):
    assert [fault for path in packages()[package] for fault in faults_of_words(path)] == []


@pytest.mark.parametrize("name", documents())
def test_a_document_is_written_in_plain_words(name):
    text = (ROOT / name).read_text()
    if name == "CHANGELOG.md":
        text = re.split(r"^## (?!\[Unreleased)", text, flags=re.MULTILINE)[0]
    assert banned(re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)) == []


def banned(text: str) -> list[str]:
    """The banned words of a text, without what it quotes as code."""
    return BANNED_WORDS.findall(" ".join(re.sub(r"`[^`]*`", "`", text).split()))


def faults_of_words(path: Path) -> list[str]:
    """What of the docstrings and comments of a module is to be rewritten."""
    text = path.read_text()
    lines = io.StringIO(text).readline
    comments = [
        token.string.lstrip("# ")
        for token in tokenize.generate_tokens(lines)
        if token.type == tokenize.COMMENT
    ]
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    docs = [(ast.get_docstring(node) or "").strip() for node in nodes]
    empty = [f"{doc!r} says nothing" for doc in docs if re.fullmatch(r"See [^\n]+\.", doc)]
    words = banned(" ".join(comments)) + [word for doc in docs for word in banned(doc)]
    return [f"{name_of(path)}: {fault}" for fault in (*words, *empty, *not_imperative()[path])]


@functools.cache
def not_imperative() -> dict[Path, list[str]]:
    """The functions whose docstring does not begin with an imperative verb, by module."""
    told = subprocess.run(
        [*(sys.executable, "-m", "ruff", "check", "--select", "D401", "--no-cache"),
         *("--output-format", "json"), *SOURCE_ROOTS],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )  # fmt: skip
    found: dict[Path, list[str]] = defaultdict(list)
    for one in json.loads(told.stdout):
        found[Path(one["filename"])].append(f"line {one['location']['row']}: {one['message']}")
    return found


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
