"""Writes accepted trades as Parquet files of the lake.

The layout decides size and speed (more than the codec does): sorted by (symbol, event_time,
trade_id), integers and times as differences (DELTA_BINARY_PACKED), prices as integers behind a
decimal, strings as dictionaries, zstd at its fastest, a page index, row groups that a query of few
rows decodes quickly. pyiceberg exposes none of these, so the files are written here and handed to
the commit as data files with their statistics.

Quantity is decimal(38,8) in the table. A file whose quantities all have at most 18 digits stores
them as prices are stored, as decimal(18,8): half of a sum's time is the wide type. Iceberg lets a
table's decimal be wider than a file's. The bounds of such a file's quantities are in its manifest,
which is how a query knows (`FileStat.narrow`).

One file is written per (day of event_time, exchange), with the rows of all partitions merged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.conversions import to_bytes
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.typedef import Record
from pyiceberg.types import DecimalType, MapType
from pyiceberg.utils.decimal import unscaled_to_decimal

from k2 import limits
from k2.lake.iceberg.catalog import write_file
from k2.market import schema
from k2.market.events import (
    DAY_US,
    Int32s,
    Int64s,
    TradeColumns,
    decimal_array,
    no_optional,
    no_vendor,
    widen,
)

_DELTA = (
    "trade_id", "event_time", "receive_time", "price",
    "tape_epoch", "tape_partition", "tape_offset",
)  # fmt: skip
_QUANTITY = ("quantity",)  # where it is narrow
_DICTIONARY = (
    *schema.LABEL_COLUMNS, "side", "vendor_data.key_value.key", "vendor_data.key_value.value",
)  # fmt: skip
_FIELD_ID = b"PARQUET:field_id"

EncodedFile: TypeAlias = tuple[Record, memoryview, pq.FileMetaData]  # of a partition


@dataclass(frozen=True)
class Part:
    """Accepted rows of one partition, in offset order."""

    partition: int
    columns: TradeColumns


def write_files(parts: Sequence[Part], epoch: int, table: Table, name: str) -> list[DataFile]:
    """Write the rows of a commit, durable when this returns.

    Args:
        parts: accepted rows; a partition may come in several parts.
        epoch: tape epoch of all of them.
        table: where they will be committed.
        name: unique among commits; leads the file names.

    Returns:
        The files, ready to be appended; none when there are no rows.
    """
    return [stored(table, *file, name) for file in _encoded(parts, epoch, table)]


def assert_writable(parts: Sequence[Part], epoch: int, table: Table) -> None:
    """Do all of `write_files` but the writing; raises what that raises."""
    for file in _encoded(parts, epoch, table):
        _described(table, *file, "")


def _encoded(parts: Sequence[Part], epoch: int, table: Table) -> Iterator[EncodedFile]:
    """Encode the rows of a commit, one file for each day and exchange."""
    parts = [part for part in parts if len(part.columns)]
    if not parts:
        return
    rows, target = _merge(parts), parquet_schema(table.schema())
    for day, exchange, chosen in _files(rows):
        yield Record(day, exchange), *_parquet(_arrow(rows, chosen, epoch, target))


def rows_within_days(rows: TradeColumns, days_max: int) -> int:
    """Count the first rows that fall on at most `days_max` days; each day becomes a file."""
    _, first = np.unique(rows.event_time // DAY_US, return_index=True)
    return len(rows) if len(first) <= days_max else int(np.sort(first)[days_max])


@dataclass(frozen=True)
class _Rows:
    """Rows of several partitions under one set of labels."""

    partition: Int32s
    columns: TradeColumns


def _merge(parts: Sequence[Part]) -> _Rows:
    if len(parts) == 1:
        count = len(parts[0].columns)
        return _Rows(np.full(count, parts[0].partition, np.int32), parts[0].columns)
    codes: dict[Any, int] = {}
    label_codes = []
    for part in parts:
        of_part = [codes.setdefault(label, len(codes)) for label in part.columns.labels]
        label_codes.append(np.array(of_part, dtype=np.int32)[part.columns.label])
    sizes = [len(part.columns) for part in parts]
    partition = np.repeat(np.array([part.partition for part in parts], dtype=np.int32), sizes)

    def joined(field: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(part.columns, field) for part in parts])

    columns = TradeColumns(
        offset=joined("offset"),
        labels=tuple(codes),
        label=np.concatenate(label_codes),
        trade_id=joined("trade_id"),
        event_time=joined("event_time"),
        receive_time=joined("receive_time"),
        price=joined("price"),
        quantity=joined("quantity"),
        side=joined("side"),
        vendor_data=_joined_arrays(
            [part.columns.vendor_data for part in parts], [*map(no_vendor, sizes)]
        ),
        fault=joined("fault"),
        optional=_joined_arrays(
            [part.columns.optional for part in parts], [*map(no_optional, sizes)]
        ),
    )
    return _Rows(partition, columns)


def _joined_arrays(arrays: Sequence[pa.Array | None], absent: Sequence[pa.Array]) -> pa.Array:
    """Concatenate the arrays of parts, `absent` where a part has none; None where none has."""
    if all(array is None for array in arrays):
        return None
    pairs = zip(arrays, absent, strict=True)
    return pa.concat_arrays([lacking if array is None else array for array, lacking in pairs])


def _files(rows: _Rows) -> Iterator[tuple[int, str, Int64s]]:
    """Split rows into files: day, exchange and sorted row numbers of each."""
    columns = rows.columns
    exchanges = sorted({label.exchange for label in columns.labels})
    of_label = np.array(
        [exchanges.index(label.exchange) for label in columns.labels], dtype=np.int64
    )
    day = columns.event_time // DAY_US
    group = day * len(exchanges) + of_label[columns.label]
    order = _sorted(columns)
    if int(group.min()) == int(group.max()):
        yield int(day[0]), exchanges[int(group[0]) % len(exchanges)], order
        return
    in_order = group[order]
    for number in np.unique(group).tolist():
        day_of, exchange = divmod(number, len(exchanges))
        yield day_of, exchanges[exchange], order[in_order == number]


def _sorted(columns: TradeColumns) -> Int64s:
    """Order rows by (symbol, event_time, trade_id)."""
    symbols = sorted({label.symbol for label in columns.labels})
    kind = np.int16 if len(symbols) < 2**15 else np.int32  # short codes are radix-sorted
    rank = np.array([symbols.index(label.symbol) for label in columns.labels], dtype=kind)
    return row_order(rank[columns.label], columns.event_time, columns.trade_id)


def row_order(symbol: npt.NDArray[Any], time: Int64s, number: Int64s) -> Int64s:
    """Order the rows of a file by (symbol, event_time, trade_id).

    Trades of a symbol mostly arrive in the order of time already, so a cheap stable sort by symbol
    is tried first.

    Args:
        symbol: an integer for each row that orders as its symbol does. n
        time: event times. int64[n]
        number: trade ids. int64[n]
    """
    order = np.argsort(symbol, kind="stable")
    codes, times, numbers = symbol[order], time[order], number[order]
    rises = (times[1:] > times[:-1]) | ((times[1:] == times[:-1]) & (numbers[1:] >= numbers[:-1]))
    if bool((rises | (codes[1:] != codes[:-1])).all()):
        return order
    return np.lexsort((number, time, symbol))


def write_sorted(table: Table, rows: pa.Table, name: str, partition: Record) -> DataFile:
    """Sort rows and write them as one file, durable when this returns.

    Args:
        table: where it will be committed.
        rows: of `parquet_schema`, perhaps with columns that a later K2 added; in one chunk.
        name: the file's, unique among commits.
        partition: day and exchange of all rows.
    """
    return stored(table, partition, *_parquet(rows.take(pa.array(_order(rows)))), name)


def _order(rows: pa.Table) -> Int64s:
    """Order rows by (symbol, event_time, trade_id); `rows` is in one chunk."""
    symbol = rows.column("symbol").chunk(0)
    names = symbol.dictionary.to_pylist()
    rank = np.empty(len(names), dtype=np.int32)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    time = rows.column("event_time").chunk(0).view(pa.int64()).to_numpy()
    return row_order(rank[symbol.indices.to_numpy()], time, rows["trade_id"].chunk(0).to_numpy())


def stored(
    table: Table, partition: Record, content: memoryview, metadata: pq.FileMetaData, name: str
) -> DataFile:
    """Write a Parquet file into a table's folder, durable; returns it ready to be committed.

    Args:
        table: where it will be committed.
        partition: its values of the table's partition fields.
        content: of the file.
        metadata: of the content.
        name: unique among files of the partition.
    """
    file = _described(table, partition, content, metadata, name)
    write_file(table.io.new_output(file.file_path), content)
    return file


def _described(
    table: Table, partition: Record, content: memoryview, metadata: pq.FileMetaData, name: str
) -> DataFile:
    """Describe a file of `stored` that is not written yet."""
    icebergs, spec = table.schema(), table.spec()
    path = spec.partition_to_path(partition, icebergs)
    location = table.location_provider().new_data_location(f"{path}/{name}.parquet")
    ids = parquet_path_to_id_mapping(icebergs)
    statistics = data_file_statistics_from_parquet_metadata(
        metadata, compute_statistics_plan(icebergs, table.properties), ids
    ).to_serialized_dict()
    for bounds, found in zip(("lower_bounds", "upper_bounds"), _narrow(metadata), strict=True):
        statistics[bounds] |= {ids[name]: value for name, value in found.items()}
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=partition,
        file_size_in_bytes=len(content),
        sort_order_id=table.sort_order().order_id,
        spec_id=spec.spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics,
    )


def _narrow(metadata: pq.FileMetaData) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the least and the greatest quantity, serialised, where a file stores it narrow."""
    names = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    place = names.index("quantity") if "quantity" in names else -1
    if place < 0 or metadata.schema.column(place).physical_type != "INT64":
        return {}, {}
    groups = [metadata.row_group(number).column(place) for number in range(metadata.num_row_groups)]
    low = min(group.statistics.min_raw for group in groups)
    high = max(group.statistics.max_raw for group in groups)
    return {"quantity": _serialised(low)}, {"quantity": _serialised(high)}


