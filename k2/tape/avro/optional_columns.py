"""Optional columns: read where a message's writer knew them, null everywhere else.

A writer says in its schema that a value may be null (a union of null and the value) or that it
always writes one; the schema of an older writer lacks the column. So one batch may hold all three.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.market import schema
from k2.market.events import Bytes, Fault
from k2.market.schema import Kind
from k2.tape.avro.cursors import (
    ALL,
    NONE,
    Cursors,
    gather,
    not_text,
    some,
    text_array,
)
from k2.tape.avro.resolution import ReadStep

Indices = npt.NDArray[np.intp]
_INT_MAX = (1 << 31) - 1


def read_optional(cursors: Cursors, step: ReadStep) -> pa.Array:
    """Read the next value, or null, of every message."""
    present = cursors.indices(ALL)
    if step.value_branch is not None:
        branch = cursors.small()
        wrong = (branch < 0) | (branch > 1)
        if some(wrong):
            cursors.mark(ALL, wrong, Fault.BAD_VALUE)
        present = np.flatnonzero(branch == step.value_branch)
    kind = schema.arrow_schema(schema.TRADE).field(step.column).type
    read = _texts if step.kind is Kind.STRING else _longs
    values = read(cursors, present, step).cast(kind)
    at = np.full(len(cursors), -1, dtype=np.int64)
    at[present] = np.arange(len(present))
    return values.take(pa.array(at, mask=at < 0))


def _longs(cursors: Cursors, rows: Indices, step: ReadStep) -> pa.Array:
    values = cursors.longs(rows)
    if step.narrow:
        beyond = (values > _INT_MAX) | (values < -_INT_MAX - 1)
        cursors.mark(rows, beyond, Fault.BAD_VALUE)
        values[beyond] = 0
    return pa.array(values)


def _texts(cursors: Cursors, rows: Indices, step: ReadStep) -> pa.Array:
    start, length = cursors.spans(rows)
    data, bounds = gather(cursors.joined, start, length)
    bad = not_text(data, bounds)
    if len(bad):
        cursors.mark(rows, np.isin(np.arange(len(rows)), bad), Fault.BAD_VALUE)
        length[bad] = 0
        data, bounds = gather(cursors.joined, start, length)
    return text_array(data, bounds)


Part = tuple[Indices, dict[str, pa.Array]]  # rows of a batch, and what was read of them


def assembled(parts: Sequence[Part], fault: Bytes) -> pa.StructArray | None:
    """Join the optional columns of a batch, null where there is a fault; None when all are null.

    Args:
        parts: what each schema's messages gave.
        fault: of each record of the batch. uint8[n]
    """
    if not any(cells for _, cells in parts):
        return None
    rows = np.concatenate([of for of, _ in parts])
    at = np.full(len(fault), -1, dtype=np.int64)
    at[rows] = np.arange(len(rows))
    chosen = pa.array(at, mask=(at < 0) | (fault != NONE))
    kinds = list(schema.optional_type(schema.TRADE))
    columns = [_column(kind, parts).take(chosen) for kind in kinds]
    if all(column.null_count == len(fault) for column in columns):
        return None
    return pa.StructArray.from_arrays(columns, fields=kinds)


def _column(kind: pa.Field, parts: Sequence[Part]) -> pa.Array:
    return pa.concat_arrays(
        [
            cells[kind.name] if kind.name in cells else pa.nulls(len(rows), kind.type)
            for rows, cells in parts
        ]
    )
