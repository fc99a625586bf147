"""How to read a trade from what some schema wrote: Avro's resolution, worked out once per schema.

A plan is a list of steps in the writer's order. Each reads one column of ours, or passes over a
field that is not ours. A column that is optional may be missing: its rows are null. Resolution is
strict where Avro is lenient about meaning: a decimal of another scale, or a time in another unit,
is no trade of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from k2 import limits
from k2.market import schema
from k2.market.events import Bytes, Fault
from k2.market.schema import Field, Kind
from k2.tape.cursors import Cursors, Rows, for_each_item

Skip: TypeAlias = Callable[[Cursors, Rows], None]

LABELS = "labels"  # the step that reads all label columns at once
NO_SIDE = 255
OPTIONAL_KINDS = (Kind.STRING, Kind.LONG, Kind.TIME)

assert all(field.kind in OPTIONAL_KINDS for field in schema.TRADE.fields if field.nullable), (
    "an optional column of another kind needs a way to be read"
)


@dataclass(frozen=True)
class Step:
    """One move of every cursor.

    Attributes:
        column: what is read: a column of the trade, or `LABELS`; empty for a skipped field.
        kind: the column's type; None for `LABELS` and skipped fields.
        skip: how to pass over a field that is not ours.
        sides: index into `schema.SIDES` of each symbol of the writer's enum, or `NO_SIDE`. uint8[k]
        narrow: whether the writer's type is `int`, so that larger values are wrong.
        optional: whether the column is one that a record may lack.
        value_branch: of an optional column, the branch of the writer's union of null and a value
            that is the value; None where it always writes one.
    """

    column: str
    kind: Kind | None = None
    skip: Skip | None = None
    sides: Bytes | None = None
    narrow: bool = False
    optional: bool = False
    value_branch: int | None = None


class _Unreadable(Exception):
    """The schema cannot give a trade."""


def resolve(written: Mapping[str, Any]) -> tuple[Step, ...] | None:
    """The steps that read a trade from what `written` wrote; None when it cannot give one."""
    names: dict[str, Any] = {}
    try:
        if written.get("type") != "record":
            return None
        _declare(written, names)
        steps = [_step(field, names) for field in written["fields"]]
    except (_Unreadable, KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return None
    needed = {each.name for each in schema.TRADE.fields if each.on_tape and not each.nullable}
    if not needed <= {step.column for step in steps}:
        return None
    lead = tuple(step.column for step in steps[: len(schema.LABEL_COLUMNS)])
    if lead == schema.LABEL_COLUMNS:
        return (Step(LABELS), *steps[len(lead) :])
    return tuple(steps)


def _step(field: Mapping[str, Any], names: dict[str, Any]) -> Step:
    ours = {each.name: each for each in schema.TRADE.fields if each.on_tape}
    wanted = ours.get(field["name"])
    if wanted is None:
        return Step("", skip=_skip(field["type"], names))
    if wanted.nullable:
        return _optional_step(wanted, field["type"], names)
    written = _named(field["type"], names)
    base, details = _base(written)
    if wanted.kind is Kind.SIDE and base == "enum":
        return Step(wanted.name, Kind.SIDE, sides=_sides(details["symbols"]))
    if not _fits(wanted.kind, base, details):
        raise _Unreadable(field["name"])
    return Step(wanted.name, wanted.kind, narrow=base == "int")


def _optional_step(wanted: Field, written: Any, names: dict[str, Any]) -> Step:  # noqa: ANN401 JSON
    """Reads a value, or a union of null and one; any other union is not understood."""
    branch = None
    if isinstance(written, list):
        if len(written) != 2 or "null" not in written:
            raise _Unreadable(wanted.name)
        branch = 1 - written.index("null")
        written = written[branch]
    base, details = _base(_named(written, names))
    if wanted.kind not in OPTIONAL_KINDS or not _fits(wanted.kind, base, details):
        raise _Unreadable(wanted.name)
    return Step(wanted.name, wanted.kind, narrow=base == "int", optional=True, value_branch=branch)


def _fits(kind: Kind, base: str, details: Mapping[str, Any]) -> bool:
    logical = details.get("logicalType")
    if kind is Kind.STRING:
        return base in ("string", "bytes") and logical in (None, "string")
    if kind is Kind.LONG:
        return base in ("int", "long") and logical is None
    if kind is Kind.TIME:
        return base == "long" and logical == "timestamp-micros"
    if kind in (Kind.PRICE, Kind.QUANTITY):
        scale = limits.PRICE_SCALE if kind is Kind.PRICE else limits.QUANTITY_SCALE
        return base == "bytes" and logical == "decimal" and details.get("scale", 0) == scale
    if kind is Kind.LABELS:
        return base == "map" and _base(details["values"])[0] in ("string", "bytes")
    return False


def _base(written: Any) -> tuple[str, Mapping[str, Any]]:  # noqa: ANN401 any JSON
    """Type name and attributes of a type that is written as a name or as an object."""
    if isinstance(written, str):
        return written, {}
    if isinstance(written, Mapping):
        inner = written["type"]
        if isinstance(inner, Mapping):
            return _base(inner)
        return inner, written
    raise _Unreadable("a union where a value is needed")


def _sides(symbols: list[str]) -> Bytes:
    known = {side: index for index, side in enumerate(schema.SIDES)}
    return np.array([known.get(symbol, NO_SIDE) for symbol in symbols], dtype=np.uint8)


# --- names --------------------------------------------------------------------------------------


def _declare(written: Any, names: dict[str, Any], space: str = "") -> None:  # noqa: ANN401 JSON
    """Collect the named types of a schema, by short and by full name."""
    if isinstance(written, list):
        for branch in written:
            _declare(branch, names, space)
    if not isinstance(written, Mapping):
        return
    space = written.get("namespace", space)
    if written.get("type") in ("record", "enum", "fixed"):
        name = written["name"]
        names[name] = names[f"{space}.{name}" if space else name] = written
    for field in written.get("fields", ()):
        _declare(field["type"], names, space)
    for key in ("items", "values", "type"):
        _declare(written.get(key), names, space)


def _named(written: Any, names: dict[str, Any]) -> Any:  # noqa: ANN401 JSON
    return names.get(written, written) if isinstance(written, str) else written


# --- passing over -------------------------------------------------------------------------------


def _skip(written: Any, names: dict[str, Any]) -> Skip:  # noqa: ANN401 JSON
    """How to pass over a value of a type; a recursive type ends in RecursionError."""
    written = _named(written, names)
    if isinstance(written, list):
        return partial(_skip_union, [_skip(branch, names) for branch in written])
    base, details = _base(written)
    if base in _SKIPS:
        return _SKIPS[base]
    if base == "fixed":
        return partial(_skip_bytes, int(details["size"]))
    if base == "record":
        return partial(_skip_all, [_skip(field["type"], names) for field in details["fields"]])
    if base == "array":
        return partial(_skip_blocks, _skip(details["items"], names))
    if base == "map":
        entry = partial(_skip_all, [_SKIPS["string"], _skip(details["values"], names)])
        return partial(_skip_blocks, entry)
    if base != written and base in names:
        return _skip(base, names)
    raise _Unreadable(base)


def _skip_nothing(_cursors: Cursors, _rows: Rows) -> None:
    pass


def _skip_long(cursors: Cursors, rows: Rows) -> None:
    cursors.longs(rows)


def _skip_span(cursors: Cursors, rows: Rows) -> None:
    cursors.spans(rows)


def _skip_bytes(size: int, cursors: Cursors, rows: Rows) -> None:
    cursors.skip(size, rows)


def _skip_all(parts: list[Skip], cursors: Cursors, rows: Rows) -> None:
    for part in parts:
        part(cursors, rows)


def _skip_union(branches: list[Skip], cursors: Cursors, rows: Rows) -> None:
    chosen = cursors.small(rows)
    of = cursors.indices(rows)
    wrong = (chosen < 0) | (chosen >= len(branches))
    if wrong.any():
        cursors.mark(rows, wrong, Fault.BAD_VALUE)
    for index, branch in enumerate(branches):
        taken = of[chosen == index]
        if len(taken):
            branch(cursors, taken)


def _skip_blocks(item: Skip, cursors: Cursors, rows: Rows) -> None:
    for_each_item(cursors, rows, limits.SKIPPED_ITEMS_MAX, partial(item, cursors))


_SKIPS: dict[str, Skip] = {
    "null": _skip_nothing,
    "boolean": partial(_skip_bytes, 1),
    "int": _skip_long,
    "long": _skip_long,
    "enum": _skip_long,
    "float": partial(_skip_bytes, 4),
    "double": partial(_skip_bytes, 8),
    "bytes": _skip_span,
    "string": _skip_span,
}
