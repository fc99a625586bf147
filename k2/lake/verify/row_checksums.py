"""Order-independent checksums of rows, so that tape and lake can be compared.

Tens of millions of rows are compared in buckets of 65,536 offsets of a partition: the number of
rows, and the sum of their fingerprints modulo 2^64. Equal checksums mean equal rows, each equally
often. Where two differ, the differing buckets are compared row by row (`kept`).

A fingerprint covers every required column of a row, its place on the tape included; optional
columns are left out, because a record may hold more than its row when the K2 that stored it did not
know the column yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO

from k2.errors import Data, Reason
from k2.lake.iceberg.catalog import reaching_lake
from k2.market import schema
from k2.market.events import Int32s, Int64s, Label, TradeColumns
from k2.market.instrument import Instrument

Hashes = npt.NDArray[np.uint64]
Bucket = tuple[int, int]  # partition and number of a bucket of offsets

BUCKET_BITS = 16
_READ_ROWS = 131_072
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


@dataclass(frozen=True)
class PartitionRows:
    """PartitionRows of one partition of the tape, of the tape or the lake.

    Attributes:
        partition: of the tape.
        columns: the rows, in any order.
        epoch: of the tape.
    """

    partition: int
    columns: TradeColumns
    epoch: int = 0


@dataclass
class RowChecksums:
    """Counts and fingerprints of rows, per bucket.

    Attributes:
        ends: offsets at or above these are not expected, per partition.
        keep: buckets whose rows are kept one by one.
        symbols: rows per partition and instrument.
        kept: offsets and fingerprints of the kept buckets.
    """

    ends: Sequence[int]
    keep: frozenset[Bucket] = frozenset()
    symbols: dict[tuple[int, Instrument], int] = field(default_factory=dict)
    kept: dict[Bucket, list[tuple[Int64s, Hashes]]] = field(default_factory=dict)
    _counts: list[Int64s] = field(default_factory=list)
    _sums: list[Hashes] = field(default_factory=list)

    def __post_init__(self) -> None:
        sizes = [(end >> BUCKET_BITS) + 1 for end in self.ends]
        self._counts = [np.zeros(size, np.int64) for size in sizes]
        self._sums = [np.zeros(size, np.uint64) for size in sizes]

    def add(self, rows: PartitionRows) -> None:
        """Add rows; their offsets lie below the partition's end."""
        partition, columns = rows.partition, rows.columns
        if len(columns) == 0:
            return
        prints = fingerprints(columns)
        bucket = columns.offset >> BUCKET_BITS
        np.add.at(self._sums[partition], bucket, prints)
        self._counts[partition] += np.bincount(bucket, minlength=len(self._counts[partition]))
        for code, count in enumerate(np.bincount(columns.label).tolist()):
            if count:
                key = partition, columns.labels[code].instrument
                self.symbols[key] = self.symbols.get(key, 0) + count
        for place in self.keep:
            if place[0] == partition and (mine := bucket == place[1]).any():
                self.kept.setdefault(place, []).append((columns.offset[mine], prints[mine]))

    def rows(self, partition: int) -> int:
        """Count the rows of a partition."""
        return int(self._counts[partition].sum())

    def differing(self, other: RowChecksums) -> list[Bucket]:
        """List the buckets where the two do not hold the same rows."""
        return [
            (partition, int(bucket))
            for partition in range(len(self.ends))
            for bucket in np.flatnonzero(
                (self._counts[partition] != other._counts[partition])
                | (self._sums[partition] != other._sums[partition])
            )
        ]

    def rows_at(self, place: Bucket) -> tuple[Int64s, Hashes]:
        """Return offsets and fingerprints of a kept bucket, in the order of offsets."""
        kept = self.kept.get(place)
        if not kept:
            return np.empty(0, np.int64), np.empty(0, np.uint64)
        offsets = np.concatenate([of_batch for of_batch, _ in kept])
        order = np.argsort(offsets, kind="stable")
        return offsets[order], np.concatenate([prints for _, prints in kept])[order]


def fingerprints(columns: TradeColumns) -> Hashes:
    """Compute a number for each row from all its required columns and its offset. uint64[n]."""
    of_label = np.array([_text_hash("\0".join(label)) for label in columns.labels], np.uint64)
    prints = of_label[columns.label]
    for values in (
        columns.offset,
        columns.trade_id,
        columns.event_time,
        columns.receive_time,
        columns.price,
        columns.quantity[:, 0],
        columns.quantity[:, 1],
        columns.side.astype(np.int64),
    ):
        prints = _mixed(prints ^ np.ascontiguousarray(values).view(np.uint64))
    if columns.vendor_data is not None:
        prints = _mixed(prints + _vendor_hashes(columns.vendor_data))
    else:
        prints = _mixed(prints)
    return prints


def _mixed(words: Hashes) -> Hashes:
    words = words * _MULTIPLIER
    return words ^ (words >> _SHIFT)


