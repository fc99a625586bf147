"""Reads what manifests say of data files: for queries `FileStat`, for maintenance `LiveFile`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyiceberg.manifest import DataFile, ManifestContent, ManifestFile
from pyiceberg.table import Table
from pyiceberg.types import MapType, NestedField

from k2 import limits
from k2.errors import Data, Reason
from k2.lake.iceberg.catalog import local_path
from k2.market.events import DAY_US
from k2.market.offsets import FileStat

_NARROW_END = 10**limits.NARROW_QUANTITY_DIGITS
_NO_MAX = "\U0010ffff"


@dataclass(frozen=True)
class LiveFile:
    """A data file of a snapshot, as maintenance merges or removes it.

    Attributes:
        location: its URI.
        manifest: location of the manifest that names it.
        day: of the time column that the table is partitioned by, days since 1970.
        split: values of the other columns that the table is partitioned by.
        time_max_us: time of its newest row; the end of its day where no bound is kept.
        rows, size_bytes: its size.
    """

    location: str
    manifest: str
    day: int
    split: tuple[str, ...]
    time_max_us: int
    rows: int
    size_bytes: int

    @property
    def partition(self) -> tuple[int | str, ...]:
        """Its Iceberg partition."""
        return (self.day, *self.split)


def read_live_files(table: Table, manifest: ManifestFile, day_of: str) -> tuple[LiveFile, ...]:
    """Read the live files that a manifest lists.

    Args:
        table: whose manifest it is.
        manifest: what to read.
        day_of: the time column that the table is partitioned by, per day.
    """
    time = table.schema().find_field(day_of).field_id
    entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    return tuple(_live(manifest.manifest_path, entry.data_file, time) for entry in entries)


def _live(manifest: str, file: DataFile, time: int) -> LiveFile:
    day, *split = (file.partition[number] for number in range(len(file.partition)))
    return LiveFile(
        location=file.file_path,
        manifest=manifest,
        day=day,
        split=tuple(map(str, split)),
        time_max_us=_int64((file.upper_bounds or {}).get(time), (day + 1) * DAY_US - 1),
        rows=file.record_count,
        size_bytes=file.file_size_in_bytes,
    )


def read_manifest(
    table: Table, manifest: ManifestFile, optional: Sequence[str]
) -> tuple[FileStat, ...]:
    """Read the statistics of the data files that a manifest lists.

    Args:
        table: whose manifest it is.
        manifest: what to read.
        optional: names of the columns that a file may lack.

    Raises:
        Data: LAKE_CORRUPT when another engine wrote delete files, which K2 does not read.
    """
    if manifest.content is not ManifestContent.DATA:
        raise Data(Reason.LAKE_CORRUPT, "another engine wrote delete files; K2 cannot read them")
    fields = {field.name: field for field in table.schema().fields}
    ids = _FieldIds(
        fields["symbol"].field_id,
        fields["event_time"].field_id,
        fields["quantity"].field_id,
        tuple((name, _known_as(fields.get(name))) for name in optional),
    )
    return tuple(
        _stat(entry.data_file, ids)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    )


@dataclass(frozen=True)
class _FieldIds:
    """Field ids by which the statistics of a file are found.

    Attributes:
        symbol, time: of the columns that are bounded.
        quantity: bounded in a file where it is stored narrow.
        optional: of each optional column, the id of its values in a file; None where the table does
            not have the column yet.
    """

    symbol: int
    time: int
    quantity: int
    optional: tuple[tuple[str, int | None], ...]


def _known_as(field: NestedField | None) -> int | None:
    """Return the field id that a file's statistics use: a map is known by its keys."""
    if field is None:
        return None
    kind = field.field_type
    return kind.key_id if isinstance(kind, MapType) else field.field_id


def _stat(file: DataFile, ids: _FieldIds) -> FileStat:
    low, high = file.lower_bounds or {}, file.upper_bounds or {}
    symbol, time = ids.symbol, ids.time
    return FileStat(
        path=local_path(file.file_path),
        size_bytes=file.file_size_in_bytes,
        rows=file.record_count,
        exchange=str(file.partition[1]),
        symbol_min=low.get(symbol, b"").decode(),
        symbol_max=high[symbol].decode() if symbol in high else _NO_MAX,
        time_min_us=_int64(low.get(time), -(2**63)),
        time_max_us=_int64(high.get(time), 2**63 - 1),
        lacks=tuple(name for name, known_as in ids.optional if _lacks(file, known_as)),
        narrow=_fits(low.get(ids.quantity)) and _fits(high.get(ids.quantity)),
    )


def _fits(bound: bytes | None) -> bool:
    """Return whether a bound of a decimal is known and has few enough digits."""
    return bound is not None and abs(int.from_bytes(bound, "big", signed=True)) < _NARROW_END


def _lacks(file: DataFile, known_as: int | None) -> bool:
    """Return whether a file was written without a column, as its column sizes, where kept, say."""
    sizes = file.column_sizes
    return known_as is None or (sizes is not None and known_as not in sizes)


def _int64(bound: bytes | None, unknown: int) -> int:
    return int.from_bytes(bound, "little", signed=True) if bound is not None else unknown
