"""Defines K2's errors: one class per kind, the same six as the platform's.

    K2Error
    ├── Invalid      the request is wrong: correct it, do not retry
    ├── NotFound     what it names does not exist, or no longer does
    ├── Unavailable  a part is missing for now: retry after `retry_after_s`
    ├── Overloaded   a limit is reached: retry later, or ask for less
    ├── Data         what is stored or recorded contradicts itself: an operator must look
    └── Internal     a defect in K2

Programs compare `reason`, a name of `error_reason.proto`; `message` is text for people.
"""

from __future__ import annotations

from collections.abc import Mapping


class K2Error(Exception):
    """K2 could not do what was asked.

    Attributes:
        reason: what happened, a name of `k2.v1.ErrorReason` without its prefix.
        message: what happened and what to do about it, as text for people.
        metadata: details by name.
        retry_after_s: seconds after which a retry makes sense; None when none does.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s


class Invalid(K2Error):
    """The request is wrong; the same request will fail again."""


class NotFound(K2Error):
    """What the request names does not exist, or no longer does."""


class Unavailable(K2Error):
    """A part that the answer needs is missing for now; try again."""


class Overloaded(K2Error):
    """A limit is reached; try later or ask for less."""


class Data(K2Error):
    """What is stored contradicts itself or its source; a retry does not help."""


class Internal(K2Error):
    """A defect in K2."""
