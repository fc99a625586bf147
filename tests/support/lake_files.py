"""Writes rows of a test world as Parquet files like the lake's."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from k2.market.events import to_arrow
from k2.market.schema import NARROW_QUANTITY, TRADE, arrow_schema
from tests.support.trades import columns


def write_rows(path, rows, *, narrow=False):
    """Sorted by (symbol, event_time, trade_id), with every column of the schema."""
    rows = sorted(rows, key=lambda row: (row.symbol, row.event_time, row.trade_id))
    batches = []
    for partition in sorted({row.partition for row in rows}):
        some = [row for row in rows if row.partition == partition]
        batch = columns(
            [row.trade_id for row in some],
            symbols=[row.symbol for row in some],
            times=[row.event_time for row in some],
            varied=True,
        )
        batch.offset[:] = np.array([row.offset for row in some])
        batches.append(to_arrow(batch, 0, partition))
    table = pa.Table.from_batches(batches)
    keys = [(name, "ascending") for name in ("symbol", "event_time", "trade_id")]
    write_table(path, table.sort_by(keys), narrow=narrow)


def write_table(path, table, *, narrow=False):
    """As K2 writes it, quantity in 64 bits (`narrow`) or in 128."""
    if narrow:
        place = table.schema.get_field_index("quantity")
        kind = table.schema.field(place).with_type(NARROW_QUANTITY)
        table = table.set_column(place, kind, table["quantity"].cast(NARROW_QUANTITY))
    pq.write_table(table, path, store_decimal_as_integer=True)


def read_table(path):
    """The same rows, quantity as the schema has it."""
    table = pq.read_table(path)
    place = table.schema.get_field_index("quantity")
    kind = table.schema.field(place).with_type(arrow_schema(TRADE).field("quantity").type)
    return table.set_column(place, kind, table["quantity"].cast(kind.type))
