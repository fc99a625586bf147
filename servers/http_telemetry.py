"""Measures and traces each request: one counter, one histogram, one span.

Labels are bounded: the route is a template of the API, never a path; an unknown path is `other`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from k2 import tracing
from k2.clock import Clock
from k2.metrics import counter, histogram

OTHER: Final = "other"
_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_PAGES: Final = ("/", "/docs", "/openapi.json", "/assets/{path}")
_DEFECT: Final = 500

_REQUESTS = counter("k2_http_requests_total", "Requests answered.", "route", "method", "code")
_SECONDS = histogram(
    "k2_http_request_duration_seconds",
    "Time of a request; of a stream until it ended.",
    "route",
    "method",
    "code",
)
_log = logging.getLogger(__name__)


class Tally:
    """Counts requests.

    Attributes:
        answered: those that ended.
    """

    def __init__(self) -> None:
        self.answered = 0


class HttpTelemetry:
    """Wraps an application.

    Args:
        app: the application.
        clock: measures.
        templates: returns the paths of the API, with `{name}` for what varies.
        tally: counts too.
    """

    def __init__(
        self, app: ASGIApp, clock: Clock, templates: Callable[[], Iterable[str]], tally: Tally
    ) -> None:
        self._app = app
        self._clock = clock
        self._templates = templates
        self._tally = tally

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note how it ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = self._route(scope["path"])
        method = scope["method"] if scope["method"] in _METHODS else OTHER
        parent = Headers(scope=scope).get(tracing.HEADER, "")
        attributes = {tracing.HTTP_METHOD: method, tracing.HTTP_ROUTE: route}
        started_s, code = self._clock.monotonic_s(), _DEFECT

        async def noting(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        span = tracing.begin(
            f"{method} {route}", attributes, kind=tracing.Kind.SERVER, parent=parent
        )
        with span:
            try:
                await self._app(scope, receive, noting)
            finally:
                took_s = self._clock.monotonic_s() - started_s
                span.set({tracing.HTTP_STATUS: code})
                _REQUESTS.labels(route, method, code).inc()
                _SECONDS.labels(route, method, code).observe(took_s)
                self._tally.answered += 1
                details = {"route": route, "code": code, "milliseconds": round(took_s * 1e3, 3)}
                _log.debug("request", extra=details)

    def _route(self, path: str) -> str:
        return next((text for text, form in self._known if form.fullmatch(path)), OTHER)

    @cached_property
    def _known(self) -> list[tuple[str, re.Pattern[str]]]:
        return [(text, _form_of(text)) for text in (*self._templates(), *_PAGES)]


def _form_of(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    within = {"path": ".+"}
    return re.compile(
        "".join(
            within.get(part, "[^/]+") if number % 2 else re.escape(part)
            for number, part in enumerate(parts)
        )
    )
