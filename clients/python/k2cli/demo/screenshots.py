"""Takes pictures of the pages of a stack in a real browser, in both themes and on a phone.

Playwright is a tool of development; the browser is the system's Chromium.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from k2client.errors import Invalid, Unavailable

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_SETTLE_MS = 2500.0
_LOOKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("light", {"viewport": {"width": 1440, "height": 1000}, "color_scheme": "light"}),
    ("dark", {"viewport": {"width": 1440, "height": 1000}, "color_scheme": "dark"}),
    ("phone", {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"}),
)


def take(pages: Sequence[tuple[str, str]], folder: Path) -> list[Path]:
    """Take a picture of each page in each look.

    Args:
        pages: names and URLs.
        folder: of the pictures; made where it is missing.

    Raises:
        Invalid: BAD_REQUEST when Playwright or the browser is not installed.
        Unavailable: PEER_UNAVAILABLE when a page does not open.
    """
    try:
        playwright = importlib.import_module("playwright.sync_api")
    except ImportError as error:
        raise Invalid("BAD_REQUEST", "screenshots need Playwright: make setup") from error
    browser_path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser_path is None:
        raise Invalid("BAD_REQUEST", f"screenshots need one of {', '.join(_BROWSERS)}")
    folder.mkdir(parents=True, exist_ok=True)
    taken: list[Path] = []
    try:
        with playwright.sync_playwright() as running:
            browser = running.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            for look, how in _LOOKS:
                context = browser.new_context(**how)
                taken += [
                    _pictured(context, url, folder / f"{name}-{look}.png") for name, url in pages
                ]
                context.close()
            browser.close()
    except playwright.Error as error:
        words = str(error).splitlines()[0]
        raise Unavailable("PEER_UNAVAILABLE", f"no screenshots: {words}") from error
    return taken


def _pictured(context: Any, url: str, path: Path) -> Path:  # noqa: ANN401 Playwright's context
    page = context.new_page()
    page.goto(url, wait_until="load")
    page.wait_for_timeout(_SETTLE_MS)
    page.screenshot(path=str(path))
    page.close()
    return path
