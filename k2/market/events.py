"""Trades in columns: what the codec decodes, the fold judges, and the lake and the tail keep.

A batch holds the records of one partition in offset order, good and bad alike: a record that could
not be decoded, or whose values break a rule, carries a `Fault` and zeros. Rules look at the record
alone (never at a clock), so writer, tail and verify judge it alike, whenever they read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple
from unicodedata import category

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2 import limits
from k2.market import schema
from k2.market.instrument import Instrument

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

EVENT_TIME_MIN_US = 1_230_768_000_000_000  # 2009-01-01: no venue K2 knows is older
RECORD_TIME_MAX_US = 7_258_118_400_000_000  # 2200-01-01: the hard maximum of a record's times
TIME_MAX_US = 253_402_300_799_999_999  # the end of the year 9999, which every library can name
DAY_US = 86_400_000_000
ANYWHERE = -1  # the partition of a record that is on none


class Fault(IntEnum):
    """Why a record is a dead letter; NONE for a good one."""

    NONE = 0
    BAD_MAGIC = 1  # not Confluent wire format
    UNKNOWN_SCHEMA = 2  # a schema id that the registry does not know
    TRUNCATED = 3  # ends inside a field
    TRAILING = 4  # bytes after the last field
    BAD_VALUE = 5  # a value its type cannot hold
    OUT_OF_RANGE = 6  # decimal, time or id beyond what K2 stores
    WRONG_PARTITION = 7  # not where the partition map puts its symbol
    OVERSIZE = 8  # larger than a record may be
    NULL_VALUE = 9  # a message without a value
    TOO_MANY_HOLES = 10  # beyond what the fold remembers of one symbol: wait, then replay
    REUSED_ID = 11  # an id of an earlier life of its symbol: the venue began its ids again
    INTERNAL = 12  # K2 failed on it, by a defect of K2


# Depend on what the process that judged knew, or on its version: the commit decides.
RETRIABLE_FAULTS = frozenset({Fault.UNKNOWN_SCHEMA, Fault.WRONG_PARTITION, Fault.INTERNAL})


class Label(NamedTuple):
    """What is constant over a run of records: the columns of `schema.LABEL_COLUMNS`."""

    exchange: str
    symbol: str
    base: str
    quote: str
    asset_class: str
    source: str

    @property
    def instrument(self) -> Instrument:
        """The identity part."""
        return Instrument(self.exchange, self.symbol)


class Trade(NamedTuple):
    """One normalised trade, as a feed makes it.

    Attributes:
        label: exchange, symbol and the other constant columns.
        trade_id: the venue's id.
        event_time_us, receive_time_us: microseconds since 1970 UTC.
        price, quantity: mantissas in units of 1e-8, exact.
        side: index into `schema.SIDES`.
        vendor_data: what the venue adds.
    """

    label: Label
    trade_id: int
    event_time_us: int
    receive_time_us: int
    price: int
    quantity: int
    side: int
    vendor_data: dict[str, str]


@dataclass(frozen=True)
class TradeColumns:
    """A batch of one partition, n records in offset order.

    Attributes:
        offset: tape offsets, ascending (not always contiguous). int64[n]
        labels: distinct labels of the batch.
        label: index into `labels`; -1 where a fault left none. int32[n]
        trade_id, event_time, receive_time: int64[n], times in microseconds.
        price: mantissa, units of 1e-8. int64[n]
        quantity: decimal128 as little-endian words (low as its bit pattern, high), units of 1e-8.
            int64[n, 2]
        side: index into `schema.SIDES`. uint8[n]
        vendor_data: map<string, string> of n rows, or None when every map is empty.
        fault: `Fault` of each record. uint8[n]
        optional: the optional columns of n rows, `schema.optional_type(TRADE)`, or None when all
            of them are null.
    """

    offset: Int64s
    labels: tuple[Label, ...]
    label: Int32s
    trade_id: Int64s
    event_time: Int64s
    receive_time: Int64s
    price: Int64s
    quantity: Int64s
    side: Bytes
    vendor_data: pa.MapArray | None
    fault: Bytes
    optional: pa.StructArray | None = None

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, indices: npt.NDArray[Any]) -> TradeColumns:
        """Select the records at `indices` (integers or a mask), in that order."""
        vendor, optional = self.vendor_data, self.optional
        if vendor is not None or optional is not None:
            rows = pa.array(np.flatnonzero(indices) if indices.dtype == np.bool_ else indices)
            vendor = vendor.take(rows) if vendor is not None else None
            optional = optional.take(rows) if optional is not None else None
        return TradeColumns(
            self.offset[indices],
            self.labels,
            self.label[indices],
            self.trade_id[indices],
            self.event_time[indices],
            self.receive_time[indices],
            self.price[indices],
            self.quantity[indices],
            self.side[indices],
            vendor,
            self.fault[indices],
            optional,
        )

    def between(self, low: int, high: int) -> TradeColumns:
        """Select the records low <= i < high of a batch without vendor_data and optional columns.

        Labels that none of them has are left out, so that the others are all that costs time.
        """
        assert self.vendor_data is None
        assert self.optional is None
        codes = self.label[low:high]
        used = sorted(set(codes.tolist()))
        return TradeColumns(
            self.offset[low:high],
            tuple(self.labels[code] for code in used),
            np.searchsorted(used, codes).astype(np.int32),
            self.trade_id[low:high],
            self.event_time[low:high],
            self.receive_time[low:high],
            self.price[low:high],
            self.quantity[low:high],
            self.side[low:high],
            None,
            self.fault[low:high],
        )


def check(
    columns: TradeColumns,
    expected_partition: Mapping[Instrument, int],
    partition: int,
    append_time: Int64s | None = None,
) -> TradeColumns:
    """Mark the records whose values break a rule; earlier faults stay as they are.

    The rules: ids are not negative; event_time is from 2009 to one day after the broker appended
    the record, receive_time from 2009, both before 2200; price and quantity are positive; the
    constant columns are short and printable, and the source is one of `schema.SOURCES`; the symbol
    belongs on `partition`.

    Args:
        columns: a decoded batch.
        expected_partition: the partition map; a symbol it lacks is in the wrong partition.
        partition: where the batch was read; ANYWHERE: only a symbol without a place is at fault.
        append_time: the broker's time of each record (`LogAppendTime`), microseconds; None, or
            `RECORD_TIME_MAX_US`, where its producer stamped it, which proves nothing. int64[n]
    """
    good = columns.fault == Fault.NONE
    fault = columns.fault.copy()
    fault[good & ~_in_range(columns, append_time)] = Fault.OUT_OF_RANGE
    if len(columns.labels):
        named = np.array([_is_plain(label) for label in columns.labels])
        fault[(fault == Fault.NONE) & ~named[columns.label]] = Fault.BAD_VALUE
        homes = np.array(
            [expected_partition.get(label.instrument, -1) for label in columns.labels], np.int64
        )
        away = homes < 0 if partition == ANYWHERE else homes != partition
        fault[(fault == Fault.NONE) & away[columns.label]] = Fault.WRONG_PARTITION
    return replace(columns, fault=fault)


def _in_range(columns: TradeColumns, append_time: Int64s | None) -> Bools:
    """Which records have an id, times, a price and a quantity that K2 stores."""
    event, receive = columns.event_time, columns.receive_time
    latest: int | Int64s = RECORD_TIME_MAX_US - 1
    if append_time is not None:
        latest = np.minimum(np.minimum(append_time, RECORD_TIME_MAX_US) + DAY_US, latest)
    quantity_low, quantity_high = columns.quantity[:, 0], columns.quantity[:, 1]
    in_range: Bools = (
        (columns.trade_id >= 0)
        & (event >= EVENT_TIME_MIN_US)
        & (event <= latest)
        & (receive >= EVENT_TIME_MIN_US)
        & (receive < RECORD_TIME_MAX_US)
        & (columns.price > 0)
        & ((quantity_high > 0) | ((quantity_high == 0) & (quantity_low != 0)))
    )
    return in_range


@lru_cache(maxsize=limits.LABELS_KNOWN_MAX)
def _is_plain(label: Label) -> bool:
    """Return whether a label's source is known and its texts are short, without control codes."""
    texts = (label.base, label.quote, label.asset_class)
    return label.source in schema.SOURCES and all(
        len(text) <= limits.LABEL_CHARACTERS_MAX
        and not any(category(character) == "Cc" for character in text)
        for text in texts
    )


