# %% [markdown]
# # A backtest that is the same every time
#
# A result that cannot be computed again is an anecdote. This notebook trades a small strategy over
# bars, with exact decimals, on a read token. It then waits for new trades and new files, runs the
# strategy again on the same token, and gets the same orders and the same profit to the last digit.

# %%
import hashlib
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import matplotlib.pyplot as plt

import k2client

SYMBOL, EVERY = "BTCUSDT", "1s"
FAST, SLOW = 5, 20
COST = Decimal("0.0001")  # of the price, per side
NAME = f"backtest needs {2 * SLOW} bars of {SYMBOL}"
COMMIT_WAIT_S = 60

k2 = k2client.connect()
try:
    pin = k2.trades(SYMBOL, last="15m", columns=["event_time"])
    times = pin.to_arrow()["event_time"].to_pylist()
except k2client.K2Error as error:
    raise LookupError(f"{NAME}: {error.reason}: {error.message}") from error
if not times or times[-1] - times[0] < timedelta(seconds=2 * SLOW + 2):
    raise LookupError(f"{NAME}: there are too few yet. Start `k2 up`, wait, and run again")
token = pin.provenance.token
start = times[0].replace(microsecond=0) + timedelta(seconds=1)  # whole bars only
end = times[-1].replace(microsecond=0)
print(f"read token {token}")
print(f"{start:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S} UTC")


# %% [markdown]
# ## The strategy
#
# Long while the mean of the last five closes is above that of the last twenty, else flat. It
# decides on a bar's close and trades at the next bar's open, so it sees nothing early.


# %%
@dataclass(frozen=True)
class Result:
    """Orders, and by bar the close and the equity."""

    closes: list[tuple[datetime, Decimal]]
    orders: list[tuple[datetime, str, Decimal]]
    equity: list[tuple[datetime, Decimal]]

    @property
    def profit(self) -> Decimal:
        """Quote units at the end."""
        return self.equity[-1][1]

    @property
    def digest(self) -> str:
        """The same for the same result, and for no other."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


def run(read_token: str) -> Result:
    """Run the strategy on the bars of a read token."""
    answer = k2.bars(SYMBOL, every=EVERY, fill="prev", start=start, end=end, as_of=read_token)
    rows = [bar for bar in answer.to_arrow().to_pylist() if bar["close"] is not None]
    closes, cash, position = [], Decimal(0), 0
    orders, equity = [], []
    for bar in rows:
        if len(closes) >= SLOW:
            wanted = int(sum(closes[-FAST:]) * SLOW > sum(closes[-SLOW:]) * FAST)
            if wanted != position:
                price = bar["open"]
                cash -= (wanted - position) * price + COST * price
                orders.append((bar["bar_start"], "BUY" if wanted else "SELL", price))
                position = wanted
        closes.append(bar["close"])
        equity.append((bar["bar_start"], cash + position * bar["close"]))
    return Result([(bar["bar_start"], bar["close"]) for bar in rows], orders, equity)


first = run(token)
print(f"{len(first.equity)} bars, {len(first.orders)} orders, profit {first.profit} USDT")

# %% [markdown]
# The profit follows from the orders alone: sum what was received, less what was paid, less costs,
# plus what is held at the last close.

# %%
signs = [Decimal(1) if side == "SELL" else Decimal(-1) for _, side, _ in first.orders]
received = sum(
    (sign * price - COST * price for sign, (_, _, price) in zip(signs, first.orders, strict=True)),
    Decimal(0),
)
held = first.closes[-1][1] if first.orders and first.orders[-1][1] == "BUY" else Decimal(0)
assert first.profit == received + held
assert all(one[1] != following[1] for one, following in pairwise(first.orders))

# %% [markdown]
# ## Again, after the lake has changed
#
# The next cell waits for a commit, so that rows which came from the tail now come from files.

# %%
before = k2.snapshots(limit=1)
for _ in range(COMMIT_WAIT_S):
    after = k2.snapshots(limit=1)
    if after and (not before or after[0].rows_total > before[0].rows_total):
        break
    time.sleep(1)
else:
    raise TimeoutError(f"backtest: no commit in {COMMIT_WAIT_S} s: see `k2 status`")
second = run(token)
newer = k2.trades(SYMBOL, limit=1, order="desc", columns=["event_time"]).to_arrow()
print(f"first  {first.digest}  profit {first.profit}")
print(f"second {second.digest}  profit {second.profit}")
print(f"the lake has {after[0].rows_total:,} rows now, the newest trade {newer['event_time'][0]}")

assert second == first, "the same token, the same result"

# %%
figure, (top, bottom) = plt.subplots(
    2, 1, figsize=(9, 4.2), sharex=True, height_ratios=(2, 1), layout="constrained"
)
top.plot(*zip(*((when, float(close)) for when, close in first.closes), strict=True), linewidth=0.8)
for side, marker, colour in (("BUY", "^", "tab:green"), ("SELL", "v", "tab:red")):
    made = [(when, float(price)) for when, what, price in first.orders if what == side]
    top.scatter(*zip(*made, strict=True) if made else ((), ()), marker=marker, color=colour, s=22)
top.set_title(f"{SYMBOL}, orders of the strategy ({pin.provenance.source.lower()} trades)")
bottom.plot([when for when, _ in first.equity], [float(value) for _, value in first.equity])
bottom.set_ylabel("profit, USDT")
plt.show()

# %% [markdown]
# Put the read token into the report. With it and this notebook, the result can be checked for as
# long as the rows are kept.

# %%
k2.close()
