"""The lake's tables: their Iceberg schema, made from `market/schema.py`, and how they are laid out.

Commits are K2's own (`commit.py`): pyiceberg's retries are switched off in the table's properties,
because a retry would rebase a stale writer's batch onto another writer's commit and store it twice.
"""

from __future__ import annotations

from contextlib import suppress

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import (
    BinaryType,
    DecimalType,
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
from k2.lake.catalog import reaching_lake
from k2.lake.evolution import evolve, lacking
from k2.market.schema import TRADE, Event, Kind

NAMESPACE = "market"
TRADES = (NAMESPACE, "trades")
SORTED_BY = ("symbol", "event_time", "trade_id")
_NO_RETRIES = "commit.retry.num-retries"

# Bounds of these are kept in the manifests; of other columns nothing, which keeps them small.
_BOUNDED = ("exchange", "symbol", "trade_id", "event_time", "tape_partition", "tape_offset")

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
} | {f"write.metadata.metrics.column.{name}": "full" for name in _BOUNDED}


def iceberg_schema(event: Event) -> Schema:
    """The event's Iceberg schema; field ids follow the columns, those inside a map come after."""
    inner = len(event.fields) + 1
    fields = []
    for number, field in enumerate(event.fields, start=1):
        kind: IcebergType
        if field.kind is Kind.LABELS:
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
}


def ensure_tables(catalog: SqlCatalog) -> Table:
    """The table `market.trades`, made when it does not exist; safe to call from many processes.

    One that an earlier K2 made is given the optional columns that it lacks (`evolution.py`).

    Raises:
        Data: LAKE_CORRUPT when the table is not as K2 made it.
        Unavailable: LAKE_UNAVAILABLE.
    """
    with reaching_lake():
        try:
            table = catalog.load_table(TRADES)
        except NoSuchTableError:
            table = _create(catalog)
    _assert_no_retries(table)
    return evolve(table, iceberg_schema(TRADE))


def _create(catalog: Catalog) -> Table:
    with suppress(NamespaceAlreadyExistsError, IntegrityError):  # another process was faster
        catalog.create_namespace(NAMESPACE)
    schema = iceberg_schema(TRADE)
    ids = {name: schema.find_field(name).field_id for name in TRADE.columns}
    try:
        return catalog.create_table(
            TRADES,
            schema=schema,
            partition_spec=PartitionSpec(
                PartitionField(ids["event_time"], 1000, DayTransform(), "event_day"),
                PartitionField(ids["exchange"], 1001, IdentityTransform(), "exchange"),
            ),
            sort_order=SortOrder(
                *(SortField(ids[name], IdentityTransform()) for name in SORTED_BY)
            ),
            properties=PROPERTIES,
        )
    except TableAlreadyExistsError:
        return catalog.load_table(TRADES)


def assert_ours(table: Table) -> None:
    """Refuse a table that K2 must not commit to.

    Raises:
        Data: LAKE_CORRUPT, naming what differs.
    """
    _assert_no_retries(table)
    if missing := lacking(table.schema(), iceberg_schema(TRADE), ".".join(TRADES)):
        names = ", ".join(field.name for field in missing)
        raise Data(
            Reason.LAKE_CORRUPT,
            f"table {'.'.join(TRADES)} has lost its columns {names}: start again to add them",
        )


def _assert_no_retries(table: Table) -> None:
    if table.properties.get(_NO_RETRIES) != "0":
        raise Data(
            Reason.LAKE_CORRUPT,
            f"table {'.'.join(TRADES)} must have {_NO_RETRIES}=0: with retries, a batch could be"
            " stored twice; set the property and start again",
        )
