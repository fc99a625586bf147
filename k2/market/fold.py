"""Acceptance: which records of a partition are rows, decided by a pure fold in offset order.

Writer, tail and verify run this same function, so the union of lake and tail is the same before and
after every commit, and a replay of the tape proves what the lake should hold (guarantees G1 to G3).

For each record, in offset order:

* it has a fault                                        → DEAD
* its (exchange, symbol, trade_id) was accepted, and its event time lies more than an hour after
  the greatest one accepted so far                      → DEAD, of `Fault.REUSED_ID`
* its (exchange, symbol, trade_id) was accepted         → DUPLICATE
* its id would be one interval more than may be kept    → DEAD, of `Fault.TOO_MANY_HOLES`
* else                                                  → ACCEPTED, and its id is remembered

What is remembered is *exact*: per instrument the disjoint intervals of ids accepted so far. Venues
whose ids are contiguous keep one interval per uninterrupted stretch, whatever the count of trades,
so there is no window a late duplicate could slip past. The spaces between intervals are the ids K2
has not seen: the authoritative holes at that position. Their number is bounded. At the bound an
instrument's trades still extend and join intervals, and a record that would begin another waits
among the dead letters, to be replayed when holes have been filled: no other symbol is held up, and
what was judged stays a function of the tape alone.

A venue that begins a symbol's ids again (a test network that was reset, a ticker used for another
instrument) prints other trades under ids that were seen. A copy of a trade repeats its event time,
so a seen id with a far later time is such a trade, not a duplicate. It changes neither ids nor the
greatest time; the time of the first one stays in the state, since from then on the ids of the
symbol no longer tell what is missing.

A batch is folded whole: per instrument, a run of new consecutive ids (the usual case) costs one
comparison of arrays; anything else goes through the general path, a search in the intervals; where
the bound is near, records are taken one by one. All paths give what the record-by-record definition
gives (a property test holds them to it).

States are values: `fold` returns a new one and leaves the old as it was, so a writer whose commit
was refused simply goes on from the state it had.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2 import limits
from k2.market.events import Bools, Bytes, Fault, Int64s, TradeColumns
from k2.market.instrument import Instrument

RULES = 1  # what `fold` and `events.check` accept; another number judges the same tape otherwise


class Verdict(IntEnum):
    """The outcome of a record."""

    ACCEPTED = 0
    DUPLICATE = 1
    DEAD = 2


@dataclass(frozen=True, eq=False)
class Seen:
    """The ids accepted of one instrument.

    Attributes:
        intervals: disjoint, ascending, inclusive ranges with a hole between each two. int64[k, 2]
        time_max_us: greatest event_time accepted, microseconds.
        reused_us: event_time of the first record that used an id again; None while there is none.
    """

    intervals: Int64s
    time_max_us: int
    reused_us: int | None = None

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Seen)
            and (self.time_max_us, self.reused_us) == (other.time_max_us, other.reused_us)
            and np.array_equal(self.intervals, other.intervals)
        )

    __hash__ = None  # type: ignore[assignment]  # holds an array

    @property
    def count(self) -> int:
        """How many ids were accepted."""
        return int((self.intervals[:, 1] - self.intervals[:, 0] + 1).sum())

    def holes(self) -> list[tuple[int, int]]:
        """First and last missing id of each space between two intervals."""
        return [
            (int(last) + 1, int(first) - 1)
            for last, first in zip(self.intervals[:-1, 1], self.intervals[1:, 0], strict=True)
        ]


@dataclass(frozen=True)
class FoldState:
    """All that the fold remembers of one partition.

    Attributes:
        seen: ids accepted, per instrument.
        accepted, duplicate, dead: records judged so far, since the epoch began.
    """

    seen: Mapping[Instrument, Seen] = field(default_factory=dict)
    accepted: int = 0
    duplicate: int = 0
    dead: int = 0


class Judgement(NamedTuple):
    """The outcome of a batch.

    Attributes:
        state: what is remembered after it.
        verdicts: a `Verdict` per record, uint8[n].
        late: per instrument the offset of the last accepted record whose id lies below an earlier
            one's. Only such a record fills a hole: where there is none from an offset on, every
            hole that there was at that offset is there still.
        faults: why each record is DEAD: its own fault, or the fold's. A `Fault` per record,
            uint8[n]
    """

    state: FoldState
    verdicts: Bytes
    late: Mapping[Instrument, int]
    faults: Bytes


def fold(
    state: FoldState,
    columns: TradeColumns,
    intervals_max: int | None = None,
    *,
    in_order: bool = True,
) -> Judgement:
    """Judge the next records of a partition.

    Args:
        state: what was remembered of the records before them.
        columns: the records, checked (`events.check`), in offset order.
        intervals_max: that may be kept of an instrument; None: the limit, which makes the fold what
            it is. Rows of the lake are accepted already and come in another order: they need more.
        in_order: whether the records come as they are on the tape; rows of the lake do not, and
            none of them is judged by what came before it.
    """
    most = limits.INTERVALS_PER_KEY_MAX if intervals_max is None else intervals_max
    verdicts = np.full(len(columns), Verdict.DEAD, dtype=np.uint8)
    faults = columns.fault.copy()
    good = np.flatnonzero(columns.fault == Fault.NONE)
    seen, late = dict(state.seen), {}
    for instrument, rows in _by_instrument(columns, good):
        before = seen.get(instrument, NOTHING_SEEN)
        intervals, judged, last_late = _judge_ids(before.intervals, columns.trade_id[rows], most)
        faults[rows[judged == Verdict.DEAD]] = Fault.TOO_MANY_HOLES
        if last_late is not None:
            late[instrument] = int(columns.offset[rows[last_late]])
        times, new = columns.event_time[rows], judged == Verdict.ACCEPTED
        reused_us = before.reused_us
        if in_order and not new.all():
            reused = _reused(times, judged, before.time_max_us)
            judged[reused], faults[rows[reused]] = Verdict.DEAD, Fault.REUSED_ID
            if reused_us is None and reused.any():
                reused_us = int(times[reused][0])
        verdicts[rows] = judged
        if new.any() or reused_us != before.reused_us:
            newest = max(int(times[new].max(initial=_NO_TIME)), before.time_max_us)
            seen[instrument] = Seen(intervals, newest, reused_us)
    counts = np.bincount(verdicts, minlength=3)
    after = FoldState(
        seen,
        state.accepted + int(counts[Verdict.ACCEPTED]),
        state.duplicate + int(counts[Verdict.DUPLICATE]),
        state.dead + int(counts[Verdict.DEAD]),
    )
    return Judgement(after, verdicts, late, faults)


def _reused(times: Int64s, verdicts: Bytes, newest_us: int) -> Bools:
    """Return which records repeat an id far later than all that was accepted before them.

    `newest_us` is the greatest event time accepted before the first; the order is of the tape.
    """
    accepted = np.where(verdicts == Verdict.ACCEPTED, times, _NO_TIME)
    greatest = np.maximum.accumulate(np.concatenate(([newest_us], accepted[:-1])))
    reused: Bools = (verdicts == Verdict.DUPLICATE) & (times - REUSED_ID_AFTER_US > greatest)
    return reused


REUSED_ID_AFTER_US = limits.REUSED_ID_AFTER_S * 1_000_000
_NO_TIME = -(2**62)
_NONE_SEEN: Int64s = np.empty((0, 2), dtype=np.int64)
NOTHING_SEEN = Seen(_NONE_SEEN, _NO_TIME)


def _by_instrument(
    columns: TradeColumns, good: npt.NDArray[np.intp]
) -> list[tuple[Instrument, npt.NDArray[np.intp]]]:
    """Good rows of each instrument, in offset order (two labels may share an instrument)."""
    codes: dict[Instrument, int] = {}
    of_label = np.array(
        [codes.setdefault(label.instrument, len(codes)) for label in columns.labels], dtype=np.int32
    )
    if len(codes) <= 1:
        return [(instrument, good) for instrument in codes if len(good)]
    code = of_label[columns.label[good]]
    order = np.argsort(code, kind="stable")
    bounds = np.searchsorted(code[order], np.arange(len(codes) + 1))
    return [
        (instrument, good[order[bounds[i] : bounds[i + 1]]])
        for instrument, i in codes.items()
        if bounds[i] < bounds[i + 1]
    ]


def _judge_ids(intervals: Int64s, ids: Int64s, most: int) -> tuple[Int64s, Bytes, int | None]:
    """Add the new of `ids` to the intervals; a `Verdict` for each, in order; the last late."""
    if len(intervals) + len(ids) > most:
        after, verdicts = _judge_one_by_one(intervals, ids, most)
    elif _go_on(intervals, ids):
        return _join(intervals, _runs(ids)), np.full(len(ids), Verdict.ACCEPTED, np.uint8), None
    else:
        after, new = _insert(intervals, ids)
        verdicts = np.where(new, Verdict.ACCEPTED, Verdict.DUPLICATE).astype(np.uint8)
    return after, verdicts, _last_late(intervals, ids, verdicts)


def _judge_one_by_one(intervals: Int64s, ids: Int64s, most: int) -> tuple[Int64s, Bytes]:
    """Do the same by the definition, where the number of intervals may reach its bound."""
    first, last = intervals[:, 0].tolist(), intervals[:, 1].tolist()
    verdicts = np.empty(len(ids), dtype=np.uint8)
    for row, trade_id in enumerate(ids.tolist()):
        at = bisect_right(first, trade_id)  # the first interval that begins above
        if at and trade_id <= last[at - 1]:
            verdicts[row] = Verdict.DUPLICATE
            continue
        below = at > 0 and last[at - 1] == trade_id - 1
        above = at < len(first) and first[at] == trade_id + 1
        verdicts[row] = Verdict.ACCEPTED
        if below and above:
            last[at - 1] = last.pop(at)
            first.pop(at)
        elif below:
            last[at - 1] = trade_id
        elif above:
            first[at] = trade_id
        elif len(first) < most:
            first.insert(at, trade_id)
            last.insert(at, trade_id)
        else:
            verdicts[row] = Verdict.DEAD
    return np.array([first, last], dtype=np.int64).T.copy(), verdicts


def _last_late(intervals: Int64s, ids: Int64s, verdicts: Bytes) -> int | None:
    """Which of `ids` is the last that was accepted though an id above it had been."""
    rows = np.flatnonzero(verdicts == Verdict.ACCEPTED)
    new = ids[rows]
    newest = intervals[-1:, 1] if len(intervals) else new[:1]
    late = rows[new < np.maximum.accumulate(np.concatenate((newest, new[:-1])))]
    return int(late[-1]) if len(late) else None


def accept_ids(intervals: Int64s, ids: Int64s) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    """Add `ids` (at least one) to the intervals; return which were new, in order."""
    if _go_on(intervals, ids):
        return _join(intervals, _runs(ids)), np.ones(len(ids), dtype=np.bool_)
    return _insert(intervals, ids)


def _go_on(intervals: Int64s, ids: Int64s) -> bool:
    """Return whether the ids ascend from above all that was seen."""
    above = len(intervals) == 0 or ids[0] > intervals[-1, 1]
    return bool(above) and (len(ids) == 1 or bool((np.diff(ids) > 0).all()))


def _insert(intervals: Int64s, ids: Int64s) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    """Do the same as `accept_ids` for ids in any order."""
    _, first = np.unique(ids, return_index=True)
    new = np.zeros(len(ids), dtype=np.bool_)
    new[first] = True
    new &= ~contains(intervals, ids)
    fresh = np.sort(ids[new])
    return (_merge(intervals, _runs(fresh)) if len(fresh) else intervals), new


def contains(intervals: Int64s, ids: Int64s) -> Bools:
    """Tell which of `ids` lie in one of the intervals."""
    if not len(intervals):
        return np.zeros(len(ids), dtype=np.bool_)
    at = np.searchsorted(intervals[:, 0], ids, side="right") - 1
    inside: Bools = (at >= 0) & (ids <= intervals[np.maximum(at, 0), 1])
    return inside


def _runs(ascending: Int64s) -> Int64s:
    """Strictly ascending ids as the fewest inclusive ranges."""
    breaks = np.flatnonzero(np.diff(ascending) != 1)
    first = np.concatenate((ascending[:1], ascending[breaks + 1]))
    last = np.concatenate((ascending[breaks], ascending[-1:]))
    return np.stack((first, last), axis=1)


def _join(intervals: Int64s, above: Int64s) -> Int64s:
    """Append ranges that all lie above the intervals."""
    if len(intervals) and above[0, 0] == intervals[-1, 1] + 1:
        joined = np.array([[intervals[-1, 0], above[0, 1]]], dtype=np.int64)
        return np.concatenate((intervals[:-1], joined, above[1:]))
    return np.concatenate((intervals, above))


def _merge(intervals: Int64s, fresh: Int64s) -> Int64s:
    """Unite two sets of disjoint ranges; touching ones become one."""
    both = np.concatenate((intervals, fresh))
    both = both[np.argsort(both[:, 0], kind="stable")]
    starts = np.concatenate(([True], both[1:, 0] > both[:-1, 1] + 1))
    begin = np.flatnonzero(starts)
    end = np.concatenate((begin[1:], [len(both)])) - 1
    return np.stack((both[begin, 0], both[end, 1]), axis=1)


# --- the published form -------------------------------------------------------------------------

STATE_SCHEMA = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("exchange", pa.string(), nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("time_max_us", pa.int64(), nullable=False),
        pa.field("first_id", pa.int64(), nullable=False),
        pa.field("last_id", pa.int64(), nullable=False),
        pa.field("reused_us", pa.int64()),  # absent in states of rules 0
    ]
)


def to_table(states: Mapping[int, FoldState]) -> pa.Table:
    """States of several partitions as rows of `STATE_SCHEMA`, one an interval, in a fixed order."""
    kept = [
        (partition, instrument, states[partition].seen[instrument])
        for partition in sorted(states)
        for instrument in sorted(states[partition].seen)
    ]
    counts = [len(seen.intervals) for _, _, seen in kept]
    of = np.repeat(np.arange(len(kept)), counts)
    intervals = np.concatenate([_NONE_SEEN, *(seen.intervals for _, _, seen in kept)])
    columns = (
        pa.array([partition for partition, _, _ in kept], pa.int32()).take(of),
        pa.array([instrument.exchange for _, instrument, _ in kept], pa.string()).take(of),
        pa.array([instrument.symbol for _, instrument, _ in kept], pa.string()).take(of),
        pa.array([seen.time_max_us for _, _, seen in kept], pa.int64()).take(of),
        pa.array(intervals[:, 0]),
        pa.array(intervals[:, 1]),
        pa.array([seen.reused_us for _, _, seen in kept], pa.int64()).take(of),
    )
    return pa.Table.from_arrays(columns, schema=STATE_SCHEMA)


def from_table(
    table: pa.Table, counters: Mapping[int, tuple[int, int, int]]
) -> dict[int, FoldState]:
    """Read what `to_table` wrote.

    Args:
        table: rows of `STATE_SCHEMA`, those of an instrument one after the other.
        counters: (accepted, duplicate, dead) per partition; one state is made for each.
    """
    seen: dict[int, dict[Instrument, Seen]] = {partition: {} for partition in counters}
    intervals = np.stack([table.column(n).to_numpy() for n in ("first_id", "last_id")], axis=1)
    keys = table.select(["partition", "exchange", "symbol"])
    starts = _starts(keys)
    optional = [name for name in ("time_max_us", "reused_us") if name in table.column_names]
    heads = table.select([*keys.column_names, *optional]).take(starts).to_pylist()
    for head, ranges in zip(heads, np.split(intervals, starts)[1:], strict=True):
        if head["partition"] in seen:
            instrument = Instrument(head["exchange"], head["symbol"])
            seen[head["partition"]][instrument] = Seen(
                ranges, head["time_max_us"], head.get("reused_us")
            )
    return {
        partition: FoldState(seen[partition], *counts) for partition, counts in counters.items()
    }


def _starts(keys: pa.Table) -> npt.NDArray[np.int64]:
    """Mark where another key begins."""
    if keys.num_rows == 0:
        return np.empty(0, dtype=np.int64)
    new = np.zeros(keys.num_rows, dtype=np.bool_)
    new[0] = True
    for column in keys.columns:
        values = column.combine_chunks()
        new[1:] |= pc.not_equal(values[1:], values[:-1]).to_numpy(zero_copy_only=False)
    return np.flatnonzero(new)
