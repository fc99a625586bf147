"""The lake's tables: their Iceberg schema, made from `market/schema.py`, and their layout.

K2 commits by itself (`committer.py`): pyiceberg's retries are switched off in the table's
properties, because a retry would rebase a stale writer's batch onto another writer's commit and
store it twice.

A later K2 may know more optional columns of an event. They are added to its table at start under
new field ids; the ids of all other columns stay as they are in the files. Files written earlier
lack the column, and its rows read as null there (`market.offsets.FileStat.lacks`). An earlier K2
ignores an optional column that it does not know. Nothing else is changed automatically: a required
column cannot be added to rows that have no value for it, and another type is another meaning, so
such a table is refused, naming each column.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.typedef import Identifier
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DecimalType,
    DoubleType,
    IcebergType,
    IntegerType,
    LongType,
    MapType,
    NestedField,
    StringType,
    TimestamptzType,
)
from sqlalchemy.exc import IntegrityError

from k2 import limits
from k2.errors import Data, Reason
from k2.lake.iceberg.catalog import Conflict, reaching_lake, retry_conflicts
from k2.market.fold import RULES
from k2.market.schema import DEAD_LETTER, GAP, TRADE, TRANSITION, Event, Kind, arrow_schema
from k2.tape import topics

TRADES = ("market", "trades")
GAPS = ("ops", "gaps")
DEAD_LETTERS = ("ops", "dead_letters")
TRANSITIONS = ("ops", "transitions")
SORTED_BY = ("symbol", "event_time", "trade_id")
_NO_RETRIES = "commit.retry.num-retries"
_log = logging.getLogger(__name__)

PROPERTIES = {
    "format-version": "2",
    _NO_RETRIES: "0",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": str(limits.MANIFESTS_TO_MERGE),
    "commit.manifest.target-size-bytes": str(limits.MANIFEST_BYTES_MAX),
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": str(limits.METADATA_VERSIONS_KEPT),
    "write.parquet.compression-codec": "zstd",
    "write.parquet.compression-level": "1",
    "write.metadata.metrics.default": "none",
}


@dataclass(frozen=True)
class TableLayout:
    """A table and the layout of its rows.

    Attributes:
        identifier: its name.
        event: the event whose columns it has.
        day_of: the time column that it is partitioned by, per day.
        split_by: further columns by whose values it is partitioned.
        sorted_by: the order of rows in a file.
        bounded: columns whose bounds the manifests keep; other columns have none, which keeps
            manifests small.
        merged_rows_max, merged_bytes_max: of a file that merging writes, and of its rows in memory;
            a file with half the rows is full.
        rules: the version of `fold.RULES` that judges its records; 0 where no fold judges them.
    """

    identifier: Identifier
    event: Event
    day_of: str
    split_by: tuple[str, ...]
    sorted_by: tuple[str, ...]
    bounded: tuple[str, ...]
    merged_rows_max: int
    merged_bytes_max: int
    rules: int = 0

    @property
    def name(self) -> str:
        """The dotted name: `market.trades`."""
        return ".".join(self.identifier)

    @property
    def columns(self) -> pa.Schema:
        """Its columns as an Arrow schema."""
        return arrow_schema(self.event)


TRADES_LAYOUT = TableLayout(
    identifier=TRADES,
    event=TRADE,
    day_of="event_time",
    split_by=("exchange",),
    sorted_by=SORTED_BY,
    bounded=("exchange", "symbol", "trade_id", "event_time", "tape_partition", "tape_offset"),
    merged_rows_max=limits.COMPACT_ROWS_MAX,
    merged_bytes_max=limits.COMPACT_MEMORY_MAX,
    rules=RULES,
)
# A page of an ops table reads whole files, so a merged one is no larger than a commit may be.
GAPS_LAYOUT = TableLayout(
    identifier=GAPS,
    event=GAP,
    day_of="recorded",
    split_by=(),
    sorted_by=("recorded", "tape_offset"),
    bounded=("exchange", "symbol", "recorded", "tape_epoch", "tape_offset"),
    merged_rows_max=limits.OPS_ROWS_MAX,
    merged_bytes_max=limits.OPS_BYTES_MAX,
)
DEAD_LETTERS_LAYOUT = TableLayout(
    identifier=DEAD_LETTERS,
    event=DEAD_LETTER,
    day_of="judged",
    split_by=(),
    sorted_by=("judged", "tape_offset"),
    bounded=(
        *("origin", "origin_partition", "origin_offset", "fault", "judged"),
        *("tape_epoch", "tape_offset"),
    ),
    merged_rows_max=limits.OPS_ROWS_MAX,
    merged_bytes_max=limits.OPS_BYTES_MAX,
)

TRANSITIONS_LAYOUT = TableLayout(
    identifier=TRANSITIONS,
    event=TRANSITION,
    day_of="changed",
    split_by=(),
    sorted_by=("changed", "tape_offset"),
    bounded=("changed", "tape_epoch", "tape_offset"),
    merged_rows_max=limits.OPS_ROWS_MAX,
    merged_bytes_max=limits.OPS_BYTES_MAX,
)

OPS_LAYOUTS = {  # by topic
    topics.GAPS: GAPS_LAYOUT,
    topics.DEAD_LETTERS: DEAD_LETTERS_LAYOUT,
    topics.TRANSITIONS: TRANSITIONS_LAYOUT,
}


def iceberg_schema(event: Event) -> Schema:
    """Make the event's Iceberg schema; field ids follow the columns, then those inside maps."""
    inner = len(event.fields) + 1
    fields = []
    for number, field in enumerate(event.fields, start=1):
        kind: IcebergType
        if field.kind is Kind.MAP:
            kind = MapType(inner, StringType(), inner + 1, StringType(), value_required=True)
            inner += 2
        else:
            kind = _ICEBERG[field.kind]
        required = not field.nullable
        fields.append(NestedField(number, field.name, kind, required=required, doc=field.doc))
    return Schema(*fields)


