"""Messages for tests: trades, strategies that make them, and what another Avro library reads."""

import io
from decimal import Context, Decimal

import fastavro
import numpy as np
from hypothesis import strategies as st

from k2.market import schema
from k2.market.events import Label, Trade
from k2.tape.consumer import RawBatch

SCHEMA_ID = 7
SCHEMA = schema.avro_schema(schema.TRADE)
PARSED = fastavro.parse_schema(SCHEMA)
MICROSECOND = 1_000_000
INT64 = st.integers(-(2**63), 2**63 - 1)
# Any scalar but surrogates, which UTF-8 cannot carry.
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


class Schemas:
    """A registry of these schemas."""

    def __init__(self, schemas=None):
        self.schemas = {SCHEMA_ID: SCHEMA} | (schemas or {})

    def schema(self, schema_id):
        return self.schemas[schema_id]

    def remembers(self, schema_id):
        return True


def trade(**changes):
    """A trade like a feed makes, with some fields changed."""
    label = Label("BINANCE", "BTCUSDT", "BTC", "USDT", "crypto", "simulated")
    made = Trade(
        label, 3_000_000_000, 1_700_000_000_000_000, 1_700_000_000_050_000, 4_000_000_000_000,
        12_345_000, 0, {},
    )  # fmt: skip
    return made._replace(**changes)


def labels():
    return st.builds(Label, *[TEXT] * 6)


def mantissas(digits):
    """Decimals as integers, the extreme ones often."""
    largest = 10**digits - 1
    return st.one_of(
        st.integers(-largest, largest),
        st.sampled_from([0, 1, -1, 127, 128, -128, -129, 2**63 - 1, 2**63, -(2**63)]).filter(
            lambda value: abs(value) <= largest
        ),
        st.sampled_from([largest, -largest]),
    )


def trades():
    return st.builds(
        Trade,
        label=labels(),
        trade_id=INT64,
        event_time_us=INT64,
        receive_time_us=INT64,
        price=mantissas(18),
        quantity=mantissas(38),
        side=st.sampled_from([0, 1]),
        vendor_data=st.dictionaries(TEXT, TEXT, max_size=5),
    )


def raw(values, first_offset=0, partition=0):
    """A batch of these messages at consecutive offsets."""
    offset = np.arange(first_offset, first_offset + len(values), dtype=np.int64)
    return RawBatch(partition, offset, list(values), first_offset + len(values))


def record(made):
    """A trade as the record another Avro library writes; times stay integers."""
    return dict(made.label._asdict()) | {
        "trade_id": made.trade_id,
        "event_time": made.event_time_us,
        "receive_time": made.receive_time_us,
        "price": decimal(made.price),
        "quantity": decimal(made.quantity),
        "side": schema.SIDES[made.side],
        "vendor_data": made.vendor_data,
    }


def decimal(mantissa):
    """Exact, whatever the context's precision."""
    return Decimal(mantissa).scaleb(-8, Context(prec=60))


def header(schema_id=SCHEMA_ID):
    return b"\x00" + schema_id.to_bytes(4, "big")


def written(values, written_schema=SCHEMA, schema_id=SCHEMA_ID):
    """A message that fastavro wrote of a record."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(written_schema), values)
    return header(schema_id) + out.getvalue()


def trade_at(columns, row):
    """A row of decoded columns as a trade."""
    low, high = columns.quantity[row].tolist()
    vendor = columns.vendor_data
    return Trade(
        columns.labels[columns.label[row]],
        int(columns.trade_id[row]),
        int(columns.event_time[row]),
        int(columns.receive_time[row]),
        int(columns.price[row]),
        (high << 64) | (low & (2**64 - 1)),
        int(columns.side[row]),
        {} if vendor is None else dict(vendor[row].as_py()),
    )
