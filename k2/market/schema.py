"""Each event, declared once; Avro (tape), Iceberg (lake) and Arrow (wire) derive from it.

The trade is "V2". Its first six columns are constant over long runs of records: together they are
a record's *label*, and they lead the Avro record so that a whole batch's labels are found in one
pass. The last three say where the row sits on the tape; a message does not carry them, its position
does.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
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
    MAP = "map"
    BYTES = "bytes"
    DOUBLE = "double"
    BOOL = "bool"


@dataclass(frozen=True)
class Field:
    """One column.

    Attributes:
        name: column name, the same everywhere.
        kind: its type.
        doc: its meaning, in the data dictionary, the Avro schema and the Iceberg table.
        on_tape: whether a message carries it.
        nullable: whether a row may lack it.
    """

    name: str
    kind: Kind
    doc: str
    on_tape: bool = True
    nullable: bool = False


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
        Field("vendor_data", Kind.MAP, "What this venue adds; its new fields land here."),
        Field("tape_epoch", Kind.INT, "Life of the topic the row was read from.", on_tape=False),
        Field("tape_partition", Kind.INT, "Partition of the topic.", on_tape=False),
        Field("tape_offset", Kind.LONG, "Offset in the partition.", on_tape=False),
    ),
)

GAP = Event(
    name="Gap",
    doc=(
        "Trade ids that are missing, and what became of them: from this event on they have this"
        " state, whatever was said of them before. Repeating one changes nothing."
    ),
    fields=(
        Field("exchange", Kind.STRING, "Id space of the venue: BINANCE."),
        Field("symbol", Kind.STRING, "As the venue prints it: BTCUSDT."),
        Field("first_id", Kind.LONG, "The first of the missing trade ids."),
        Field("last_id", Kind.LONG, "The last of the missing trade ids, itself missing."),
        Field("detected", Kind.TIME, "When they were found missing (UTC)."),
        Field(
            "cause", Kind.STRING, "SEQUENCE, DISCONNECT, OUTAGE, SHED, REFUSED, EPOCH, REQUESTED."
        ),
        Field("state", Kind.STRING, "OPEN, FILLED, UNFILLABLE or VOID (printed, no trade)."),
        Field("recorded", Kind.TIME, "When this event was made (UTC)."),
        Field("filled_at", Kind.TIME, "When the trades came; null unless FILLED.", nullable=True),
        Field("reason", Kind.STRING, "Why not; null unless UNFILLABLE.", nullable=True),
        Field("feed", Kind.STRING, "The run of the feed, or what else made this event."),
        Field("tape_epoch", Kind.INT, "Life of the topic k2.gaps.", on_tape=False),
        Field("tape_partition", Kind.INT, "Partition of k2.gaps: 0.", on_tape=False),
        Field("tape_offset", Kind.LONG, "Offset on k2.gaps.", on_tape=False),
    ),
)

DEAD_LETTER = Event(
    name="DeadLetter",
    doc="One record that K2 could not take, with its bytes. Identity: the four origin columns.",
    fields=(
        Field("origin", Kind.STRING, "The topic it sits on, or the run of the feed it came from."),
        Field("origin_epoch", Kind.INT, "Life of that topic."),
        Field("origin_partition", Kind.INT, "Partition of that topic; 0 for a feed."),
        Field("origin_offset", Kind.LONG, "Offset there, or the number of the feed's letter."),
        Field("schema_id", Kind.LONG, "The schema it names; null for none.", nullable=True),
        Field("fault", Kind.STRING, "What is wrong with it: a Fault of market/events.py."),
        Field("error", Kind.STRING, "The same in words."),
        Field("judged", Kind.TIME, "When it was found wrong (UTC)."),
        Field("value", Kind.BYTES, "Its bytes as they were; null for none.", nullable=True),
        Field("tape_epoch", Kind.INT, "Life of the topic k2.dead-letters.", on_tape=False),
        Field("tape_partition", Kind.INT, "Partition of k2.dead-letters: 0.", on_tape=False),
        Field("tape_offset", Kind.LONG, "Offset on k2.dead-letters.", on_tape=False),
    ),
)

TRANSITION = Event(
    name="Transition",
    doc="One change of the platform's degradation level, or of an operator's override of it.",
    fields=(
        Field("changed", Kind.TIME, "When it changed (UTC)."),
        Field("from_level", Kind.STRING, "NORMAL, SOFT, GRACEFUL, AGGRESSIVE or CIRCUIT_BREAK."),
        Field("to_level", Kind.STRING, "The level after."),
        Field("cause", Kind.STRING, "PRESSURE, CALM, OVERRIDE or OVERRIDE_ENDED."),
        Field("process", Kind.STRING, "Whose pressure was the highest; empty of an override."),
        Field("signal", Kind.STRING, "Which signal; empty of an override."),
        Field("reading", Kind.DOUBLE, "Of the signal; null if it was not readable.", nullable=True),
        Field("pressure", Kind.DOUBLE, "The highest pressure, 0 to 1."),
        Field("threshold", Kind.DOUBLE, "The pressure that the level begins or ends at."),
        Field("injected", Kind.BOOL, "Whether an operator set the pressure."),
        Field("reason", Kind.STRING, "Of an override, in the operator's words; else empty."),
        Field("tape_epoch", Kind.INT, "Life of the topic k2.transitions.", on_tape=False),
        Field("tape_partition", Kind.INT, "Partition of k2.transitions: 0.", on_tape=False),
        Field("tape_offset", Kind.LONG, "Offset on k2.transitions.", on_tape=False),
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
    Kind.MAP: pa.map_(pa.string(), pa.string()),
    Kind.BYTES: pa.binary(),
    Kind.DOUBLE: pa.float64(),
    Kind.BOOL: pa.bool_(),
}

NARROW_QUANTITY = pa.decimal128(limits.NARROW_QUANTITY_DIGITS, limits.QUANTITY_SCALE)
NARROW_END = Decimal(10) ** (limits.NARROW_QUANTITY_DIGITS - limits.QUANTITY_SCALE)

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
    Kind.MAP: {"type": "map", "values": "string"},
    Kind.BYTES: "bytes",
    Kind.DOUBLE: "double",
    Kind.BOOL: "boolean",
}


@cache
def optional_type(event: Event) -> pa.StructType:
    """Return the columns that a message may lack as one Arrow struct; often an empty one."""
    schema = arrow_schema(event)
    fields = [each for each in event.fields if each.nullable and each.on_tape]
    return pa.struct([schema.field(each.name) for each in fields])


@cache
def arrow_schema(event: Event) -> pa.Schema:
    """Return the event's Arrow schema: every column, in order."""
    return pa.schema(
        [pa.field(each.name, _ARROW[each.kind], nullable=each.nullable) for each in event.fields]
    )


def avro_schema(event: Event) -> dict[str, object]:
    """Return the event's Avro schema as a JSON document: the columns a message carries."""
    return {
        "type": "record",
        "name": event.name,
        "namespace": "k2.market",
        "doc": event.doc,
        "fields": [_avro_field(field) for field in event.fields if field.on_tape],
    }


def _avro_field(field: Field) -> dict[str, object]:
    made = {"name": field.name, "type": _AVRO[field.kind], "doc": field.doc}
    if field.nullable:
        made |= {"type": ["null", _AVRO[field.kind]], "default": None}
    return made
