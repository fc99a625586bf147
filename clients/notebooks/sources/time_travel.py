# %% [markdown]
# # Time travel
#
# Each commit leaves a snapshot: the whole lake as it was at that moment. A question can name one by
# its id or by a time, and a read token pins even the rows that no snapshot holds yet. This notebook
# asks the same question in three ways, waits for the lake to change, and asks again.

# %%
import hashlib
import time
from itertools import pairwise

import matplotlib.pyplot as plt
import pyarrow as pa

import k2client

SYMBOL = "BTCUSDT"
NAME = f"time_travel needs committed trades of {SYMBOL}"
COMMIT_WAIT_S = 60

k2 = k2client.connect()
try:
    snapshots = [one for one in k2.snapshots(limit=200) if one.rows_total]
    union = k2.trades(SYMBOL, last="10m")
    now = union.to_arrow()
except k2client.K2Error as error:
    raise LookupError(f"{NAME}: {error.reason}: {error.message}") from error
if not snapshots or not now.num_rows:
    raise LookupError(f"{NAME}: there is no snapshot yet. Start `k2 up`, wait, and run again")
newest, start = snapshots[0], union.provenance.range.start_time
print(f"{len(snapshots)} snapshots; the newest holds {newest.rows_total:,} rows of all symbols")


# %% [markdown]
# ## As of a snapshot
#
# The same question as of the newest snapshot, twice: the same rows, in the same order, to the last
# digit. A digest over all columns says so in one line. The answer from lake and tail (the *union*)
# has those rows too, and the ones that arrived since.


# %%
def digest(rows: pa.Table) -> str:
    """Return a digest of all rows, in their order and with all columns."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema.remove_metadata()) as writer:
        writer.write_table(rows.combine_chunks().replace_schema_metadata(None))
    return hashlib.sha256(sink.getvalue()).hexdigest()[:16]


first = k2.trades(SYMBOL, start=start, as_of=newest.snapshot_id).to_arrow()
second = k2.trades(SYMBOL, start=start, as_of=newest.snapshot_id).to_arrow()
print(f"as of snapshot {newest.snapshot_id}: {first.num_rows:,} rows, digest {digest(first)}")
print(f"and the same again: {second.num_rows:,} rows, digest {digest(second)}")
print(f"the union: {now.num_rows:,} rows, digest {digest(now)}")

assert first.num_rows > 0, f"{NAME}: the newest snapshot has none of them"
assert digest(first) == digest(second)
assert set(first["trade_id"].to_pylist()) <= set(now["trade_id"].to_pylist())

# %% [markdown]
# ## As of a time
#
# A time means the newest snapshot that was committed by then. What an auditor asks for, "what did
# we know at that moment", is one argument.

# %%
by_time = k2.trades(SYMBOL, start=start, as_of=newest.commit_time)
print(f"as of {newest.commit_time:%H:%M:%S.%f}: snapshot {by_time.provenance.snapshot_id}")

assert by_time.provenance.snapshot_id == newest.snapshot_id
assert digest(by_time.to_arrow()) == digest(first)

# %% [markdown]
# ## The lake moves on, the answer does not
#
# The union above carries a read token. The next cell waits for a commit that changes the lake; then
# the token still returns the same rows, though some of them moved from the tail into files.

# %%
later, token = newest, union.provenance.token
for _ in range(COMMIT_WAIT_S):
    later = k2.snapshot()
    if later.rows_total > newest.rows_total:
        break
    time.sleep(1)
else:
    raise TimeoutError(f"time_travel: no commit in {COMMIT_WAIT_S} s: see `k2 status`")
pinned, fresh = k2.trades(SYMBOL, start=start, as_of=token), k2.trades(SYMBOL, start=start)
rows, newer = pinned.to_arrow(), fresh.to_arrow()
print(f"a commit added {later.rows_total - newest.rows_total:,} rows")
print(f"by the token: {rows.num_rows:,} rows, {digest(rows)}, as before: {digest(now)}")
print(f"without it:   {newer.num_rows:,} rows")

assert digest(rows) == digest(now), "the read token returns the same rows"
assert newer.num_rows >= rows.num_rows

# %% [markdown]
# ## The history of the lake
#
# Every point below can be asked. The shaded band is what this notebook did.

# %%
history = sorted({*snapshots, later}, key=lambda one: one.commit_time)
figure, axis = plt.subplots(figsize=(9, 3.2), layout="constrained")
axis.step(
    [one.commit_time for one in history],
    [one.rows_total for one in history],
    where="post",
    marker="o",
    markersize=3,
)
axis.axvspan(newest.commit_time, later.commit_time, alpha=0.2, color="tab:orange")
axis.set_title(f"Rows in the lake, by snapshot ({union.provenance.source.lower()} trades)")
axis.set_ylabel("rows, all symbols")
plt.show()

for before, after in pairwise(history):
    if before.positions.epoch == after.positions.epoch:
        moved = zip(before.positions.offsets, after.positions.offsets, strict=True)
        assert all(old <= new for old, new in moved), "a snapshot never goes back on the tape"

# %%
k2.close()
