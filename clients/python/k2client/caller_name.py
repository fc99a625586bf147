"""The name that calls carry in place of their connection's own, while a block lasts.

A program that calls K2 for others names each of them, so that K2 bounds each and not all together.
The name holds in the context of the block: in its task, and in a thread that is given its context.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

CLIENT_HEADER = "k2-client-id"

_name: ContextVar[str] = ContextVar("k2_caller_name", default="")


@contextmanager
def calling_for(name: str) -> Iterator[None]:
    """Send the calls of the block in this name; empty: in that of their connection."""
    token = _name.set(name)
    try:
        yield
    finally:
        _name.reset(token)


def caller_name() -> str:
    """Return the name that holds here; empty for that of the connection."""
    return _name.get()
