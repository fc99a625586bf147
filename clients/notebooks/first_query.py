# %% [markdown]
# # A first query
#
# Start K2 in a terminal (`make up`), then run the cells below one after another, in any editor that
# knows percent cells, or the whole file: `.venv/bin/python clients/notebooks/first_query.py`.
# Nothing here names an address: the client finds the stack of the data directory (`K2_DATA_DIR`,
# else `./.k2`), or what `K2_ADDRESS` says.

# %%
import time

import polars as pl

import k2client

SYMBOL = "BTCUSDT"
k2 = k2client.connect()

# %% [markdown]
# The last 15 minutes, as one table: what the lake has committed, and what arrived since.


# %%
def last_15_minutes() -> pl.DataFrame:
    """Return the trades of the last 15 minutes in polars, and print their origin."""
    answer = k2.trades(SYMBOL, last="15m")
    frame: pl.DataFrame = answer.to_polars()
    origin = answer.provenance
    print(
        f"{frame.height} {origin.source.lower()} trades: {origin.rows_lake} from the lake,"
        f" {origin.rows_tail} from the tail; {origin.completeness}; snapshot {origin.snapshot_id}"
    )
    return frame.select("event_time", "trade_id", "price", "quantity", "side")


first = last_15_minutes()
print(first.tail(5))

# %% [markdown]
# A second later there are newer ones.

# %%
time.sleep(1)
second = last_15_minutes()
newest = first["trade_id"].max() if first.height else -1
newer = second.filter(pl.col("trade_id") > newest)
print(newer)
print(f"{newer.height} newer trades in a second")

# %% [markdown]
# Prices and quantities are exact decimals, so what is computed from them is exact too.

# %%
value = (second["price"] * second["quantity"]).sum()
print(f"traded in 15 minutes: {value} USDT")
k2.close()
