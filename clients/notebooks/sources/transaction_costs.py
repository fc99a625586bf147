# %% [markdown]
# # Transaction costs
#
# Two questions of a trading desk. What was the other market when this trade happened (an *as-of
# join*)? And what did the price do after it (*markouts*)? Both are one verb, exact, and pinned by a
# read token, so a report can be computed again.

# %%
import bisect
from collections import defaultdict
from datetime import timedelta
from decimal import Decimal

import matplotlib.pyplot as plt

import k2client

LEFT, RIGHT = "ETHUSDT", "BTCUSDT"
MINUTE, TOLERANCE, HORIZONS = timedelta(minutes=1), timedelta(seconds=5), ("1s", "10s", "30s")
NAME = f"transaction_costs needs a minute of trades of {LEFT} and {RIGHT}"

k2 = k2client.connect()
try:
    answer = k2.trades([LEFT, RIGHT], last="2m")
    rows = answer.to_arrow().to_pylist()
except k2client.K2Error as error:
    raise LookupError(f"{NAME}: {error.reason}: {error.message}") from error
trades = {symbol: [row for row in rows if row["symbol"] == symbol] for symbol in (LEFT, RIGHT)}
if not all(trades.values()) or rows[-1]["event_time"] - rows[0]["event_time"] < MINUTE:
    raise LookupError(f"{NAME}: there are too few yet. Start `k2 up`, wait, and run again")
origin = answer.provenance
token, start = origin.token, origin.range.start_time
print({symbol: f"{len(rows):,} trades" for symbol, rows in trades.items()}, origin.source)

# %% [markdown]
# ## The other market at that moment
#
# Each trade of the left symbol with the last one of the right symbol at or before it, at most five
# seconds old. The check below does the join by hand, with a binary search over the right times.

# %%
joined = (
    k2.asof(LEFT, RIGHT, tolerance=TOLERANCE, direction="backward", start=start, as_of=token)
    .to_arrow()
    .to_pylist()
)
assert [row["trade_id"] for row in joined] == [row["trade_id"] for row in trades[LEFT]]

times = [row["event_time"] for row in trades[RIGHT]]
matched = [row for row in joined if row["right_trade_id"] is not None]
for row in joined:
    place = bisect.bisect_right(times, row["event_time"]) - 1
    if place < 0:
        continue  # its partner is before the first row that this notebook read
    near = row["event_time"] - times[place] <= TOLERANCE
    expected = trades[RIGHT][place]["trade_id"] if near else None
    assert row["right_trade_id"] == expected, f"trade {row['trade_id']}"
ages = [row["event_time"] - row["right_event_time"] for row in matched]
mean_ms = sum(ages, timedelta()) / len(ages) / timedelta(milliseconds=1)
print(f"{len(matched):,} of {len(joined):,} have a partner, {mean_ms:.1f} ms old in the mean")

assert all(timedelta() <= age <= TOLERANCE for age in ages)

# %% [markdown]
# The ratio of both prices, trade by trade: a cross rate with no look-ahead in it.

# %%
figure, axis = plt.subplots(figsize=(9, 3.2), layout="constrained")
axis.plot(
    [row["event_time"] for row in matched],
    [float(row["price"] / row["right_price"]) for row in matched],
    linewidth=0.8,
)
axis.set_title(f"{LEFT} / {RIGHT} at each trade of {LEFT} ({origin.source.lower()} trades)")
plt.show()

# %% [markdown]
# ## What the price did afterwards
#
# A markout is what the price moved in favour of the aggressor: after a buy that the price rises, or
# after a sell that it falls, is positive. Where the moment is not known yet, K2 says null instead
# of a guess. Every markout is checked against its own row by `Decimal`.

# %%
marks = k2.markouts(LEFT, horizons=HORIZONS, start=start, as_of=token).to_arrow().to_pylist()
assert len(marks) == len(trades[LEFT]) * len(HORIZONS)

sign = {"BUY": Decimal(1), "SELL": Decimal(-1)}
sums: dict[tuple[int, str], Decimal] = defaultdict(Decimal)
weights: dict[tuple[int, str], Decimal] = defaultdict(Decimal)
for row in marks:
    assert (row["markout"] is None) == (row["price_then"] is None)
    if row["markout"] is None:
        continue
    assert row["markout"] == sign[row["side"]] * (row["price_then"] - row["price"])
    key = row["horizon_us"], row["side"]
    sums[key] += row["markout"] * row["quantity"]
    weights[key] += row["quantity"]
known = sum(row["markout"] is not None for row in marks)
print(f"{known:,} of {len(marks):,} markouts are known")
assert known > 0, f"{NAME}: no markout is known yet"

# %%
horizons = sorted({horizon for horizon, _ in sums})
figure, axis = plt.subplots(figsize=(9, 3.2), layout="constrained")
for shift, side, colour in ((-0.2, "BUY", "tab:green"), (0.2, "SELL", "tab:red")):
    means = [
        float(sums[horizon, side] / weights[horizon, side]) if weights[horizon, side] else 0.0
        for horizon in horizons
    ]
    axis.bar(
        [place + shift for place in range(len(horizons))], means, 0.4, label=side, color=colour
    )
axis.axhline(0, linewidth=0.8, color="black")
axis.set_xticks(range(len(horizons)), [f"{horizon / 1e6:g} s" for horizon in horizons])
axis.set_ylabel("quote units")
axis.set_title(f"{LEFT}: mean markout, weighted by quantity ({origin.source.lower()} trades)")
axis.legend()
plt.show()

# %% [markdown]
# On simulated trades nothing is to be learned: the practice venue walks at random, and a drift of
# the price within these minutes moves both sides apart, mirrored. On live trades the part that
# remains after the drift is what a flow costs the one who takes the other side.

# %%
k2.close()
