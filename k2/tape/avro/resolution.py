"""Avro schema resolution: plans, once per schema, how to read a trade of a writer's schema.

A plan is a list of steps in the writer's order. Each reads one column of ours, or passes over a
field that is not ours. A column that is optional may be missing: its rows are null. Resolution is
strict where Avro is lenient about meaning: a decimal of another scale, or a time in another unit,
is no trade of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from k2 import limits
from k2.market import schema
from k2.market.events import Bytes
from k2.market.schema import Field, Kind
from k2.tape.avro.skips import Skip, Skips, Unreadable, base_of, named

LABELS = "labels"  # the step that reads all label columns at once
NO_SIDE = 255
OPTIONAL_KINDS = (Kind.STRING, Kind.LONG, Kind.TIME)

assert all(field.kind in OPTIONAL_KINDS for field in schema.TRADE.fields if field.nullable), (
    "an optional column of another kind needs a way to be read"
)


@dataclass(frozen=True)
class ReadStep:
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


def resolve(written: Mapping[str, Any]) -> tuple[ReadStep, ...] | None:
    """Plan the steps that read a trade of `written`; None when it cannot give one."""
    names: dict[str, Any] = {}
    try:
        if written.get("type") != "record":
            return None
        _declare(written, names)
        skips = Skips(names)
        steps = [_step(field, names, skips) for field in written["fields"]]
    except (Unreadable, KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return None
    needed = {each.name for each in schema.TRADE.fields if each.on_tape and not each.nullable}
    if not needed <= {step.column for step in steps}:
        return None
    lead = tuple(step.column for step in steps[: len(schema.LABEL_COLUMNS)])
    if lead == schema.LABEL_COLUMNS:
        return (ReadStep(LABELS), *steps[len(lead) :])
    return tuple(steps)


def _step(field: Mapping[str, Any], names: dict[str, Any], skips: Skips) -> ReadStep:
    ours = {each.name: each for each in schema.TRADE.fields if each.on_tape}
    wanted = ours.get(field["name"])
    if wanted is None:
        return ReadStep("", skip=skips.skip(field["type"]))
    if wanted.nullable:
        return _optional_step(wanted, field["type"], names)
    written = named(field["type"], names)
    base, details = base_of(written)
    if wanted.kind is Kind.SIDE and base == "enum":
        return ReadStep(wanted.name, Kind.SIDE, sides=_sides(details["symbols"]))
    if not _fits(wanted.kind, base, details):
        raise Unreadable(field["name"])
    return ReadStep(wanted.name, wanted.kind, narrow=base == "int")


def _optional_step(wanted: Field, written: Any, names: dict[str, Any]) -> ReadStep:  # noqa: ANN401 JSON
    """Plan reading a value, or a union of null and one; any other union is not understood."""
    branch = None
    if isinstance(written, list):
        if len(written) != 2 or "null" not in written:
            raise Unreadable(wanted.name)
        branch = 1 - written.index("null")
        written = written[branch]
    base, details = base_of(named(written, names))
    if wanted.kind not in OPTIONAL_KINDS or not _fits(wanted.kind, base, details):
        raise Unreadable(wanted.name)
    return ReadStep(
        wanted.name, wanted.kind, narrow=base == "int", optional=True, value_branch=branch
    )


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
    if kind is Kind.MAP:
        return base == "map" and base_of(details["values"])[0] in ("string", "bytes")
    return False


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
