"""Rows of the ops tables: plain Arrow tables, written as files and read back page by page.

Ops events are few, so they need none of what makes the trades' files fast; what keeps them exact is
the same commit (`commit.py`). A file holds the events of one day; pages are read from the newest
file back, by offset on the tape, so that a page costs the same however long the table is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

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
from pyiceberg.table import Table
from pyiceberg.typedef import Identifier, Record

from k2.errors import Data, Reason
from k2.lake.catalog import reaching_lake
from k2.lake.commit import PartitionBatch
from k2.lake.snapshot import current_of
from k2.lake.tables import TableLayout, assert_ours
from k2.lake.writer import stored
from k2.market.events import DAY_US

Row: TypeAlias = dict[str, Any]
Condition: TypeAlias = tuple[str, str, Any]

_FIELD_ID = b"PARQUET:field_id"
_POSITION = "tape_offset"


class OpsStore:
    """How rows of `layout.columns` become files of a table; see `Store`.

    Args:
        layout: of the table.
    """

    def __init__(self, layout: TableLayout) -> None:
        self._layout = layout

    @property
    def identifier(self) -> Identifier:
        """See `Store`."""
        return self._layout.identifier

    def check(self, table: Table) -> None:
        """See `Store`."""
        assert_ours(table, self._layout)

    def write(
        self, pieces: Sequence[PartitionBatch], epoch: int, table: Table, name: str
    ) -> list[DataFile]:
        """See `Store`; the rows say their epoch themselves."""
        parts = [rows for piece in pieces for rows in piece.accepted]
        if not parts:
            return []
        rows = pa.concat_tables(parts).sort_by(
            [(one, "ascending") for one in self._layout.sorted_by]
        )
        days = rows.column(self._layout.day_of).cast(pa.int64()).to_numpy() // DAY_US
        target = _with_ids(self._layout, table)
        return [
            stored(table, Record(day), name, *_parquet(rows.filter(pa.array(days == day)), target))
            for day in np.unique(days).tolist()
        ]


def _with_ids(layout: TableLayout, table: Table) -> pa.Schema:
    """The event's Arrow schema with the table's field ids."""
    ids = {field.name: str(field.field_id) for field in table.schema().fields}
    return pa.schema(
        [field.with_metadata({_FIELD_ID: ids[field.name]}) for field in layout.columns]
    )


def _parquet(rows: pa.Table, target: pa.Schema) -> tuple[memoryview, pq.FileMetaData]:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, target, compression="zstd", store_schema=False) as writer:
        writer.write_table(rows.cast(target))
    return memoryview(sink.getvalue()), writer.writer.metadata


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpsView:
    """One snapshot of an ops table.

    Attributes:
        position: the tape offset below which it holds every event.
    """

    position: int
    _table: Table
    _snapshot_id: int

    def newest(
        self,
        columns: Sequence[str],
        conditions: Sequence[Condition] = (),
        below: int | None = None,
    ) -> Iterator[Row]:
        """Rows from the newest on the tape to the oldest; read as they are taken.

        Args:
            columns: which; `tape_offset` always comes too.
            conditions: (column, operator, value) that all hold; operators are ==, <, >= and in.
            below: a tape offset; rows at or above it are left out.

        Raises:
            Unavailable: LAKE_UNAVAILABLE.
            Data: LAKE_CORRUPT when another engine wrote delete files, or a file cannot be read.
        """
        wanted = [*dict.fromkeys([*columns, _POSITION])]
        conditions = [*conditions, *([(_POSITION, "<", below)] if below is not None else [])]
        files = sorted(self._files(conditions), reverse=True)
        held: list[Row] = []
        for number, (_, location) in enumerate(files, start=1):
            held += self._read(location, wanted, conditions)
            held.sort(key=lambda row: int(row[_POSITION]))
            ceiling = files[number][0] if number < len(files) else -1
            while held and held[-1][_POSITION] > ceiling:
                yield held.pop()

    def _files(self, conditions: Sequence[Condition]) -> list[tuple[int, str]]:
        """The greatest tape offset and the place of each file that may hold such rows."""
        filters = [_FILTERS[operator](column, value) for column, operator, value in conditions]
        row_filter = And(AlwaysTrue(), AlwaysTrue(), *filters)
        with reaching_lake():
            tasks = [
                *self._table.scan(row_filter=row_filter, snapshot_id=self._snapshot_id).plan_files()
            ]
        if any(task.delete_files for task in tasks):
            raise Data(Reason.LAKE_CORRUPT, "another engine wrote delete files; K2 reads none")
        field = self._table.schema().find_field(_POSITION).field_id
        return [
            (_greatest((task.file.upper_bounds or {}).get(field)), task.file.file_path)
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
        found: list[Row] = rows.to_pylist()
        return found


def view_of(catalog: SqlCatalog, layout: TableLayout) -> OpsView | None:
    """The newest snapshot of an ops table; None while there is none.

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
    return OpsView(snapshot.positions[0], table, snapshot.snapshot_id)


def _greatest(bound: bytes | None) -> int:
    return int.from_bytes(bound, "little", signed=True) if bound is not None else 2**63 - 1


_FILTERS: dict[str, Any] = {  # makes an expression of a column and a value
    "==": EqualTo,
    "<": LessThan,
    ">=": GreaterThanOrEqual,
    "in": In,
}
