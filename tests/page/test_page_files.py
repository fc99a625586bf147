"""The page as it is shipped: whole, local, and free of what a strict content policy refuses."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "clients/typescript"
BUILT = ROOT / "servers/edge/assets/page"


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.inline = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.found and self.found[-1][0] in ("script", "style") and data.strip():
            self.inline.append(data)


PAGE = Elements((BUILT / "index.html").read_text())


def test_all_that_the_page_loads_is_shipped_beside_it():
    loaded = [
        attributes.get("src") or attributes["href"]
        for tag, attributes in PAGE.found
        if tag in ("script", "link", "img")
    ]
    assert loaded
    for path in loaded:
        assert path.startswith("./assets/page/")
        assert (BUILT / path.removeprefix("./assets/page/")).is_file()


def test_the_page_has_no_script_style_or_handler_inside():
    assert PAGE.inline == []
    for tag, attributes in PAGE.found:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag


def test_each_control_has_a_name():
    labelled = set(re.findall(r'<label[^>]*\bfor="([^"]+)"', (BUILT / "index.html").read_text()))
    inside = re.findall(r"<label[^>]*>.*?</label>", (BUILT / "index.html").read_text(), re.DOTALL)
    within = {name for label in inside for name in re.findall(r'\b(?:id|name)="([^"]+)"', label)}
    for tag, attributes in PAGE.found:
        if tag in ("input", "select"):
            names = {attributes.get("id"), attributes.get("name")}
            assert names & (labelled | within), attributes


def luminance(colour):
    """As WCAG 2 defines it."""
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "under"),
    [
        *((ink, "card") for ink in ("ink", "ink-2", "accent", "ok", "note", "warn", "bad")),
        *((ink, "card") for ink in ("up", "down")),
        *((ink, "paper") for ink in ("ink", "ink-2", "accent")),
        *((ink, "wash") for ink in ("ink", "up", "down")),
        *(("note", "note-wash"), ("ink", "note-wash"), ("ink-2", "note-wash")),
        *(("bad", "bad-wash"), ("on-accent", "accent")),
    ],
)
def test_text_is_legible_on_what_lies_under_it(ink, under, theme):
    text = (SOURCES / "src/page.css").read_text()
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", text)
    colours = {name: both[theme] for name, *both in pairs}
    assert contrast(colours[ink], colours[under]) >= 4.5


def test_the_chart_library_is_credited():
    assert "TradingView" in (BUILT / "index.html").read_text()
    assert "TradingView" in (BUILT / "NOTICE.txt").read_text()


def test_packages_are_pinned_and_the_lock_names_no_registry():
    package = json.loads((SOURCES / "package.json").read_text())
    lock = json.loads((SOURCES / "package-lock.json").read_text())
    pins = package.get("dependencies", {}) | package["devDependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in pins.values())
    for name, entry in lock["packages"].items():
        assert "resolved" not in entry, name
        assert not name or entry.get("integrity"), name
    assert "registry" not in (SOURCES / "package-lock.json").read_text()


WRITTEN = [
    path
    for path in sorted((SOURCES / "src").rglob("*.ts"))
    if "generated" not in path.parts and not path.name.endswith(".d.ts")
]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda one: one.name)
def test_a_source_is_small_and_says_what_it_is_for(path):
    text = path.read_text()
    assert text.startswith("// ")
    assert len(text.splitlines()) <= 400
    assert "innerHTML" not in text