def decimal_array(words: Int64s, kind: pa.Decimal128Type) -> pa.Array:
    """Make a decimal128 array over little-endian words; copies nothing.

    Args:
        words: (low, high) of each value. int64[n, 2], C order.
        kind: precision and scale.
    """
    words = np.ascontiguousarray(words)
    return pa.Array.from_buffers(kind, len(words), [None, pa.py_buffer(words)])


def widen(mantissa: Int64s) -> Int64s:
    """int64[n] mantissas as decimal128 words int64[n, 2]."""
    words = np.empty((len(mantissa), 2), dtype=np.int64)
    words[:, 0] = mantissa
    words[:, 1] = mantissa >> 63
    return words


def to_arrow(columns: TradeColumns, epoch: int, partition: int) -> pa.RecordBatch:
    """Good records as rows of `schema.arrow_schema(TRADE)`.

    Args:
        columns: records without a fault (take them first).
        epoch: tape epoch.
        partition: tape partition.
    """
    trade = schema.arrow_schema(schema.TRADE)
    rows = len(columns)
    arrays: dict[str, pa.Array] = {}
    for position, name in enumerate(schema.LABEL_COLUMNS):
        values = pa.array([label[position] for label in columns.labels], pa.string())
        arrays[name] = values.take(pa.array(columns.label))
    for name in ("trade_id", "event_time", "receive_time"):
        words = np.ascontiguousarray(getattr(columns, name))
        arrays[name] = pa.array(words).view(trade.field(name).type)
    arrays["price"] = decimal_array(widen(columns.price), trade.field("price").type)
    arrays["quantity"] = decimal_array(columns.quantity, trade.field("quantity").type)
    arrays["side"] = pa.array(schema.SIDES, pa.string()).take(pa.array(columns.side))
    arrays["vendor_data"] = (
        columns.vendor_data if columns.vendor_data is not None else no_vendor(rows)
    )
    optional = columns.optional if columns.optional is not None else no_optional(rows)
    arrays |= dict(zip(optional.type.names, optional.flatten(), strict=True))
    arrays["tape_epoch"] = pa.array(np.full(rows, epoch, np.int32))
    arrays["tape_partition"] = pa.array(np.full(rows, partition, np.int32))
    arrays["tape_offset"] = pa.array(np.ascontiguousarray(columns.offset))
    return pa.RecordBatch.from_arrays([arrays[name] for name in trade.names], schema=trade)


def no_vendor(rows: int) -> pa.MapArray:
    """`rows` empty maps."""
    empty = pa.array([], pa.string())
    return pa.MapArray.from_arrays(pa.array(np.zeros(rows + 1, np.int32)), empty, empty)


def no_optional(rows: int) -> pa.StructArray:
    """`rows` times nothing in the optional columns."""
    return pa.nulls(rows, schema.optional_type(schema.TRADE))
