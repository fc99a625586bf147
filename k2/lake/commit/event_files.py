"""Rows of the ops tables: plain Arrow tables, written as files and read back in pages.

Ops events are few, so their files need no special layout; the commit (`committer.py`) is that of
the trades. A file holds events of one day, of one commit or of several that were merged. Pages are
read from the newest file back, by offset on the tape, so that the cost of a page does not depend on
the length of the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import (
    AlwaysTrue,
    And,
    EqualTo,
    GreaterThanOrEqual,
    In,
    LessThan,
)
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from k2.errors import Data, Reason
from k2.lake.commit.committer import PartitionBatch
from k2.lake.commit.trade_files import stored
from k2.lake.iceberg.catalog import reaching_lake
from k2.lake.iceberg.snapshot import current_of
from k2.lake.iceberg.tables import TableLayout, assert_ours
from k2.market.events import DAY_US

Row: TypeAlias = dict[str, Any]
Condition: TypeAlias = tuple[str, str, Any]

_FIELD_ID = b"PARQUET:field_id"
_POSITION = ("tape_epoch", "tape_offset")
_EPOCH_BITS = 48  # no topic gets so many records in one life


class OpsStore:
    """Writes rows of `layout.columns` to files of an ops table; a `Store`."""

    def __init__(self, layout: TableLayout) -> None:
        self.layout = layout

    def write(
        self, pieces: Sequence[PartitionBatch], epoch: int, table: Table, name: str
    ) -> list[DataFile]:
        """Write one file for each day; the rows hold their epoch."""
        parts = [rows for piece in pieces for rows in piece.accepted]
        if not parts:
            return []
        rows = pa.concat_tables(parts).cast(self.columns(table.schema()))
        days = rows.column(self.layout.day_of).cast(pa.int64()).to_numpy() // DAY_US
        return [
            self.write_sorted(table, rows.filter(pa.array(days == day)), name, Record(day))
            for day in np.unique(days).tolist()
        ]

    def columns(self, icebergs: Schema) -> pa.Schema:
        """Return the layout's columns with the table's field ids."""
        ids = {field.name: str(field.field_id) for field in icebergs.fields}
        return pa.schema(
            [field.with_metadata({_FIELD_ID: ids[field.name]}) for field in self.layout.columns]
        )

    def write_sorted(self, table: Table, rows: pa.Table, name: str, partition: Record) -> DataFile:
        """Write rows in the layout's order."""
        ordered = rows.sort_by([(name, "ascending") for name in self.layout.sorted_by])
        return stored(table, partition, *_parquet(ordered), name)


def _parquet(rows: pa.Table) -> tuple[memoryview, pq.FileMetaData]:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, rows.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(rows)
    return memoryview(sink.getvalue()), writer.writer.metadata


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpsView:
    """One snapshot of an ops table.

    Attributes:
        epoch: of the tape.
        position: the tape offset of that epoch below which it holds every event.
        retained_from_us: time below which lake retention has removed rows; None while it has not.
    """

    epoch: int
    position: int
    _table: Table
    _snapshot_id: int
    retained_from_us: int | None = None

    def newest(
        self,
        columns: Sequence[str],
        conditions: Sequence[Condition] = (),
        below: int | None = None,
    ) -> Iterator[Row]:
        """Iterate over rows from the newest on the tape to the oldest; files are read as needed.

        Args:
            columns: to read; `tape_epoch` and `tape_offset` are always included.
            conditions: (column, operator, value) that all hold; operators are ==, <, >= and in.
            below: a place (`place`); rows at or above it are left out.

        Raises:
            Unavailable: LAKE_UNAVAILABLE.
            Data: LAKE_CORRUPT when another engine wrote delete files, or a file cannot be read.
        """
        wanted = [*dict.fromkeys([*columns, *_POSITION])]
        end = 2**63 if below is None else below
        files = sorted((file for file in self._files(conditions) if file.low < end), reverse=True)
        held: list[Row] = []
        for number, file in enumerate(files, start=1):
            rows = self._read(file.location, wanted, conditions)
            held += [row for row in rows if place_of(row) < end]
            held.sort(key=place_of)
            ceiling = files[number].high if number < len(files) else -1
            while held and place_of(held[-1]) > ceiling:
                yield held.pop()

    def _files(self, conditions: Sequence[Condition]) -> list[_File]:
        """Plan the files that may hold such rows."""
        filters = [_FILTERS[operator](column, value) for column, operator, value in conditions]
        row_filter = And(AlwaysTrue(), AlwaysTrue(), *filters)
        with reaching_lake():
            tasks = [
                *self._table.scan(row_filter=row_filter, snapshot_id=self._snapshot_id).plan_files()
            ]
        if any(task.delete_files for task in tasks):
            raise Data(Reason.LAKE_CORRUPT, "another engine wrote delete files; K2 reads none")
        fields = [self._table.schema().find_field(name).field_id for name in _POSITION]
        return [
            _File(
                _bound(task.file.upper_bounds or {}, fields, 2**63 - 1),
                _bound(task.file.lower_bounds or {}, fields, 0),
                task.file.file_path,
            )
            for task in tasks
        ]

    def _read(
        self, location: str, columns: Sequence[str], conditions: Sequence[Condition]
    ) -> list[Row]:
        try:
            with reaching_lake(), self._table.io.new_input(location).open() as stream:
                rows = pq.read_table(stream, columns=columns, filters=list(conditions) or None)
        except (pa.ArrowInvalid, KeyError) as error:
            raise Data(Reason.LAKE_CORRUPT, f"{location} cannot be read: {error}") from error
        listed: list[Row] = rows.to_pylist()
        return listed


def view_of(catalog: SqlCatalog, layout: TableLayout) -> OpsView | None:
    """Open the newest snapshot of an ops table; None while there is none.

    Raises:
        Unavailable: LAKE_UNAVAILABLE.
        Data: LAKE_CORRUPT.
    """
    try:
        with reaching_lake():
            table = catalog.load_table(layout.identifier)
    except NoSuchTableError:
        return None
    assert_ours(table, layout)
    snapshot = current_of(table.metadata)
    if snapshot is None:
        return None
    positions = snapshot.positions
    return OpsView(
        positions.epoch,
        positions[0],
        table,
        snapshot.snapshot_id,
        retained_from_us=snapshot.retained_from_us,
    )


def place(epoch: int, offset: int) -> int:
    """Encode a record's place on the tape, ordered as the tape is; in epoch 0 it is the offset."""
    return epoch << _EPOCH_BITS | offset


def place_of(row: Row) -> int:
    """Return the place of a row."""
    return place(int(row["tape_epoch"]), int(row["tape_offset"]))


class _File(NamedTuple):
    """A file, and places that its rows lie between; rows of several epochs have wide bounds."""

    high: int
    low: int
    location: str


def _bound(bounds: dict[int, bytes], fields: Sequence[int], unknown: int) -> int:
    """Combine the bounds of epoch and offset to a place; `unknown` where one is not kept.

    Both bounds are each column's own, so every row of the file lies within their combination.
    """
    if any(field not in bounds for field in fields):
        return unknown
    epoch, offset = (int.from_bytes(bounds[field], "little", signed=True) for field in fields)
    return place(epoch, offset)


_FILTERS: dict[str, Any] = {  # makes an expression of a column and a value
    "==": EqualTo,
    "<": LessThan,
    ">=": GreaterThanOrEqual,
    "in": In,
}
