"""What K2 answers when it cannot answer: one class a kind, the same six as the platform's.

    K2Error
    ├── Invalid      the request is wrong: mend it, do not retry
    ├── NotFound     what it names does not exist (any more)
    ├── Unavailable  a part is missing just now: retry after `retry_after_s`
    ├── Overloaded   a limit is reached: retry later, or ask for less
    ├── Data         what is stored or recorded contradicts itself: a person must look
    └── Internal     a defect in K2

Compare `reason` in programs (the names of `error_reason.proto`); show `message` to people.
"""

from __future__ import annotations

from collections.abc import Mapping


class K2Error(Exception):
    """K2 could not do what was asked.

    Attributes:
        reason: what happened, a name of `k2.v1.ErrorReason` without its prefix.
        message: what happened and what to do about it, for a person.
        metadata: details by name.
        retry_after_s: seconds after which another try makes sense; None where none does.
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
    """What the request names does not exist, or no longer."""


class Unavailable(K2Error):
    """A part that the answer needs is missing just now; try again."""


class Overloaded(K2Error):
    """A limit is reached; try later or ask for less."""


class Data(K2Error):
    """What is stored contradicts itself or its source; no retry mends it."""


class Internal(K2Error):
    """A defect in K2."""
