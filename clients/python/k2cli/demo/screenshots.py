"""Takes pictures of the status page of a running stack, in both themes and on a phone.

A picture is taken once its view shows rows. Playwright is a tool of development; the browser is the
system's Chromium.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from k2client.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_WAIT_MS = 30_000
_SETTLE_MS = 3_000  # for a few more live rows, and the drawing of them
_BARS = "5s"  # of the market: a stack that has just begun has some of them
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
API_DOCS = Shot("api-docs", "docs")
# What a view shows once it has something to show.
_READY = {
    "market": "#trades tbody tr",
    "past": "#feed-state[data-state=as-of]",
    "platform": "#ladder [aria-current]",
    "query": "#grid tbody tr",
    "health": "#health-rows .panel polyline, #health-rows .panel .stat",
    "docs": ".opblock",
}


def take(edge: str, folder: Path, shots: Sequence[Shot] = SHOTS) -> Iterator[Path]:
    """Take pictures one after another; yields the file of each.

    Args:
        edge: base URL of the edge.
        folder: of the pictures; made where it is missing.
        shots: to take.

    Raises:
        Invalid: BAD_REQUEST when Playwright or the browser is not installed.
        Unavailable: PEER_UNAVAILABLE when a page does not open, or shows nothing.
    """
    playwright = _playwright()
    try:
        with chromium() as browser:
            folder.mkdir(parents=True, exist_ok=True)
            for shot in shots:
                yield _taken(browser, edge.rstrip("/"), shot, folder)
    except playwright.Error as error:
        words = str(error).splitlines()[0]
        raise Unavailable("PEER_UNAVAILABLE", f"no screenshots: {words}") from error


@contextmanager
def chromium(program: str | None = None) -> Iterator[Browser]:
    """Run a browser without a window while the block lasts.

    Args:
        program: its path; unset: the first that is installed.

    Raises:
        Invalid: BAD_REQUEST when Playwright or the browser is not installed.
    """
    playwright = _playwright()
    program = program or next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        raise Invalid("BAD_REQUEST", f"screenshots need one of {', '.join(_BROWSERS)}")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
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
        page.locator("#slider:not([max='0'])").wait_for(timeout=_WAIT_MS)
        page.locator("#earlier").click(click_count=3)
    if view == "query":
        page.get_by_role("button", name="Run").click()
    page.locator(_READY[view]).first.wait_for(timeout=_WAIT_MS)


def _taken(browser: Browser, edge: str, shot: Shot, folder: Path) -> Path:
    scale = 2 if shot.width < 500 else 1
    context = browser.new_context(
        viewport={"width": shot.width, "height": shot.height},
        color_scheme=shot.theme,
        device_scale_factor=scale,
    )
    page = context.new_page()
    if shot.view == "docs":
        page.goto(f"{edge}/docs")
        page.locator(_READY["docs"]).first.wait_for(timeout=_WAIT_MS)
    else:
        page.goto(f"{edge}/")
        page.locator("#every").select_option(_BARS)
        show(page, shot.view)
    page.wait_for_timeout(_SETTLE_MS)
    file = folder / f"{shot.name}.png"
    page.screenshot(path=file)
    context.close()
    return file


def _playwright() -> Any:  # noqa: ANN401 a module that only development has
    try:
        return importlib.import_module("playwright.sync_api")
    except ImportError as error:
        raise Invalid("BAD_REQUEST", "screenshots need Playwright: make setup") from error
