# %% [markdown]
# # K2 in a few minutes
#
# K2 is a market-data lakehouse for research, backtests and compliance: every trade of a venue as
# one exact table, from a second ago to the first day. It does not execute orders; its aim is an
# answer in less than half a second. Every figure below is measured by the cell that prints it, on
# the stack that runs now, and the last cell says which aims were met.

# %%
import time

import matplotlib.pyplot as plt
import polars as pl

import k2client

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
COLUMNS = ("event_time", "exchange", "symbol", "trade_id")
NAME = f"executive_demo needs trades of {', '.join(SYMBOLS)}"
AIM_MS, QUESTIONS, COMMIT_WAIT_S = 500, 100, 60
claims: list[tuple[str, str, bool]] = []

k2 = k2client.connect()
try:
    status = k2.status()
    answer = k2.trades(SYMBOLS, last="15m", columns=COLUMNS)
    trades = answer.to_polars()
except k2client.K2Error as error:
    raise LookupError(f"{NAME}: {error.reason}: {error.message}") from error
missing = set(SYMBOLS) - set(trades["symbol"].unique().to_list())
if missing:
    raise LookupError(f"{NAME}: there are none of {', '.join(sorted(missing))} yet: wait a minute")
origin = answer.provenance
print(f"{status.state}, level {status.level}, {origin.source} trades")
if origin.source != "LIVE":
    print(f"NOTE: the trades are {origin.source}: a practice venue or a recording, not the market")
pl.DataFrame(
    [{"process": one.name, "state": one.state, "level": one.level} for one in status.components],
    infer_schema_length=None,
)

# %% [markdown]
# ## Live streaming
#
# The feed reads the venue's socket and sends each trade to the tape. Two readings of its counter,
# two seconds apart, are the rate.


# %%
def acknowledged() -> int:
    """Return the trades that all feeds have brought to the tape."""
    return sum(feed.trades_acknowledged for feed in k2.feeds())


count, began = acknowledged(), time.monotonic()
time.sleep(2)
taken_s = time.monotonic() - began
rate = (acknowledged() - count) / taken_s
print(f"{rate:,.0f} trades a second, all symbols; the newest row is {origin.freshness_ms} ms old")
claims.append(("trades arrive while this runs", f"{rate:,.0f}/s", rate > 0))

start, end, token = origin.range.start_time, origin.range.end_time, origin.token
bars = k2.bars(SYMBOLS, every="5s", start=start, end=end, as_of=token).to_polars()
figure, axis = plt.subplots(figsize=(9, 3.2), layout="constrained")
for symbol in SYMBOLS:
    one = bars.filter(pl.col("symbol") == symbol)
    close = one["close"].cast(pl.Float64)
    axis.plot(one["bar_start"].to_list(), (close / close[0] * 100 - 100).to_list(), label=symbol)
axis.set_ylabel("change, %")
axis.set_title(f"The last minutes, {origin.source.lower()} trades")
axis.legend()
plt.show()

# %% [markdown]
# ## Storage and time travel
#
# Commits leave immutable snapshots. The same question as of a snapshot gives the same rows, each
# time it is asked. Stored bytes are those of the Parquet files, measured.

# %%
for _ in range(COMMIT_WAIT_S):
    snapshots = [one for one in k2.snapshots(limit=50) if one.rows_total]
    if snapshots:
        break
    time.sleep(1)
else:
    raise TimeoutError(f"executive_demo: no commit in {COMMIT_WAIT_S} s: see `k2 status`")
newest = snapshots[0]
first, second = (
    k2.trades(SYMBOLS, start=start, columns=COLUMNS, as_of=newest.snapshot_id).to_arrow()
    for _ in range(2)
)
per_trade = newest.bytes_total / newest.rows_total
print(f"snapshot {newest.snapshot_id}: {newest.rows_total:,} rows, {newest.files_total} files")
print(f"{per_trade:.1f} bytes a trade in the lake")
print(f"as of that snapshot, twice: {first.num_rows:,} and {second.num_rows:,} rows")

assert first.equals(second)
claims.append(("as of a snapshot, twice the same", f"{first.num_rows:,} rows", True))

# %% [markdown]
# ## Hybrid queries
#
# Recent rows come from memory, older ones from the lake, and the user sees one table. The rows of
# both sides add up; no row is there twice.

# %%
print(
    f"{origin.rows_lake:,} from the lake + {origin.rows_tail:,} from the tail = {trades.height:,}"
)

assert origin.rows_lake + origin.rows_tail == trades.height
assert trades.select("exchange", "symbol", "trade_id").is_unique().all()
claims.append(("lake and tail as one, each trade once", f"{trades.height:,} rows", True))

# %%
took_ms = []
for number in range(QUESTIONS):
    began = time.perf_counter()
    k2.trades(SYMBOLS[number % len(SYMBOLS)], limit=10, order="desc", last="15m").to_arrow()
    took_ms.append((time.perf_counter() - began) * 1000)
took_ms.sort()
p50, p99 = took_ms[QUESTIONS // 2], took_ms[QUESTIONS * 99 // 100]
claims.append((f"the 10 newest trades in {AIM_MS} ms, p99", f"{p99:.1f} ms", p99 < AIM_MS))

figure, axis = plt.subplots(figsize=(9, 1.9), layout="constrained")
tiers = (("execution: not K2", 1e-3, 1e-2), ("research, compliance", 1e-2, AIM_MS))
for name, low, high in tiers:
    axis.barh(0, high - low, left=low, height=0.5, alpha=0.25)
    axis.text(low * 1.1, 0.34, name, fontsize=8)
axis.axvline(AIM_MS, linestyle="--", color="tab:red", label=f"aim {AIM_MS} ms")
axis.axvline(p50, color="tab:blue", label=f"p50 {p50:.1f} ms")
axis.axvline(p99, color="tab:green", label=f"p99 {p99:.1f} ms")
axis.set_xscale("log")
axis.set_ylim(-0.4, 0.6)
axis.set_yticks([])
axis.set_xlabel("ms")
axis.set_title(f"Where K2 answers: {QUESTIONS} questions, measured now", fontsize=10)
axis.legend(fontsize=7, loc="lower left", ncols=3)
plt.show()

# %% [markdown]
# ## Resilience
#
# Five levels, from NORMAL to CIRCUIT_BREAK, follow from measured pressures. Under load K2 defers
# symbols of low priority first, and says in every answer what is late; nothing is lost.

# %%
degradation = k2.degradation()
highest: dict[str, float] = {}
for process in degradation.processes:
    for one in process.pressures:
        highest[one.signal] = max(one.pressure, highest.get(one.signal, 0.0))
print(f"level {degradation.level}: {degradation.summary}")
figure, axis = plt.subplots(figsize=(9, 2.8), layout="constrained")
shown = sorted(highest.items(), key=lambda item: item[1])[-10:]
axis.barh([name for name, _ in shown], [pressure for _, pressure in shown])
axis.set_xlim(0, 1)
axis.set_title(f"Pressures now, level {degradation.level}")
plt.show()

assert degradation.level in ("NORMAL", "SOFT", "GRACEFUL", "AGGRESSIVE", "CIRCUIT_BREAK")

# %% [markdown]
# ## What was shown

# %%
for claim, figure_of, met in claims:
    print(f"{'met   ' if met else 'MISSED'}  {claim:<42} {figure_of}")
print(f"all on {origin.source} trades, level {degradation.level}")

# %%
k2.close()
