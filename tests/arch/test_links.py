"""Links of the pages lead somewhere: to files of the repository, and to headings inside pages."""

import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|<(https?://[^>\s]+)>")
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(
            path
            for path in (ROOT / "clients").rglob("*.md")
            if not {"node_modules", "dist"} & set(path.parts)
        ),
    ]
)

each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)


def prose(text):
    """A page without its examples: code is no link."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "``", text)


@functools.cache
def anchors(page):
    """The anchors of a page's headings, as GitHub makes them, and those it names itself."""
    found, counts = set(), {}
    text = page.read_text()
    without = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#{1,6} (.+?)\s*$", without, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        count = counts[slug] = counts.get(slug, -1) + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


def faults(page, text):
    """The links of a page's text that lead nowhere."""
    targets = [one or other for one, other in LINK.findall(prose(text))] + IMAGE.findall(text)
    for target in targets:
        if re.match(r"(https?://|mailto:)", target):
            continue  # outside, or at a running stack: nothing is asked over the network
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            yield f"{target}: no such file"
        elif ROOT not in file.parents:
            yield f"{target}: outside of the repository"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            yield f"{target}: no such heading"


@each_page
def test_each_link_leads_somewhere(page):
    assert list(faults(page, page.read_text())) == []


@pytest.mark.parametrize(
    "text",
    [
        "[a](nowhere.md)",
        "[a](operations.md#nowhere)",
        "[a](#nowhere)",
        "![a](nowhere.png)",
        "[a](../../outside.md)",
    ],
)
def test_a_link_that_leads_nowhere_is_found(text):
    assert len(list(faults(ROOT / "docs/operations.md", text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "[a](glossary.md)",
        "[a](operations.md#settings)",
        "[a](#exit-codes-of-k2-up)",
        "[a](data-dictionary.md#opstransitions)",
        "[a](https://example.org/x#y)",
        "`[a](nowhere.md)`",
        "```\n[a](nowhere.md)\n```",
    ],
)
def test_other_links_are_left_alone(text):
    assert list(faults(ROOT / "docs/operations.md", text)) == []