def _serialised(mantissa: int) -> bytes:
    kind = DecimalType(limits.QUANTITY_DIGITS, limits.QUANTITY_SCALE)
    return to_bytes(kind, unscaled_to_decimal(mantissa, kind.scale))


def parquet_schema(icebergs: Schema) -> pa.Schema:
    """Make the trade's Arrow schema with the table's field ids, strings as dictionaries."""
    fields = []
    for field in schema.arrow_schema(schema.TRADE):
        column = icebergs.find_field(field.name)
        kind = field.type
        if kind == pa.string() and not field.nullable:
            kind = pa.dictionary(pa.int32(), pa.string())
        if isinstance(kind, pa.MapType):
            assert isinstance(column.field_type, MapType)
            ids = column.field_type.key_id, column.field_type.value_id
            kind = pa.map_(
                pa.field("key", pa.string(), nullable=False, metadata={_FIELD_ID: str(ids[0])}),
                pa.field("value", pa.string(), nullable=False, metadata={_FIELD_ID: str(ids[1])}),
            )
        fields.append(
            pa.field(field.name, kind, field.nullable, metadata={_FIELD_ID: str(column.field_id)})
        )
    return pa.schema(fields)


def _arrow(rows: _Rows, chosen: Int64s, epoch: int, target: pa.Schema) -> pa.Table:
    """Convert the chosen rows to a table of `parquet_schema`."""
    columns = rows.columns
    arrays: dict[str, pa.Array] = {}
    label = columns.label[chosen]
    for position, name in enumerate(schema.LABEL_COLUMNS):
        values: dict[str, int] = {}
        codes = [values.setdefault(texts[position], len(values)) for texts in columns.labels]
        arrays[name] = _dictionary(np.array(codes, dtype=np.int32)[label], list(values))
    for name in ("trade_id", "event_time", "receive_time"):
        arrays[name] = pa.array(getattr(columns, name)[chosen]).view(target.field(name).type)
    arrays["price"] = decimal_array(widen(columns.price[chosen]), target.field("price").type)
    arrays["quantity"] = decimal_array(columns.quantity[chosen], target.field("quantity").type)
    arrays["side"] = _dictionary(columns.side[chosen].astype(np.int32), list(schema.SIDES))
    vendor = columns.vendor_data
    arrays["vendor_data"] = (
        no_vendor(len(chosen)) if vendor is None else vendor.take(pa.array(chosen))
    ).cast(target.field("vendor_data").type)
    optional = columns.optional
    optional = no_optional(len(chosen)) if optional is None else optional.take(pa.array(chosen))
    arrays |= dict(zip(optional.type.names, optional.flatten(), strict=True))
    arrays["tape_epoch"] = pa.array(np.full(len(chosen), epoch, np.int32))
    arrays["tape_partition"] = pa.array(rows.partition[chosen])
    arrays["tape_offset"] = pa.array(columns.offset[chosen])
    return pa.Table.from_arrays([arrays[name] for name in target.names], schema=target)


