# %% [markdown]
# # Quickstart
#
# Fifteen minutes of trades as one exact table: where the rows come from, how to ask for the same
# rows again, a volume-weighted price that is right to the last digit, and a chart.
#
# Nothing here names an address: the client finds the stack of the data directory. Start one with
# `k2 up --notebooks`, or `k2 up` and run this file anywhere.

# %%
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import matplotlib.pyplot as plt
import polars as pl

import k2client

SYMBOL = "BTCUSDT"
NAME = f"quickstart needs trades of {SYMBOL} of the last 15 minutes"

k2 = k2client.connect()
try:
    answer = k2.trades(SYMBOL, last="15m")
    trades = answer.to_polars()
except k2client.K2Error as error:
    raise LookupError(f"{NAME}: {error.reason}: {error.message}") from error
if not trades.height:
    raise LookupError(f"{NAME}: there are none yet. Start `k2 up`, wait, and run all cells again")
trades.select("event_time", "trade_id", "side", "price", "quantity").tail(5)

# %% [markdown]
# ## One table, two sources
#
# The lake holds what was committed; the tail, in memory, holds what arrived since, and for a while
# also what was just committed. The answer joins both at an offset of the tape, never by a clock, so
# each trade is there exactly once. Its provenance says how many rows each side gave.

# %%
origin = answer.provenance
print(f"source        {origin.source}")
print(f"from the lake {origin.rows_lake:>8,} rows")
print(f"from the tail {origin.rows_tail:>8,} rows")
print(f"together      {trades.height:>8,} rows, {origin.completeness}")

assert origin.rows_lake + origin.rows_tail == trades.height
assert trades.select("exchange", "trade_id").is_unique().all(), "each trade exactly once"

# %% [markdown]
# ## Committed and not yet committed
#
# The provenance names a snapshot, and per partition of the tape the offset up to which it holds all
# records. So the rows fall into two parts: those below, which the snapshot alone returns too, and
# those above, which no snapshot held at that moment.

# %%
start, end = origin.range.start_time, origin.range.end_time
cut = origin.lake_positions
held = pl.col("tape_offset") < pl.col("tape_partition").replace_strict(dict(enumerate(cut.offsets)))
below = trades.filter((pl.col("tape_epoch") < cut.epoch) | held)
committed = trades.clear()
if origin.snapshot_id is not None:
    committed = k2.trades(SYMBOL, start=start, end=end, as_of=origin.snapshot_id).to_polars()
above = trades.height - below.height
print(f"{committed.height:,} committed + {above:,} not yet = {trades.height:,} in all")

assert committed.equals(below), "the snapshot returns the same rows"
assert committed.height + above == trades.height

# %% [markdown]
# ## The same rows again
#
# The answer carries a read token. Asked with it, now or next month, K2 returns the same rows, also
# after they moved from the tail into files.

# %%
again = k2.trades(SYMBOL, start=start, end=end, as_of=origin.token)
assert again.to_polars().equals(trades), "the read token returns the same rows"
print(f"{trades.height:,} rows again, by {origin.token}")

# %% [markdown]
# ## Exact numbers
#
# Prices and quantities are decimals, from the venue's text to this cell. The server computes the
# volume-weighted price from exact sums and rounds once; here Python's `Decimal` does the same from
# the rows, and both agree to the last digit.

# %%
vwap = k2.vwap(SYMBOL, start=start, end=end, as_of=origin.token).to_arrow().to_pylist()[0]
with localcontext(prec=80):
    quantities, prices = trades["quantity"].to_list(), trades["price"].to_list()
    volume = sum(quantities)
    value = sum(price * quantity for price, quantity in zip(prices, quantities, strict=True))
    mean = (value / volume).quantize(Decimal("0.00000001"), ROUND_HALF_EVEN)
print(f"K2      {vwap['vwap']}  of {vwap['volume']} {SYMBOL.removesuffix('USDT')}")
print(f"by hand {mean}  of {volume}")

assert (vwap["vwap"], vwap["volume"], vwap["count"]) == (mean, volume, trades.height)
assert vwap["quote_volume"] == value

# %% [markdown]
# ## A chart
#
# Bars come from the same rows by the same token, so they add up to the trades above. Floats appear
# here for the first time, because a screen has no use for eight decimals.

# %%
bars = k2.bars(SYMBOL, every="10s", start=start, end=end, as_of=origin.token).to_polars()
whole = bars.filter(pl.col("bar_start") >= start)
inside = trades.filter(pl.col("event_time") >= whole["bar_start"].min())
assert whole["count"].sum() == inside.height
assert sum(whole["volume"].to_list()) == sum(inside["quantity"].to_list())

figure, (top, bottom) = plt.subplots(
    2, 1, figsize=(9, 4), sharex=True, height_ratios=(3, 1), layout="constrained"
)
times = bars["bar_start"].to_list()
close = bars["close"].cast(pl.Float64).to_list()
low, high = (bars[side].cast(pl.Float64).to_list() for side in ("low", "high"))
top.fill_between(times, low, high, step="post", alpha=0.25, label="low to high")
top.step(times, close, where="post", linewidth=1.2, label="close")
top.axhline(float(vwap["vwap"]), linestyle="--", linewidth=1, color="tab:red", label="vwap")
top.set_title(f"{SYMBOL}, 10 s bars, {origin.source.lower()} trades")
top.legend(loc="best", fontsize=8)
bottom.bar(times, bars["volume"].cast(pl.Float64).to_list(), width=10 / 86_400, align="edge")
bottom.set_ylabel("volume")
plt.show()

# %% [markdown]
# Next: `time_travel` for snapshots and read tokens, `transaction_costs` for as-of joins and
# markouts, `backtest` for a result that is the same every time.

# %%
k2.close()
