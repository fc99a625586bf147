"""Each event, declared once; Avro (tape), Iceberg (lake) and Arrow (wire) derive from it.

The trade is "V2". Its first six columns are constant over long runs of records: together they are
a record's *label*, and they lead the Avro record so that a whole batch's labels are found in one
pass. The last three say where the row sits on the tape; a message does not carry them, its position
does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache

import pyarrow as pa

from k2 import limits


class Kind(Enum):
    """The types K2 stores, each with one form in Avro, Arrow and Iceberg."""

    STRING = "string"
    SIDE = "side"
    INT = "int"
    LONG = "long"
    TIME = "time"
    PRICE = "price"
    QUANTITY = "quantity"
    LABELS = "labels"


@dataclass(frozen=True)
class Field:
    """One column.

    Attributes:
        name: column name, the same everywhere.
        kind: its type.
        doc: its meaning, in the data dictionary, the Avro schema and the Iceberg table.
        on_tape: whether a message carries it.
    """

    name: str
    kind: Kind
    doc: str
    on_tape: bool = True


@dataclass(frozen=True)
class Event:
    """One kind of event: its name, its columns in order, and its meaning."""

    name: str
    doc: str
    fields: tuple[Field, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in order."""
        return tuple(field.name for field in self.fields)


SIDES = ("BUY", "SELL")
SOURCES = ("live", "backfill", "recorded", "simulated")
LABEL_COLUMNS = ("exchange", "symbol", "base", "quote", "asset_class", "source")

TRADE = Event(
    name="Trade",
    doc="One trade as its venue printed it. Identity: (exchange, symbol, trade_id).",
    fields=(
        Field("exchange", Kind.STRING, "Id space of the venue, upper case: BINANCE, BINANCE_UM."),
        Field("symbol", Kind.STRING, "As the venue prints it, upper case: BTCUSDT."),
        Field("base", Kind.STRING, "What is traded: BTC."),
        Field("quote", Kind.STRING, "What it is priced in: USDT."),
        Field("asset_class", Kind.STRING, "crypto."),
        Field("source", Kind.STRING, "live, backfill, recorded or simulated."),
        Field("trade_id", Kind.LONG, "The venue's own id of the trade."),
        Field("event_time", Kind.TIME, "When the venue says it traded (UTC)."),
        Field("receive_time", Kind.TIME, "When K2 received the frame (UTC)."),
        Field("price", Kind.PRICE, "Price in the quote currency, exact."),
        Field("quantity", Kind.QUANTITY, "Quantity in the base currency, exact."),
        Field("side", Kind.SIDE, "The aggressor (taker): BUY or SELL."),
        Field("vendor_data", Kind.LABELS, "What this venue adds; its new fields land here."),
        Field("tape_epoch", Kind.INT, "Life of the topic the row was read from.", on_tape=False),
        Field("tape_partition", Kind.INT, "Partition of the topic.", on_tape=False),
        Field("tape_offset", Kind.LONG, "Offset in the partition.", on_tape=False),
    ),
)

_ARROW: dict[Kind, pa.DataType] = {
    Kind.STRING: pa.string(),
    Kind.SIDE: pa.string(),
    Kind.INT: pa.int32(),
    Kind.LONG: pa.int64(),
    Kind.TIME: pa.timestamp("us", tz="UTC"),
    Kind.PRICE: pa.decimal128(limits.PRICE_DIGITS, limits.PRICE_SCALE),
    Kind.QUANTITY: pa.decimal128(limits.QUANTITY_DIGITS, limits.QUANTITY_SCALE),
    Kind.LABELS: pa.map_(pa.string(), pa.string()),
}

_AVRO: dict[Kind, object] = {
    Kind.STRING: "string",
    Kind.SIDE: {"type": "enum", "name": "Side", "symbols": list(SIDES)},
    Kind.INT: "int",
    Kind.LONG: "long",
    Kind.TIME: {"type": "long", "logicalType": "timestamp-micros"},
    Kind.PRICE: {
        "type": "bytes",
        "logicalType": "decimal",
        "precision": limits.PRICE_DIGITS,
        "scale": limits.PRICE_SCALE,
    },
    Kind.QUANTITY: {
        "type": "bytes",
        "logicalType": "decimal",
        "precision": limits.QUANTITY_DIGITS,
        "scale": limits.QUANTITY_SCALE,
    },
    Kind.LABELS: {"type": "map", "values": "string"},
}


@cache
def arrow_schema(event: Event) -> pa.Schema:
    """The event's Arrow schema: every column, in order, none nullable."""
    return pa.schema(
        [pa.field(field.name, _ARROW[field.kind], nullable=False) for field in event.fields]
    )


def avro_schema(event: Event) -> dict[str, object]:
    """The event's Avro schema as a JSON document: the columns a message carries."""
    return {
        "type": "record",
        "name": event.name,
        "namespace": "k2.market",
        "doc": event.doc,
        "fields": [
            {"name": field.name, "type": _AVRO[field.kind], "doc": field.doc}
            for field in event.fields
            if field.on_tape
        ],
    }