def _dictionary(codes: Int32s, values: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(values, pa.string()))


def _narrowed(rows: pa.Table) -> tuple[pa.Table, bool]:
    """Return the rows with quantity as `schema.NARROW_QUANTITY` if every value fits; whether so."""
    place = rows.schema.get_field_index("quantity")
    field, column = rows.field(place), rows.column(place)
    extremes = pc.min_max(column).as_py().values()
    if any(abs(value) >= schema.NARROW_END for value in extremes):
        return rows, False
    narrow = pa.chunked_array([chunk.view(schema.NARROW_QUANTITY) for chunk in column.chunks])
    return rows.set_column(place, field.with_type(schema.NARROW_QUANTITY), narrow), True


def _parquet(rows: pa.Table) -> tuple[memoryview, pq.FileMetaData]:
    rows, narrow = _narrowed(rows)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        rows.schema,
        version="2.6",
        compression="zstd",
        compression_level=1,
        use_dictionary=list(_DICTIONARY),
        column_encoding=dict.fromkeys(_DELTA + _QUANTITY * narrow, "DELTA_BINARY_PACKED"),
        store_decimal_as_integer=True,
        store_schema=False,
        write_page_index=True,
    ) as writer:
        writer.write_table(rows, row_group_size=limits.ROW_GROUP_ROWS)
    content = sink.getvalue()
    return memoryview(content), writer.writer.metadata
