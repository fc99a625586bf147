"""Trades to bytes and back: Confluent wire format, decoded column by column over a whole batch.

A message is 0x00, a schema id (4 bytes, big-endian) and one Avro record. Decoding joins a batch
into one buffer (`cursors.py`) and reads field by field for all messages at once. A message that
does not fit its schema is marked with a `Fault`; the others never notice. Whatever the bytes are,
decoding does not fail.

Writers' schemas may differ from ours as Avro's resolution allows for fields that were added or
removed (`resolution.py`): a field we do not know is skipped, the order may differ, `int` is read as
`long`, an enum may name its symbols in another order. A schema that cannot give a trade makes its
messages UNKNOWN_SCHEMA: better a dead letter than a number that is wrong by a factor.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2 import limits
from k2.errors import Unavailable
from k2.market import schema
from k2.market.events import Fault, Int32s, Int64s, Label, Trade, TradeColumns
from k2.tape.avro.cursors import (
    NONE,
    Cursors,
    Joined,
    gather,
    join,
    not_text,
    some,
    text_array,
)
from k2.tape.avro.optional_columns import Part, assembled
from k2.tape.avro.resolution import ReadStep, resolve
from k2.tape.avro.tag_table import LabelTable
from k2.tape.avro.trade_columns import Cells, Entries, read_cells
from k2.tape.consumer import RawBatch
from k2.tape.ports import Schemas

Plan: TypeAlias = tuple[ReadStep, ...] | None  # None for a schema that gives no trade

MAGIC = 0
HEADER_BYTES = 5

_WRITTEN = (
    *schema.LABEL_COLUMNS, "trade_id", "event_time", "receive_time", "price", "quantity", "side",
    "vendor_data",
)  # fmt: skip
_OPTIONAL = schema.optional_type(schema.TRADE).names
_UNSAID = bytes(len(_OPTIONAL))  # each optional column: the branch of null

assert [field.name for field in schema.TRADE.fields if field.on_tape] == [*_WRITTEN, *_OPTIONAL], (
    "encode_trade writes the columns in this order"
)


# --- encoding -----------------------------------------------------------------------------------


def encode_trade(trade: Trade, schema_id: int) -> bytes:
    """Encode a trade as a message of the schema that `topics.deploy` registered.

    Args:
        trade: normalised; its decimals fit (`events.check` judges that).
        schema_id: what `deploy` returned.
    """
    price, quantity = trade.price, trade.quantity
    price_bytes = (price.bit_length() >> 3) + 1
    quantity_bytes = (quantity.bit_length() >> 3) + 1
    return b"".join(
        (
            _head(trade.label, schema_id),
            _long(trade.trade_id),
            _long(trade.event_time_us),
            _long(trade.receive_time_us),
            _SHORT[price_bytes],
            price.to_bytes(price_bytes, "big", signed=True),
            _SHORT[quantity_bytes],
            quantity.to_bytes(quantity_bytes, "big", signed=True),
            _SHORT[trade.side],
            _vendor(trade.vendor_data) if trade.vendor_data else b"\x00",
            _UNSAID,
        )
    )


@lru_cache(maxsize=limits.LABELS_KNOWN_MAX)
def _head(label: Label, schema_id: int) -> bytes:
    return bytes([MAGIC]) + schema_id.to_bytes(4, "big") + b"".join(map(_text, label))


def _text(text: str) -> bytes:
    content = text.encode()
    return _long(len(content)) + content


def _vendor(entries: dict[str, str]) -> bytes:
    parts = [_long(len(entries))]
    for key, value in entries.items():
        parts += (_text(key), _text(value))
    parts.append(b"\x00")
    return b"".join(parts)


def _varint(value: int) -> bytes:
    content = bytearray()
    while value >= 0x80:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    content.append(value)
    return bytes(content)


_SHORT = [_varint(value << 1) for value in range(64)]  # small numbers, zigzag
_PAIRS = [bytes([value & 0x7F | 0x80, value >> 7 | 0x80]) for value in range(1 << 14)]
_LAST = [_varint(value) for value in range(1 << 14)]


def _long(value: int) -> bytes:
    """Encode a zigzag varint, two seven-bit groups at a time."""
    rest = (value << 1) ^ (value >> 63)
    if rest < 0x4000:
        return _LAST[rest]
    content = _PAIRS[rest & 0x3FFF]
    rest >>= 14
    while rest >= 0x4000:
        content += _PAIRS[rest & 0x3FFF]
        rest >>= 14
    return content + _LAST[rest]


# --- decoding -----------------------------------------------------------------------------------


class Decoder:
    """Decodes batches. One thread uses a decoder; it remembers schemas and labels.

    Attributes:
        labels: those met in recent batches; bounded, then forgotten all at once.
        warm: whether the schema of any trade was found so far, in the registry or its cache: then
            an id that cannot be asked for is not that of a topic never read before.
    """

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._plans: dict[int, Plan] = {}
        self.labels = LabelTable()
        self.warm = False

    def decode(self, batch: RawBatch) -> TradeColumns:
        """Columns of a batch, a `Fault` for each record that is not a trade.

        No record is judged before its schema id was asked for, and a batch asks for at most
        `limits.SCHEMA_LOOKUPS_PER_BATCH` new ones: what begins with the first record that asks for
        more, or whose id cannot be asked for now, is left out.

        Returns:
            Columns of the longest such prefix. When they are fewer than the batch has records,
            decode the others again later (`acceptance.Judged.rest`); there is at least one.

        Raises:
            Unavailable: REGISTRY_UNAVAILABLE when the first record's schema id was never seen and
                the registry cannot be asked: decode the same batch again later.
            Data: SCHEMA_CONFLICT, CHECKSUM_MISMATCH: what an id means is in doubt.
        """
        if len(self.labels) > limits.LABELS_KNOWN_MAX:
            self.labels.clear()
        count = len(batch)
        joined, fault = _join(batch.values)
        groups = _by_schema(joined, fault)
        plans, judged = self._plans_of(groups, count)
        if judged < count:
            joined, fault = _join(batch.values[:judged])
            groups = _by_schema(joined, fault)
        out = _Columns(judged, fault, self.labels)
        for schema_id, rows in groups:
            steps = plans[schema_id]
            if steps is None:
                fault[rows] = Fault.UNKNOWN_SCHEMA
                continue
            cursors = Cursors(joined, joined.start[rows] + HEADER_BYTES, joined.end[rows])
            out.put(rows, read_cells(steps, cursors, self.labels))
        return out.finish(joined, batch.offset[:judged])

    def _plans_of(
        self, groups: list[tuple[int, npt.NDArray[np.intp]]], count: int
    ) -> tuple[dict[int, Plan], int]:
        """Resolve each schema in the order of its first record, as far as that is possible now."""
        plans: dict[int, Plan] = {}
        lookups = 0
        for schema_id, rows in sorted(groups, key=lambda group: group[1][0]):
            first = int(rows[0])
            if schema_id not in self._plans and not self._schemas.remembers(schema_id):
                if lookups == limits.SCHEMA_LOOKUPS_PER_BATCH:
                    return plans, first
                lookups += 1
            try:
                plans[schema_id] = self._plan(schema_id)
            except Unavailable:
                if first == 0:
                    raise
                return plans, first
        return plans, count

    def _plan(self, schema_id: int) -> Plan:
        if schema_id not in self._plans:
            try:
                written = self._schemas.schema(schema_id)
            except KeyError:
                return None  # asked again later: it may be registered by then
            if len(self._plans) >= limits.SCHEMAS_KNOWN_MAX:
                self._plans.clear()
            steps = self._plans[schema_id] = resolve(written)
            self.warm = self.warm or steps is not None
        return self._plans[schema_id]


def _join(values: list[bytes | None]) -> tuple[Joined, npt.NDArray[np.uint8]]:
    """Join the messages in one buffer, and find the faults that show without a schema."""
    fault = np.zeros(len(values), dtype=np.uint8)
    try:
        joined = join(values)  # type: ignore[arg-type]
    except TypeError:
        fault[[value is None for value in values]] = Fault.NULL_VALUE
        joined = join([value or b"" for value in values])
    size = joined.end - joined.start
    strange = joined.buffer[joined.start] != MAGIC
    odd = strange | (size < HEADER_BYTES) | (size > limits.RECORD_BYTES_MAX)
    if some(odd):
        _mark(fault, size > limits.RECORD_BYTES_MAX, Fault.OVERSIZE)
        _mark(fault, strange | (size == 0), Fault.BAD_MAGIC)
        _mark(fault, size < HEADER_BYTES, Fault.TRUNCATED)
    return joined, fault


def _mark(fault: npt.NDArray[np.uint8], bad: npt.NDArray[np.bool_], what: Fault) -> None:
    fault[bad & (fault == NONE)] = what


def _by_schema(
    joined: Joined, fault: npt.NDArray[np.uint8]
) -> list[tuple[int, npt.NDArray[np.intp]]]:
    """Messages without a fault, by the schema id that they name."""
    good = np.flatnonzero(fault == NONE)
    if not len(good):
        return []
    ids = (joined.words[joined.start[good] + 1].byteswap() >> np.uint64(32)).astype(np.int64)
    if some(ids == ids[0]) == len(ids):
        return [(int(ids[0]), good)]
    order = np.argsort(ids, kind="stable")
    named = ids[order]
    starts = np.flatnonzero(np.diff(named, prepend=-1))
    return list(zip(named[starts].tolist(), np.split(good[order], starts[1:]), strict=True))


class _Columns:
    """The columns of a whole batch, filled schema by schema."""

    def __init__(self, count: int, fault: npt.NDArray[np.uint8], labels: LabelTable) -> None:
        self._labels = labels
        self._fault = fault
        self._label = np.full(count, -1, dtype=np.int32)
        self._longs = np.zeros((3, count), dtype=np.int64)
        self._price = np.zeros(count, dtype=np.int64)
        self._quantity = np.zeros((count, 2), dtype=np.int64)
        self._side = np.zeros(count, dtype=np.uint8)
        self._entries: list[Entries] = []
        self._optional: list[Part] = []

    def put(self, rows: npt.NDArray[np.intp], cells: Cells) -> None:
        """Put what was read where it belongs."""
        self._fault[rows] = cells.fault
        self._label[rows] = cells.label
        self._longs[0, rows] = cells.longs["trade_id"]
        self._longs[1, rows] = cells.longs["event_time"]
        self._longs[2, rows] = cells.longs["receive_time"]
        self._price[rows] = cells.price
        self._quantity[rows] = cells.quantity
        self._side[rows] = cells.side
        if len(cells.entries.row):
            cells.entries.row = rows[cells.entries.row]
            self._entries.append(cells.entries)
        self._optional.append((rows, cells.optional))

    def finish(self, joined: Joined, offset: Int64s) -> TradeColumns:
        """Columns with zeros where there is a fault."""
        vendor = self._vendor(joined)
        bad = self._fault != NONE
        if some(bad):
            self._label[bad] = -1
            self._longs[:, bad] = 0
            self._price[bad] = 0
            self._quantity[bad] = 0
            self._side[bad] = 0
        labels, label = _compact(self._labels.labels, self._label)
        return TradeColumns(
            offset=offset,
            labels=labels,
            label=label,
            trade_id=self._longs[0],
            event_time=self._longs[1],
            receive_time=self._longs[2],
            price=self._price,
            quantity=self._quantity,
            side=self._side,
            vendor_data=vendor,
            fault=self._fault,
            optional=assembled(self._optional, self._fault),
        )

    def _vendor(self, joined: Joined) -> pa.MapArray | None:
        """Make the maps of all rows; mark the rows whose texts are not UTF-8."""
        entries = self._merged()
        if entries is None:
            return None
        keys = gather(joined, entries.key_start, entries.key_length)
        values = gather(joined, entries.value_start, entries.value_length)
        bad = np.concatenate((not_text(*keys), not_text(*values)))
        if len(bad):
            self._fault[entries.row[bad]] = Fault.BAD_VALUE
            return self._vendor(joined)
        counts = np.bincount(entries.row, minlength=len(self._fault))
        bounds = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        return pa.MapArray.from_arrays(pa.array(bounds), text_array(*keys), text_array(*values))

    def _merged(self) -> Entries | None:
        """Entries of all good rows, in row order; None when there are none."""
        if not self._entries:
            return None
        parts = [vars(entries) for entries in self._entries]
        entries = Entries(**{name: np.concatenate([p[name] for p in parts]) for name in parts[0]})
        entries = entries.where(self._fault[entries.row] == NONE)
        if len(self._entries) > 1:
            order = np.argsort(entries.row, kind="stable")
            entries = Entries(**{name: column[order] for name, column in vars(entries).items()})
        return entries if len(entries.row) else None


def _compact(known: list[Label], code: Int32s) -> tuple[tuple[Label, ...], Int32s]:
    """Return the labels that occur, and each row's index into them; -1 stays."""
    used = np.flatnonzero(np.bincount(code + 1, minlength=len(known) + 1)[1:])
    index = np.full(len(known) + 1, -1, dtype=np.int32)
    index[used] = np.arange(len(used), dtype=np.int32)
    return tuple(known[each] for each in used.tolist()), index[code]
