"""Writes rows of a test world as Parquet files like the lake's."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from k2.market.events import to_arrow
from tests.support.trades import columns


def write_rows(path, rows):
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
    pq.write_table(table.sort_by(keys), path, store_decimal_as_integer=True)
