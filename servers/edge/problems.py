"""Answers failures as `application/problem+json` (RFC 9457), with K2's reasons.

The status follows the kind of the error, as gRPC's code does: a request that is wrong is 400, what
does not exist 404, stored data that contradicts itself 409, a limit 429, a part that is missing
503. A few reasons have a status of their own. What makes sense again later says when (Retry-After).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from k2client.errors import Data, Invalid, K2Error, NotFound, Overloaded, Unavailable

MEDIA_TYPE: Final = "application/problem+json"
KEY_HEADER: Final = "X-API-Key"
_BY_KIND: Final[tuple[tuple[type[K2Error], int], ...]] = (
    (Invalid, 400),
    (NotFound, 404),
    (Data, 409),
    (Overloaded, 429),
    (Unavailable, 503),
)
_BY_REASON: Final = {
    "UNAUTHENTICATED": 401,
    "NOT_LOCAL": 403,
    "PERMISSION_DENIED": 403,
    "NOT_ACCEPTABLE": 406,
    "DISK_FULL": 503,
    "DEADLINE_EXCEEDED": 504,
}
_HTTP_REASONS: Final = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "REQUEST_TOO_LARGE"}
_RETRY_AFTER_S: Final = 1.0
_FIELD_INPUT_MAX: Final = 3  # parts of a request that a message names

_log = logging.getLogger(__name__)


class ProblemDocument(BaseModel):
    """A failure, as RFC 9457 has it, with K2's reason."""

    type: str = Field(description="`urn:k2:reason:` and the reason")
    title: str = Field(description="the status in words")
    status: int
    detail: str = Field(description="what happened and what to do about it")
    reason: str = Field(description="what happened, in one word that programs may rely on")
    metadata: dict[str, str] = Field(description="details by name")
    retry_after_s: float | None = Field(description="seconds after which a retry makes sense")


_ANSWER: Final[dict[str, Any]] = {
    "description": "A problem, with its reason",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
}
PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {"4XX": _ANSWER, "5XX": _ANSWER}
"""The failures of a route, as OpenAPI has them."""


@dataclass(frozen=True)
class HttpProblem:
    """A failure as HTTP says it.

    Attributes:
        status: of the answer.
        reason: one word.
        detail: in words.
        metadata: details by name.
        retry_after_s: None where a retry does not help.
        headers: of the answer, beside Retry-After.
    """

    status: int
    reason: str
    detail: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "type": f"urn:k2:reason:{self.reason}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "reason": self.reason,
            "metadata": dict(self.metadata),
            "retry_after_s": self.retry_after_s,
        }

    def response(self) -> Response:
        """Make the answer."""
        headers = dict(self.headers)
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(math.ceil(self.retry_after_s))
        return JSONResponse(self.document(), self.status, headers, MEDIA_TYPE)


def problem_of(error: K2Error) -> HttpProblem:
    """Convert an error of K2."""
    by_kind = next((status for kind, status in _BY_KIND if isinstance(error, kind)), 500)
    status = _BY_REASON.get(error.reason, by_kind)
    after_s = error.retry_after_s
    if after_s is None and status in (429, 503):
        after_s = _RETRY_AFTER_S
    headers = {"WWW-Authenticate": KEY_HEADER} if status == HTTPStatus.UNAUTHORIZED else {}
    return HttpProblem(status, error.reason, error.message, error.metadata, after_s, headers)


def add_handlers(app: FastAPI) -> None:
    """Have an application answer every failure as a problem."""
    app.add_exception_handler(K2Error, _of_k2)
    app.add_exception_handler(RequestValidationError, _of_request)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _of_defect)


async def _of_k2(_request: Request, error: Exception) -> Response:
    assert isinstance(error, K2Error)
    return problem_of(error).response()


async def _of_request(_request: Request, error: Exception) -> Response:
    """Name the parts of a request that are wrong."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    names = [".".join(str(part) for part in one["loc"][1:]) for one in found]
    parts = [
        f"{name}: {one['msg'].removeprefix('Value error, ')}"
        for name, one in zip(names, found, strict=True)
    ]
    detail = "; ".join(parts[:_FIELD_INPUT_MAX])
    return HttpProblem(400, "BAD_REQUEST", detail, {"field": names[0]} if names else {}).response()


async def _of_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = _HTTP_REASONS.get(error.status_code, "BAD_REQUEST")
    detail = f"{error.detail}: /docs lists what is here"
    return HttpProblem(error.status_code, reason, detail, headers=error.headers or {}).response()


async def _of_defect(_request: Request, _error: Exception) -> Response:
    """Answer a defect; the server logs it."""
    return HttpProblem(500, "INTERNAL", "a defect in K2: its log says more").response()
