"""Defines the cursor of a next page: the question, the read token of its answer, and a position.

A page ends with a row. The next page asks for the same answer, by its token, from the time of that
row on, and leaves out the rows of that time that were sent already: the order of rows is total, so
both pages are parts of one answer, however much is committed in between. Rows of a shape without
times of their own are counted from the start.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import pyarrow as pa

from k2 import limits
from k2client.errors import Invalid

PREFIX: Final = "k2c1."
PATTERN: Final = r"^k2c1\.[A-Za-z0-9_-]*$"
_FIELDS: Final[dict[str, tuple[type, ...]]] = {
    "path": (str,),
    "asked": (dict,),
    "token": (str,),
    "start_us": (int, type(None)),
    "end_us": (int, type(None)),
    "skip": (int,),
}


@dataclass(frozen=True)
class Cursor:
    """Where the next page of an answer begins.

    Attributes:
        path: of the request.
        asked: its parameters, those of a page aside.
        token: of the answer.
        start_us, end_us: the range of event times that is left; None: unbounded.
        skip: rows at its beginning that were sent already.
    """

    path: str
    asked: Mapping[str, Any]
    token: str
    start_us: int | None
    end_us: int | None
    skip: int

    def encode(self) -> str:
        """Write it as text for a URL."""
        content = json.dumps(dataclasses.asdict(self), separators=(",", ":")).encode()
        return PREFIX + base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read it.

        Raises:
            Invalid: BAD_PAGE_TOKEN.
        """
        found: Any = None
        if text.startswith(PREFIX) and len(text) <= limits.EDGE_CURSOR_CHARS_MAX:
            packed = text.removeprefix(PREFIX)
            try:
                found = json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
            except (ValueError, binascii.Error, RecursionError):
                found = None
        fits = isinstance(found, dict) and found.keys() == _FIELDS.keys()
        if not fits or any(type(found[name]) not in kinds for name, kinds in _FIELDS.items()):
            raise Invalid("BAD_PAGE_TOKEN", "cursor: this is none: take next_cursor of an answer")
        if not 0 <= found["skip"] < limits.LIMIT_ROWS_MAX:
            raise Invalid("BAD_PAGE_TOKEN", "cursor: its position is out of bounds")
        return cls(**found)

    def after(self, sent_us: pa.Array | None, count: int, *, newest_first: bool) -> Cursor:
        """Return the cursor after a page.

        Args:
            sent_us: the event times of its rows, microseconds; None: its rows are counted.
            count: its rows.
            newest_first: the order of event times.
        """
        if sent_us is None:
            return dataclasses.replace(self, skip=self.skip + count)
        times = sent_us.to_pylist()
        last = times[-1]
        ties = next((n for n, at in enumerate(reversed(times)) if at != last), len(times))
        edge_us = None if self.end_us is None else self.end_us - 1
        goes_on = ties == len(times) and last == (edge_us if newest_first else self.start_us)
        skip = ties + (self.skip if goes_on else 0)
        if newest_first:
            return dataclasses.replace(self, end_us=last + 1, skip=skip)
        return dataclasses.replace(self, start_us=last, skip=skip)
