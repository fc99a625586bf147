"""Takes pictures of the status page of a running stack: `python -m scripts.screenshots`.

It drives the system's Chromium and writes `docs/images/page-*.png`: the four views in light, the
market in dark and on a phone. A picture is taken once the view shows rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from playwright.sync_api import Browser, Page, sync_playwright

from k2client import stack

FOLDER = Path(__file__).parents[1] / "docs/images"
CHROMIUM = "/usr/bin/chromium"
WAIT_MS = 30_000
BARS = "5s"  # of the market: a stack that has just begun has some of them
Theme = Literal["light", "dark"]


class Shot(NamedTuple):
    """A picture: its name, the view, the theme, and the size of the window."""

    name: str
    view: str
    theme: Theme = "light"
    width: int = 1360
    height: int = 860


SHOTS = (
    Shot("page-market-light", "market"),
    Shot("page-market-dark", "market", "dark"),
    Shot("page-market-phone", "market", "light", 390, 844),
    Shot("page-past", "past"),
    Shot("page-platform", "platform"),
    Shot("page-query", "query"),
    Shot("page-health", "health"),
)
# What a view shows once it has something to show.
READY = {
    "market": "#trades tbody tr",
    "past": "#feed-state[data-state=as-of]",
    "platform": "#ladder [aria-current]",
    "query": "#grid tbody tr",
    "health": "#health-rows .panel polyline, #health-rows .panel .stat",
}


@contextmanager
def chromium(program: str = CHROMIUM) -> Iterator[Browser]:
    """Run a browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def show(page: Page, view: str) -> None:
    """Bring a view of the page up and wait until it shows something.

    Args:
        page: the status page, open.
        view: market, past (the market as of a snapshot), platform, query or health.
    """
    page.get_by_role("tab", name="market" if view == "past" else view).click()
    if view == "past":
        page.locator("#slider:not([max='0'])").wait_for(timeout=WAIT_MS)
        page.locator("#earlier").click(click_count=3)
    if view == "query":
        page.get_by_role("button", name="Run").click()
    page.locator(READY[view]).first.wait_for(timeout=WAIT_MS)


def take(browser: Browser, url: str, shot: Shot, folder: Path) -> Path:
    """Take one picture; its file."""
    size = {"width": shot.width, "height": shot.height}
    scale = 2 if shot.width < 500 else 1
    context = browser.new_context(viewport=size, color_scheme=shot.theme, device_scale_factor=scale)
    page = context.new_page()
    page.goto(url)
    page.locator("#every").select_option(BARS)
    show(page, shot.view)
    page.wait_for_timeout(3000)  # for a few more live rows, and the drawing of them
    file = folder / f"{shot.name}.png"
    page.screenshot(path=file)
    context.close()
    return file


def edge_of(data_dir: str | None) -> str | None:
    """Return the address of the page of a running stack; None where there is none."""
    for process in stack.read_stack(stack.data_dir(data_dir)).processes:
        if process.get("name") == "edge" and (address := process["addresses"].get("http")):
            return f"http://{address.removeprefix('http://')}/"
    return None


def main() -> int:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="of the stack")
    parser.add_argument("--url", help="of the page, instead")
    parser.add_argument("--out", type=Path, default=FOLDER, help="the folder to write to")
    asked = parser.parse_args()
    url = asked.url or edge_of(asked.data_dir)
    if url is None:
        print("no stack with an edge runs: k2 up -d", file=sys.stderr)
        return 1
    asked.out.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for shot in SHOTS:
            print(take(browser, url, shot, asked.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