def _text_hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _vendor_hashes(maps: pa.MapArray) -> Hashes:
    """Hash each map, whatever the order of its entries; 0 for an empty one."""
    sums = np.zeros(len(maps), dtype=np.uint64)
    bounds = maps.offsets.to_numpy().astype(np.int64)
    first, entries = int(bounds[0]), int(bounds[-1] - bounds[0])
    if entries:
        keys = _column_hashes(maps.keys.slice(first, entries))
        values = _column_hashes(maps.items.slice(first, entries))
        row = np.repeat(np.arange(len(maps)), np.diff(bounds))
        np.add.at(sums, row, _mixed(keys ^ _mixed(values)))
    return sums


def _column_hashes(texts: pa.StringArray) -> Hashes:
    """Hash each text; each distinct text is hashed once."""
    coded = texts.dictionary_encode()
    distinct = np.array([_text_hash(text) for text in coded.dictionary.to_pylist()], np.uint64)
    hashes: Hashes = distinct[coded.indices.to_numpy(zero_copy_only=False)]
    return hashes


# --- reading the lake ----------------------------------------------------------------------------


def read_rows(io: FileIO, location: str) -> Iterator[PartitionRows]:
    """Read the rows of a data file, by epoch and partition, in batches.

    Raises:
        Data: LAKE_CORRUPT when the file is not K2's.
        Unavailable: LAKE_UNAVAILABLE.
    """
    names = [field.name for field in schema.TRADE.fields if not field.nullable]
    texts = [*schema.LABEL_COLUMNS, "side"]
    try:
        with reaching_lake(), io.new_input(location).open() as stream:
            file = pq.ParquetFile(stream, read_dictionary=texts)
            for batch in file.iter_batches(batch_size=_READ_ROWS, columns=names):
                yield from _by_partition(batch)
    except (pa.ArrowInvalid, KeyError) as error:
        raise Data(Reason.LAKE_CORRUPT, f"{location} cannot be read: {error}") from error


def _by_partition(batch: pa.RecordBatch) -> Iterator[PartitionRows]:
    epoch = batch.column("tape_epoch").to_numpy().astype(np.int64)
    place = epoch << 32 | batch.column("tape_partition").to_numpy()
    columns = columns_of(batch)
    for number in np.unique(place).tolist():
        mine = place == number
        rows = columns if mine.all() else columns.take(mine)
        yield PartitionRows(number & 0xFFFFFFFF, rows, number >> 32)


def columns_of(batch: pa.RecordBatch) -> TradeColumns:
    """Convert a record batch of lake rows to columns; label texts come as dictionaries."""
    labels, label = _labels(batch)
    sides = _codes(batch.column("side"), schema.SIDES)
    return TradeColumns(
        offset=batch.column("tape_offset").to_numpy(),
        labels=labels,
        label=label,
        trade_id=batch.column("trade_id").to_numpy(),
        event_time=batch.column("event_time").view(pa.int64()).to_numpy(),
        receive_time=batch.column("receive_time").view(pa.int64()).to_numpy(),
        price=_words(batch.column("price"))[:, 0],
        quantity=_words(batch.column("quantity")),
        side=sides.astype(np.uint8),
        vendor_data=batch.column("vendor_data"),
        fault=np.zeros(len(sides), dtype=np.uint8),
    )


def _labels(batch: pa.RecordBatch) -> tuple[tuple[Label, ...], Int32s]:
    """Find the distinct labels and each row's; rows are sorted by symbol: labels come in runs."""
    columns = [batch.column(name) for name in schema.LABEL_COLUMNS]
    codes = np.stack([column.indices.to_numpy() for column in columns])
    starts = np.ones(codes.shape[1], dtype=np.bool_)
    starts[1:] = (codes[:, 1:] != codes[:, :-1]).any(axis=0)
    known: dict[Label, int] = {}
    values = [column.dictionary.to_pylist() for column in columns]
    of_run = [
        known.setdefault(
            Label(*(texts[code] for texts, code in zip(values, run, strict=True))), len(known)
        )
        for run in codes[:, starts].T.tolist()
    ]
    return tuple(known), np.array(of_run, dtype=np.int32)[np.cumsum(starts) - 1]


def _codes(column: pa.DictionaryArray, names: Sequence[str]) -> Int32s:
    """Return each text as its index in `names`."""
    of_value = [names.index(text) for text in column.dictionary.to_pylist()]
    codes: Int32s = np.array(of_value, dtype=np.int32)[column.indices.to_numpy()]
    return codes


def _words(column: pa.Array) -> Int64s:
    """Return decimals as little-endian words (low, high). int64[n, 2]."""
    words = np.frombuffer(column.buffers()[1], dtype=np.int64)
    return words[2 * column.offset : 2 * (column.offset + len(column))].reshape(-1, 2)
