"""Reads data files of one partition and writes their rows as one, in the layout of `writer.py`.

Rows stay Arrow columns all the way, so every column of every row is the same before and after,
its place on the tape among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table

from k2 import limits
from k2.errors import Data, Reason
from k2.lake.catalog import reaching_lake
from k2.lake.compact import LiveFile
from k2.lake.writer import parquet_schema, row_order, write_sorted
from k2.market import schema
from k2.market.events import Int64s


def rewrite(table: Table, files: Sequence[LiveFile], name: str) -> tuple[DataFile, int] | None:
    """Write the rows of several files as one, durable when this returns.

    Args:
        table: whose files they are.
        files: of one partition.
        name: unlike any other commit's; the new file's.

    Returns:
        The new file, and how many of the files, from the first on, it holds: where their rows take
        more memory than a pass may, fewer than all. None when not even two fit.

    Raises:
        Data: LAKE_CORRUPT when a file is not as K2 writes it.
        Unavailable: LAKE_UNAVAILABLE; Overloaded: DISK_FULL.
    """
    target = _columns_of(table.schema())
    pieces: list[pa.Table] = []
    size = 0
    for file in files:
        piece = _read(table, file.location, target)
        size += piece.nbytes
        if size > limits.COMPACT_MEMORY_MAX:
            break
        pieces.append(piece)
    if len(pieces) < 2:
        return None
    count, rows = len(pieces), pa.concat_tables(pieces).unify_dictionaries().combine_chunks()
    pieces.clear()
    place = files[0].day, files[0].exchange
    with reaching_lake():
        return write_sorted(table, rows.take(pa.array(_order(rows))), name, place), count


def _columns_of(icebergs: Schema) -> pa.Schema:
    """All columns of the table; also those that only a later K2 knows: a merge must keep them."""
    known = parquet_schema(icebergs)
    later = [one for one in schema_to_pyarrow(icebergs) if one.name not in known.names]
    return pa.schema([*known, *later])


def _read(table: Table, location: str, target: pa.Schema) -> pa.Table:
    texts = [*schema.LABEL_COLUMNS, "side"]
    try:
        with reaching_lake(), table.io.new_input(location).open() as stream:
            rows = pq.ParquetFile(stream, read_dictionary=texts).read(columns=target.names)
        columns = [_column(rows, field) for field in target]
        return pa.Table.from_arrays(columns, schema=target)
    except (pa.ArrowInvalid, KeyError) as error:
        raise Data(Reason.LAKE_CORRUPT, f"{location} cannot be read: {error}") from error


def _column(rows: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    """A column of a file; null where it was written without an optional one."""
    if field.nullable and field.name not in rows.schema.names:
        return pa.chunked_array([pa.nulls(len(rows), field.type)])
    return rows.column(field.name).cast(field.type)


def _order(rows: pa.Table) -> Int64s:
    """The order of (symbol, event_time, trade_id); `rows` is in one chunk."""
    symbol = rows.column("symbol").chunk(0)
    names = symbol.dictionary.to_pylist()
    rank = np.empty(len(names), dtype=np.int32)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    time = rows.column("event_time").chunk(0).view(pa.int64()).to_numpy()
    return row_order(rank[symbol.indices.to_numpy()], time, rows["trade_id"].chunk(0).to_numpy())
