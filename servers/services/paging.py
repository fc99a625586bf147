"""Cuts lists into pages (AIP-158): of bounded size, with a token that marks where a page ended.

A token holds the key of the last item sent, not a count, so items added or removed between two
pages neither repeat nor hide others.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from k2 import limits
from k2.errors import Invalid, Reason

Item = TypeVar("Item")
Key = TypeVar("Key", int, str)


def page(
    items: Iterable[Item], key: Callable[[Item], Key], size: int, token: str
) -> tuple[list[Item], str]:
    """Return the page after `token`, and the token of the next one, empty when this is the last.

    Args:
        items: all items, in any order.
        key: what they are sorted by; distinct for each item.
        size: requested items per page; 0 takes the default, too many are cut to the maximum.
        token: of the page before; empty for the first.

    Raises:
        Invalid: BAD_REQUEST for a negative size, BAD_PAGE_TOKEN for a token no page gave.
    """
    size = _size(size)
    ordered = sorted(items, key=key)
    if token:
        kind = type(key(ordered[0])) if ordered else None
        after = _read(token, kind)
        ordered = [item for item in ordered if key(item) > after]
    if len(ordered) <= size:
        return ordered, ""
    return ordered[:size], _write(key(ordered[size - 1]))


def page_of_newest(
    newest: Callable[[int | None], Iterator[Item]],
    key: Callable[[Item], int],
    size: int,
    token: str,
) -> tuple[list[Item], str]:
    """Return a page of items read in descending order of their key, reading no further than needed.

    Args:
        newest: the items below a key, or all, the greatest first.
        key: distinct for each item.
        size: as in `page`.
        token: as in `page`.

    Raises:
        Invalid: as in `page`.
    """
    size = _size(size)
    below = _read(token, int) if token else None
    items = list(islice(newest(below), size + 1))
    if len(items) <= size:
        return items, ""
    return items[:size], _write(key(items[size - 1]))


def _size(asked: int) -> int:
    if asked < 0:
        raise Invalid(
            Reason.BAD_REQUEST, f"page_size {asked} is negative", metadata={"field": "page_size"}
        )
    return min(asked or limits.PAGE_SIZE_DEFAULT, limits.PAGE_SIZE_MAX)


def _write(key: int | str) -> str:
    return base64.urlsafe_b64encode(json.dumps({"after": key}).encode()).decode()


def _read(token: str, kind: type | None) -> Any:  # noqa: ANN401 the kind of the key
    try:
        after = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))["after"]
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise _bad() from None
    if kind is not None and type(after) is not kind:
        raise _bad()
    return after


def _bad() -> Invalid:
    return Invalid(
        Reason.BAD_PAGE_TOKEN,
        "page_token is not one that this list gave: start with the first page",
        metadata={"field": "page_token"},
    )
