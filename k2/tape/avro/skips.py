"""Skips the values of a writer's schema that no column of a trade takes.

Everything but arrays and maps is passed over for all messages at once. Items are passed over
message by message: how many a message has says nothing of its neighbours, so moving all messages
in step would make each pay for the shape of the others. The values of all arrays and maps of a
message are bounded in total (`limits.SKIPPED_VALUES_MAX`), nested ones and those of no size too: a
message with more is BAD_VALUE, and no message takes longer than that many values do.

A schema is bounded as well: one that is nested too deeply, or that spells out too many types (a
record that holds another twice, which holds another twice), cannot be passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from k2 import limits
from k2.market.events import Fault
from k2.tape.avro.cursors import NONE, Cursors, Rows, some

Skip: TypeAlias = Callable[[Cursors, Rows], None]


class Unreadable(Exception):
    """The schema cannot give a trade."""


class _Wrong(Exception):
    """The message does not fit its schema."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.name)
        self.fault = fault


class _Walk:
    """A position in one message, moved value by value.

    Args:
        buffer: of the joined messages.
        at, end: the position, and where the message ends.
        left: values that may still be passed over.
    """

    __slots__ = ("_buffer", "_end", "at", "left")

    def __init__(self, buffer: memoryview, at: int, end: int, left: int) -> None:
        self._buffer = buffer
        self._end = end
        self.at = at
        self.left = left

    def long(self) -> int:
        """Read the next int or long."""
        value = shift = 0
        while True:
            if self.at >= self._end:
                raise _Wrong(Fault.TRUNCATED)
            byte = self._buffer[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise _Wrong(Fault.BAD_VALUE)
        if value >> 64:
            raise _Wrong(Fault.BAD_VALUE)
        return (value >> 1) ^ -(value & 1)

    def skip(self, size: int) -> None:
        """Pass over so many bytes."""
        if size > self._end - self.at:
            raise _Wrong(Fault.TRUNCATED)
        self.at += size

    def count(self, values: int) -> None:
        """Take so many values off those that are left."""
        self.left -= values
        if self.left < 0:
            raise _Wrong(Fault.BAD_VALUE)

    def block(self) -> tuple[int, int | None]:
        """Items of the next block, counted, and where it ends if it says so."""
        items, end = self.long(), None
        if items < 0:
            size = self.long()
            if not 0 <= size <= self._end - self.at:
                raise _Wrong(Fault.TRUNCATED)
            items, end = -items, self.at + size
        self.count(items)
        return items, end


@dataclass(frozen=True)
class _Type:
    """A type of the writer.

    Attributes:
        every: passes over the next value of many messages.
        one: passes over the next value of one message.
        size: bytes of every value; None when they differ.
    """

    every: Skip
    one: Callable[[_Walk], None]
    size: int | None = None


class Skips:
    """Makes the skips of one schema.

    Args:
        names: the named types of the schema.
    """

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self._types = 0

    def skip(self, written: Any) -> Skip:  # noqa: ANN401 any JSON
        """Make what skips a value of a type.

        Raises:
            Unreadable: the type is recursive, unknown or beyond the bounds.
        """
        return self._type(written, 0).every

    def _type(self, written: Any, depth: int) -> _Type:  # noqa: ANN401 any JSON
        self._types += 1
        if self._types > limits.SCHEMA_TYPES_MAX or depth > limits.SCHEMA_DEPTH_MAX:
            raise Unreadable("too many types")
        written = named(written, self._names)
        if isinstance(written, list):
            return _union([self._type(branch, depth + 1) for branch in written])
        base, details = base_of(written)
        if base in _SIMPLE:
            return _SIMPLE[base]
        if base == "fixed":
            return _fixed(details["size"])
        if base == "record":
            return _record([self._type(field["type"], depth + 1) for field in details["fields"]])
        if base == "array":
            return _blocks(self._type(details["items"], depth + 1))
        if base == "map":
            value = self._type(details["values"], depth + 1)
            return _blocks(_record([_SIMPLE["string"], value]))
        if base != written and base in self._names:
            return self._type(base, depth + 1)
        raise Unreadable(base)


def named(written: Any, names: Mapping[str, Any]) -> Any:  # noqa: ANN401 any JSON
    """Resolve a type's name; any other type is itself."""
    return names.get(written, written) if isinstance(written, str) else written


def base_of(written: Any) -> tuple[str, Mapping[str, Any]]:  # noqa: ANN401 any JSON
    """Type name and attributes of a type that is written as a name or as an object."""
    if isinstance(written, str):
        return written, {}
    if isinstance(written, Mapping):
        inner = written["type"]
        if isinstance(inner, Mapping):
            return base_of(inner)
        return inner, written
    raise Unreadable("a union where a value is needed")


# --- values of one size, and of a length or a varint --------------------------------------------


def _fixed(size: object) -> _Type:
    if type(size) is not int or not 0 <= size <= limits.RECORD_BYTES_MAX:
        raise Unreadable("a size that no record has")
    return _Type(partial(_skip_bytes, size), lambda walk: walk.skip(size), size)


def _skip_bytes(size: int, cursors: Cursors, rows: Rows) -> None:
    if size:
        cursors.skip(size, rows)


def _skip_long(cursors: Cursors, rows: Rows) -> None:
    cursors.longs(rows)


def _skip_span(cursors: Cursors, rows: Rows) -> None:
    cursors.spans(rows)


def _walk_long(walk: _Walk) -> None:
    walk.long()


def _walk_span(walk: _Walk) -> None:
    size = walk.long()
    if size < 0:
        raise _Wrong(Fault.BAD_VALUE)
    walk.skip(size)


_LONG = _Type(_skip_long, _walk_long)
_SPAN = _Type(_skip_span, _walk_span)
_SIMPLE = {
    "null": _fixed(0),
    "boolean": _fixed(1),
    "float": _fixed(4),
    "double": _fixed(8),
    "int": _LONG,
    "long": _LONG,
    "enum": _LONG,
    "bytes": _SPAN,
    "string": _SPAN,
}


# --- values of values ---------------------------------------------------------------------------


def _record(parts: list[_Type]) -> _Type:
    sizes = [part.size for part in parts if part.size is not None]
    size = sum(sizes) if len(sizes) == len(parts) else None
    if size is not None:
        return _fixed(size)
    return _Type(partial(_skip_all, parts), partial(_walk_all, parts))


def _skip_all(parts: list[_Type], cursors: Cursors, rows: Rows) -> None:
    for part in parts:
        part.every(cursors, rows)


def _walk_all(parts: list[_Type], walk: _Walk) -> None:
    walk.count(len(parts))
    for part in parts:
        part.one(walk)


def _union(branches: list[_Type]) -> _Type:
    return _Type(partial(_skip_union, branches), partial(_walk_union, branches))


def _skip_union(branches: list[_Type], cursors: Cursors, rows: Rows) -> None:
    chosen = cursors.small(rows)
    of = cursors.indices(rows)
    wrong = (chosen < 0) | (chosen >= len(branches))
    if wrong.any():
        cursors.mark(rows, wrong, Fault.BAD_VALUE)
    for index, branch in enumerate(branches):
        taken = of[chosen == index]
        if len(taken):
            branch.every(cursors, taken)


def _walk_union(branches: list[_Type], walk: _Walk) -> None:
    chosen = walk.long()
    if not 0 <= chosen < len(branches):
        raise _Wrong(Fault.BAD_VALUE)
    branches[chosen].one(walk)


def _blocks(item: _Type) -> _Type:
    return _Type(partial(_skip_blocks, item), partial(_walk_blocks, item))


def _skip_blocks(item: _Type, cursors: Cursors, rows: Rows) -> None:
    chosen = cursors.indices(rows)
    chosen = chosen[cursors.fault[chosen] == NONE]
    position, end = cursors.position[chosen], cursors.end[chosen]
    empty = (position < end) & (cursors.joined.buffer[position] == 0)
    cursors.position[chosen[empty]] += 1
    if some(empty) == len(empty):
        return
    buffer = cursors.joined.buffer.data
    for row in chosen[~empty].tolist():
        left = limits.SKIPPED_VALUES_MAX - int(cursors.passed[row])
        walk = _Walk(buffer, int(cursors.position[row]), int(cursors.end[row]), left)
        try:
            _walk_blocks(item, walk)
        except _Wrong as error:
            cursors.fault[row] = error.fault
            cursors.position[row] = cursors.end[row]
        else:
            cursors.position[row] = walk.at
            cursors.passed[row] += left - walk.left


def _walk_blocks(item: _Type, walk: _Walk) -> None:
    while True:
        items, end = walk.block()
        if items == 0:
            return
        if item.size is not None:
            walk.skip(items * item.size)
        else:
            for _ in range(items):
                item.one(walk)
        if end is not None and walk.at != end:
            raise _Wrong(Fault.BAD_VALUE)
