"""Formats Arrow columns as exact text: plain decimals, ISO 8601 times, ids as digits, no floats.

It converts whole columns at once, because a wide export has millions of rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc


def texts(column: pa.Array) -> pa.Array:
    """Convert a column to strings; nulls stay null."""
    kind = column.type
    if pa.types.is_decimal(kind):
        return _decimals(column)
    if pa.types.is_timestamp(kind):
        return _times(column)
    if pa.types.is_map(kind) and not len(column.keys):
        return pa.repeat("{}", len(column))
    if pa.types.is_nested(kind):
        return pa.array([json.dumps(_plain(value)) for value in column.to_pylist()], pa.string())
    return column.cast(pa.string())


def json_values(column: pa.Array) -> list[object]:
    """Convert a column to JSON values: 64-bit integers, decimals and times are strings."""
    kind = column.type
    if pa.types.is_map(kind):
        return [_plain(value) for value in column.to_pylist()]
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind) or pa.types.is_int64(kind):
        column = texts(column)
    values: list[object] = column.to_pylist()
    return values


def text_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Convert every column of a batch to text."""
    return pa.RecordBatch.from_arrays([texts(column) for column in batch], batch.schema.names)


def json_objects(batch: pa.RecordBatch) -> Iterator[dict[str, object]]:
    """Yield each row of a batch as a JSON object."""
    names = batch.schema.names
    columns = [json_values(column) for column in batch]
    for row in zip(*columns, strict=True):
        yield dict(zip(names, row, strict=True))


def json_rows(batch: pa.RecordBatch) -> list[str]:
    """Format each row of a batch as a JSON object on one line."""
    dump: Callable[[object], str] = json.JSONEncoder(ensure_ascii=False).encode
    return [dump(row) for row in json_objects(batch)]


def csv_lines(batch: pa.RecordBatch, separator: str = ",") -> list[str]:
    """Format each row of a batch as a CSV record (RFC 4180), quoted where necessary."""
    columns = [_quoted(texts(column), separator) for column in batch]
    if not columns:
        return []
    joined = pc.binary_join_element_wise(
        *columns, separator, null_handling="replace", null_replacement=""
    )
    lines: list[str] = joined.to_pylist()
    return lines


def _quoted(column: pa.Array, separator: str) -> pa.Array:
    special = pc.fill_null(pc.match_substring_regex(column, f'["{separator}\\r\\n]'), False)
    if not pc.any(special).as_py():
        return column
    doubled = pc.replace_substring(column, '"', '""')
    return pc.if_else(special, pc.binary_join_element_wise('"', doubled, '"', ""), column)


def _decimals(column: pa.Array) -> pa.Array:
    # Arrow writes small values as 1E-8: exact, but not the form of venues and spreadsheets.
    written = column.cast(pa.string())
    scientific = pc.fill_null(pc.match_substring(written, "E"), False)
    if not pc.any(scientific).as_py():
        return written
    plain = [format(Decimal(text), "f") for text in written.filter(scientific).to_pylist()]
    return pc.replace_with_mask(written, scientific, pa.array(plain, pa.string()))


def _times(column: pa.Array) -> pa.Array:
    # Through integers, because a cast with a zone needs the machine's zone database.
    naive = column.cast(pa.timestamp("us", column.type.tz)).view(pa.int64())
    spaced = naive.view(pa.timestamp("us")).cast(pa.string())
    return pc.binary_join_element_wise(pc.replace_substring(spaced, " ", "T"), "Z", "")


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, list) else value
