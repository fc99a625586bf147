"""Reads data files of one partition and writes their rows as one, in the layout of the table.

Rows stay Arrow columns all the way, so every column of every row is the same before and after,
its place on the tape among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from k2.errors import Data, Reason
from k2.lake.commit.committer import Store
from k2.lake.iceberg.catalog import reaching_lake
from k2.lake.maintenance.compaction import LiveFile


def rewrite(
    table: Table, files: Sequence[LiveFile], name: str, store: Store
) -> tuple[DataFile, int] | None:
    """Write the rows of several files as one, durable when this returns.

    Args:
        table: whose files they are.
        files: of one partition.
        name: unlike any other commit's; the new file's.
        store: of the table.

    Returns:
        The new file, and how many of the files, from the first on, it holds: where their rows take
        more memory than a pass may, fewer than all. None when not even two fit.

    Raises:
        Data: LAKE_CORRUPT when a file is not as K2 writes it.
        Unavailable: LAKE_UNAVAILABLE; Overloaded: DISK_FULL.
    """
    target = _columns_of(table.schema(), store)
    pieces: list[pa.Table] = []
    size = 0
    for file in files:
        piece = _read(table, file.location, target)
        size += piece.nbytes
        if size > store.layout.merged_bytes_max:
            break
        pieces.append(piece)
    if len(pieces) < 2:
        return None
    count, rows = len(pieces), pa.concat_tables(pieces).unify_dictionaries().combine_chunks()
    pieces.clear()
    with reaching_lake():
        return store.write_sorted(table, rows, name, Record(*files[0].partition)), count


def _columns_of(icebergs: Schema, store: Store) -> pa.Schema:
    """All columns of the table; also those that only a later K2 knows: a merge must keep them."""
    known = store.columns(icebergs)
    later = [one for one in schema_to_pyarrow(icebergs) if one.name not in known.names]
    return pa.schema([*known, *later])


def _read(table: Table, location: str, target: pa.Schema) -> pa.Table:
    texts = [field.name for field in target if pa.types.is_dictionary(field.type)]
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