_ICEBERG: dict[Kind, IcebergType] = {
    Kind.STRING: StringType(),
    Kind.SIDE: StringType(),
    Kind.INT: IntegerType(),
    Kind.LONG: LongType(),
    Kind.TIME: TimestamptzType(),
    Kind.PRICE: DecimalType(limits.PRICE_DIGITS, limits.PRICE_SCALE),
    Kind.QUANTITY: DecimalType(limits.QUANTITY_DIGITS, limits.QUANTITY_SCALE),
    Kind.BYTES: BinaryType(),
    Kind.DOUBLE: DoubleType(),
    Kind.BOOL: BooleanType(),
}


def ensure_tables(catalog: SqlCatalog) -> Table:
    """Open the table `market.trades`, made when it does not exist; see `ensure_table`."""
    return ensure_table(catalog, TRADES_LAYOUT)


def ensure_lake(catalog: SqlCatalog) -> None:
    """Make the tables of the lake that do not exist; see `ensure_table`."""
    for layout in (TRADES_LAYOUT, *OPS_LAYOUTS.values()):
        ensure_table(catalog, layout)


def ensure_table(catalog: SqlCatalog, layout: TableLayout) -> Table:
    """Open a table, made when it does not exist; safe to call from many processes.

    A table that an earlier K2 made gets the optional columns that it lacks (`evolve`).

    Raises:
        Data: LAKE_CORRUPT when the table is not as K2 made it.
        Unavailable: LAKE_UNAVAILABLE. Overloaded: DISK_FULL.
    """
    with reaching_lake():
        try:
            table = catalog.load_table(layout.identifier)
        except NoSuchTableError:
            table = _create(catalog, layout)
    _assert_no_retries(table, layout)
    return evolve(table, iceberg_schema(layout.event))


