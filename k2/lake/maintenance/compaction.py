"""Plans which data files are merged, and merges them: few reads per query, few rewrites per row.

A commit every ten seconds leaves 8,640 files a day. Within an Iceberg partition (of trades, a day
of one exchange), files are sorted into size classes, each eight times the one below; when eight of
a class are there, they are merged into one of the next. So a row is rewritten once per class, and a
partition has at most seven files per class besides the full ones, which are not merged.

When a day is over and quiet, the files left in its classes are merged further: any run of smallest
files of which the largest is at most eight times the others together. So a late trade does not
cause a large file to be rewritten, and the remaining files grow eightfold from one to the next.

Merged rows stay Arrow columns throughout, so every column of every row is the same before and
after, its place on the tape included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from k2 import limits
from k2.errors import Data, Reason
from k2.lake.commit.committer import Store
from k2.lake.iceberg.catalog import reaching_lake
from k2.lake.iceberg.file_stats import LiveFile
from k2.lake.iceberg.manifests import size_class
from k2.market.events import DAY_US


def plan_compaction(
    files: Iterable[LiveFile], now_us: int, target_bytes: int, rows_max: int
) -> list[tuple[LiveFile, ...]]:
    """Group the files to merge, each group into one file; a file is in one group at most.

    Args:
        files: of one snapshot.
        now_us: the time.
        target_bytes: files of half that size are full.
        rows_max: of a merged file; files of half that are full.

    Returns:
        Groups of two files or more of one partition, within the bounds of a pass, those with the
            most files first.
    """
    partitions: dict[tuple[int | str, ...], list[LiveFile]] = {}
    for file in files:
        if file.rows < rows_max // 2 and file.size_bytes < target_bytes // 2:
            partitions.setdefault(file.partition, []).append(file)
    groups = []
    for small in partitions.values():
        small.sort(key=lambda file: (file.rows, file.location))
        crowded = _crowded(small, rows_max)
        quiet_us = (small[0].day + 1) * DAY_US + limits.COMPACT_QUIET_S * 1_000_000
        if not crowded and quiet_us <= now_us:
            crowded = _remaining(small, rows_max)
        groups += crowded
    return sorted(groups, key=len, reverse=True)


def _crowded(files: Sequence[LiveFile], rows_max: int) -> list[tuple[LiveFile, ...]]:
    """Take, of each class with enough files, as many as one pass takes."""
    classes: dict[int, list[LiveFile]] = {}
    for file in files:
        classes.setdefault(size_class(file.rows, limits.COMPACT_FILES_TO_MERGE), []).append(file)
    chosen = [
        _bounded(files_of, rows_max)
        for files_of in classes.values()
        if len(files_of) >= limits.COMPACT_FILES_TO_MERGE
    ]
    return [group for group in chosen if len(group) > 1]


def _remaining(files: Sequence[LiveFile], rows_max: int) -> list[tuple[LiveFile, ...]]:
    """Take the smallest files, up to the last that is not much larger than those before it."""
    rows, count = 0, 0
    group = _bounded(files, rows_max)
    for number, file in enumerate(group):
        if number and file.rows <= limits.COMPACT_FILES_TO_MERGE * rows:
            count = number + 1
        rows += file.rows
    return [group[:count]] if count else []


def _bounded(files: Sequence[LiveFile], rows_max: int) -> tuple[LiveFile, ...]:
    """Take the first files, as many as one pass takes."""
    rows, count = 0, 0
    for file in files[: limits.COMPACT_FILES_MAX]:
        rows += file.rows
        if rows > rows_max:
            break
        count += 1
    return tuple(files[:count])


# --- merging --------------------------------------------------------------------------------------


def rewrite(
    table: Table, files: Sequence[LiveFile], name: str, store: Store
) -> tuple[DataFile, int] | None:
    """Write the rows of several files as one, durable when this returns.

    Args:
        table: whose files they are.
        files: of one partition.
        name: the new file's, unique among commits.
        store: of the table.

    Returns:
        The new file, and how many of the files, from the first on, it holds: fewer than all where
            their rows take more memory than a pass may use. None when not even two fit.

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
    """List all columns of the table: a merge keeps also those that only a later K2 knows."""
    known = store.columns(icebergs)
    later = [field for field in schema_to_pyarrow(icebergs) if field.name not in known.names]
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
    """Read a column of a file; null where it was written without an optional one."""
    if field.nullable and field.name not in rows.schema.names:
        return pa.chunked_array([pa.nulls(len(rows), field.type)])
    return rows.column(field.name).cast(field.type)
