"""Looks at every address of a demonstration: healthy, failed, or not part of this stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from k2cli.operate.fetching import NotServed, fetch
from k2cli.operate.running_stack import address_of, based, is_listening
from k2client.stack import Stack

HEALTHY = "healthy"
FAILED = "failed"
NO_PART = "not part of this stack"
_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class WebPage:
    """A page that people open.

    Attributes:
        name: in words, and of `k2 open`.
        process, address: where a stack that has it lists it.
        port: where it listens by default.
        health: the path that answers 200 when it is healthy.
        shows: the path that people open.
    """

    name: str
    process: str
    address: str
    port: int
    health: str
    shows: str = "/"


PAGES = (
    WebPage("edge", "edge", "http", 8000, "/health"),
    WebPage("prometheus", "prometheus", "prometheus", 9090, "/-/healthy"),
    WebPage("grafana", "grafana", "http", 3000, "/api/health"),
    WebPage("jupyter", "jupyter", "jupyter", 8888, "/api"),
    WebPage("kafka-ui", "kafka-ui", "http", 8080, "/"),
    WebPage("object-store", "object-store", "http", 9001, "/"),
)


@dataclass(frozen=True)
class Found:
    """What is at an address."""

    name: str
    url: str
    state: str
    message: str


def looked_at(
    described: Stack,
    answers: Callable[[str], str] | None = None,
    listens: Callable[[int], bool] | None = None,
    pages: Sequence[WebPage] = PAGES,
) -> list[Found]:
    """Look at each page.

    A page that the stack lists must be healthy. Any other is looked for at its default port, since
    a container may serve it; where nothing listens there, it is not part of this stack.

    Args:
        described: the stack.
        answers: gets a URL; raises NotServed.
        listens: says whether a port of this machine takes connections.
        pages: to look at.
    """
    answers = answers or (lambda url: fetch(url, _TIMEOUT_S))
    listens = listens or is_listening
    found = []
    for page in pages:
        listed = address_of(described, page.process, page.address)
        url = url_of(described, page)
        if not listed and not listens(page.port):
            found.append(Found(page.name, url, NO_PART, f"nothing listens on {page.port}"))
            continue
        try:
            answers(url + page.health)
            message = "" if listed else "served beside this stack"
            found.append(Found(page.name, url, HEALTHY, message))
        except NotServed as error:
            found.append(Found(page.name, url, FAILED, str(error)))
    return found


def url_of(described: Stack, page: WebPage) -> str:
    """Return the base URL of a page: as the stack lists it, else at its default port."""
    listed = address_of(described, page.process, page.address)
    if not listed:
        return f"http://127.0.0.1:{page.port}"
    parts = urlsplit(based(listed))
    return f"{parts.scheme}://{parts.netloc}"


def opened_url(described: Stack, page: WebPage) -> str:
    """Return what to open in a browser: as the stack lists it, with its token where it has one."""
    listed = address_of(described, page.process, page.address) or ""
    return listed if "?" in listed else url_of(described, page) + page.shows
