"""The trade of a later K2: it has optional columns that today's has not."""

from dataclasses import replace

from k2.lake.iceberg import tables
from k2.market import schema
from k2.market.schema import TRADE, Field, Kind

NOTE = Field("note", Kind.STRING, "What the venue says of it.", nullable=True)
ORDER = Field("buyer_order", Kind.LONG, "The venue's id of the buyer's order.", nullable=True)
SETTLES = Field("settles", Kind.TIME, "When it settles (UTC).", nullable=True)
OPTIONAL = (NOTE, ORDER, SETTLES)
NEWER = replace(TRADE, fields=(*TRADE.fields[:13], *OPTIONAL, *TRADE.fields[13:]))

AVRO = schema.avro_schema(NEWER)
NEWER_ID = 8


def comes(monkeypatch):
    """From now on this K2 is the later one."""
    monkeypatch.setattr(schema, "TRADE", NEWER)
    monkeypatch.setattr(tables, "TRADES_LAYOUT", replace(tables.TRADES_LAYOUT, event=NEWER))