def _create(catalog: Catalog, layout: TableLayout) -> Table:
    with suppress(NamespaceAlreadyExistsError, IntegrityError):  # another process was faster
        catalog.create_namespace(layout.identifier[:-1])
    schema = iceberg_schema(layout.event)
    ids = {name: schema.find_field(name).field_id for name in layout.event.columns}
    day = f"{layout.day_of.removesuffix('_time')}_day"
    bounds = {f"write.metadata.metrics.column.{name}": "full" for name in layout.bounded}
    try:
        return catalog.create_table(
            layout.identifier,
            schema=schema,
            partition_spec=PartitionSpec(
                PartitionField(ids[layout.day_of], 1000, DayTransform(), day),
                *(
                    PartitionField(ids[name], 1001 + number, IdentityTransform(), name)
                    for number, name in enumerate(layout.split_by)
                ),
            ),
            sort_order=SortOrder(
                *(SortField(ids[name], IdentityTransform()) for name in layout.sorted_by)
            ),
            properties=PROPERTIES | bounds,
        )
    except TableAlreadyExistsError:
        return catalog.load_table(layout.identifier)


def assert_ours(table: Table, layout: TableLayout) -> None:
    """Refuse a table that K2 must not commit to.

    Raises:
        Data: LAKE_CORRUPT, naming what differs.
    """
    _assert_no_retries(table, layout)
    if missing := lacking(table.schema(), iceberg_schema(layout.event), layout.name):
        names = ", ".join(field.name for field in missing)
        raise Data(
            Reason.LAKE_CORRUPT,
            f"table {layout.name} has lost its columns {names}: start again to add them",
        )


def _assert_no_retries(table: Table, layout: TableLayout) -> None:
    if table.properties.get(_NO_RETRIES) != "0":
        raise Data(
            Reason.LAKE_CORRUPT,
            f"table {layout.name} must have {_NO_RETRIES}=0: with retries, a batch could be"
            " stored twice; set the property and start again",
        )


def lacking(have: Schema, want: Schema, name: str) -> tuple[NestedField, ...]:
    """Find the optional columns of an event that its table does not have yet.

    Args:
        have: the table's schema.
        want: the event's (`iceberg_schema`); its field ids do not matter.
        name: of the table, for messages.

    Raises:
        Data: LAKE_CORRUPT when the table differs in anything else, naming each column.
    """
    wrong = []
    missing = []
    found = {field.name: field for field in have.fields}
    for field in want.fields:
        there = found.pop(field.name, None)
        if there is None and not field.required:
            missing.append(field)
        elif there is None:
            wrong.append(f"{field.name} is missing, and rows cannot be without it")
        elif _form(there) != _form(field):
            wrong.append(f"{field.name} is {_form(there)} and must be {_form(field)}")
    wrong += [
        f"{field.name} is {_form(field)} and not known to this K2"
        for field in found.values()
        if field.required
    ]
    if wrong:
        raise Data(
            Reason.LAKE_CORRUPT,
            f"table {name} is not as K2 makes it: {'; '.join(wrong)}; start the K2 that wrote it,"
            " restore it, or start a new data directory",
            metadata={"table": name},
        )
    return tuple(missing)


def _form(field: NestedField) -> str:
    return f"{'required' if field.required else 'optional'} {field.field_type}"


def evolve(table: Table, want: Schema) -> Table:
    """Add the optional columns that a table lacks; safe to call from many processes.

    Returns:
        The table as it is then.

    Raises:
        Data: LAKE_CORRUPT, see `lacking`.
        Unavailable: LAKE_UNAVAILABLE.
    """
    name = ".".join(table.name())

    def attempt(number: int) -> Table:
        head = table if number == 1 else table.catalog.load_table(table.name())
        missing = lacking(head.schema(), want, name)
        if not missing:
            return head
        try:
            with head.update_schema() as update:
                for field in missing:
                    update.add_column(field.name, field.field_type, field.doc)
        except CommitFailedException as error:
            raise Conflict(f"new columns of table {name}") from error
        _log.info("table %s has new columns: %s", name, ", ".join(field.name for field in missing))
        return table.catalog.load_table(table.name())

    with reaching_lake():
        return retry_conflicts(attempt)
