"""Describes where an answer comes from, and how complete it is (guarantees G4 and G5).

Completeness is sound and coarse. The fold knows which ids of an instrument are missing, not when
they were traded; but a missing trade lies between two that were seen, so it is never newer than the
newest trade seen. So an answer reads GAPS when an instrument of the request has a hole in its ids,
unless its range starts after that instrument's newest trade.

Ids are missing at the edges as well: those that feeds have promised (`k2/market/coverage.py`), or
that the ledger has OPEN, and that the fold has not accepted; and those from the first that a feed
listened for up to the first accepted. Ones above the newest trade seen are not older than that
trade, so they do not touch a range that ends before it. VOID ids are no trades, and are missing
nowhere. For a pinned answer (COMMITTED, AS_OF) the fold's state is of an earlier moment than the
promise: at its edges only ids count that are missing even now, and above its newest trade only
those that follow it directly.

Above the newest trade seen (`covered_until_us`) the ids say nothing. A range that ends there is
complete only while a feed listens, which would have received more; else the answer reads UNKNOWN. A
pinned answer describes the trades up to its own newest one, so a range that begins above that, or
names an end above it, reads UNKNOWN.

Where a venue restarted the ids of an instrument (`Seen.reused_us`), they no longer show what is
missing: an answer that reaches past that time reads UNKNOWN.

Where lake retention has removed rows of the range, an answer reads PARTIAL and says up to when.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

import numpy as np
import pyarrow as pa

from k2 import limits
from k2.errors import K2Error, Overloaded, Reason, Unavailable
from k2.market.events import Bools, Int64s
from k2.market.fold import FoldState, Seen
from k2.market.instrument import Instrument
from k2.market.offsets import OffsetVector, ReadToken, TimeRange
from k2.query.plan import MissingReason, MissingSide

GAPS_LISTED_MAX = 100
RETENTION = "retention"  # the part that it removed
_NO_IDS: Int64s = np.empty((0, 2), dtype=np.int64)
_ID_MAX = 2**63 - 1
_NEVER_US = -(2**63)


class Completeness(StrEnum):
    """How much of the requested range an answer holds."""

    COMPLETE = "COMPLETE"
    GAPS = "GAPS"
    PARTIAL = "PARTIAL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Gap:
    """Trade ids that were never seen, inclusive."""

    instrument: Instrument
    first_id: int
    last_id: int


@dataclass(frozen=True)
class MissingPart:
    """A side that is not in the answer, because the caller allowed that.

    Attributes:
        part: lake, tail, or retention.
        reason: the query's error without that permission.
        message: the same as text.
    """

    part: str
    reason: Reason
    message: str


@dataclass(frozen=True)
class Provenance:
    """Where the rows come from.

    Attributes:
        snapshot_id: S; 0 while the lake is empty.
        committed_at_us: when S was committed; None while the lake is empty.
        positions: O(S).
        end: E; equal to `positions` where one snapshot answers.
        topic_id: of the tape that `end` is of.
        planned_at_us: when E was fixed.
        newest_receive_us: receive time of the newest row of the request that the tail holds; None
            where it holds none.
        source: live, recorded or simulated.
        completeness: how much of the requested range the answer holds.
        gaps: missing ids, at most `GAPS_LISTED_MAX` ranges.
        gaps_total: how many gaps there are.
        missing: sides that are not in the answer.
        range: event times of the request, `last` resolved.
        covered_until_us: the oldest, over the instruments of the request, of the newest event time
            acknowledged; None where one of them was never seen.
        as_of_ahead_us: how far the time of AS_OF lies ahead of this process's clock; None where it
            does not.
    """

    snapshot_id: int
    committed_at_us: int | None
    positions: OffsetVector
    end: OffsetVector
    topic_id: str
    planned_at_us: int
    newest_receive_us: int | None
    source: str
    completeness: Completeness
    gaps: tuple[Gap, ...]
    gaps_total: int
    missing: tuple[MissingPart, ...]
    range: TimeRange
    covered_until_us: int | None = None
    as_of_ahead_us: int | None = None

    @property
    def token(self) -> ReadToken:
        """The read token that requests the same rows again."""
        return ReadToken(self.topic_id, self.end, self.snapshot_id)


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of an answer: files, chunks, and the bytes and rows in them."""

    files: int
    chunks: int
    bytes: int
    rows: int


@dataclass(frozen=True, eq=False, slots=True)
class Expected:
    """What feeds and ledger know of an instrument's ids, beside the fold.

    Attributes:
        promised: ids that are on the tape or known to be missing, as disjoint and ascending
            inclusive ranges. int64[k, 2]
        void: ids that are no trades, in the same form.
        filling: ids that the ledger has OPEN, for whatever cause, in the same form.
        since: the first id that a feed listened for, promised or not; None: not known.
        listened: whether a feed hears the instrument, without a break since its newest trade.
    """

    promised: Int64s = field(default_factory=lambda: _NO_IDS)
    void: Int64s = field(default_factory=lambda: _NO_IDS)
    filling: Int64s = field(default_factory=lambda: _NO_IDS)
    since: int | None = None
    listened: bool = False


@dataclass(frozen=True)
class Holes:
    """The gaps that may lie in an answer.

    Attributes:
        listed: the first of them.
        total: how many there are.
        all_known: whether there are no others: every instrument of the request was seen and is
            vouched for up to the end of the range, and the states are not of a later moment, when
            some may have been filled.
        covered_until_us: as in `Provenance`.
        reused: whether the range reaches past the time at which a venue restarted its ids.
    """

    listed: tuple[Gap, ...]
    total: int
    all_known: bool
    covered_until_us: int | None = None
    reused: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Vouched:
    """The times of an instrument in which no trade can be missing but those of known ids.

    Attributes:
        since_us: no earlier trade is vouched for.
        until_us: no trade at or after it is vouched for.
        from_id: the first trade seen; ids below may be missing, with no end.
        missing: ids that are missing. int64[k, 2]
        filling: ids that the ledger has OPEN, missing or not. int64[k, 2]
    """

    since_us: int
    until_us: int
    from_id: int
    missing: Int64s
    filling: Int64s = field(default_factory=lambda: _NO_IDS)


@dataclass(frozen=True)
class Assurance:
    """What is known of the trades that an answer may lack.

    Attributes:
        holes: the gaps that may lie in it; None where they are not known.
        vouched: what is vouched for, by instrument.
        newest_us: when each instrument traded last, at or after the answer's newest trade of it;
            None where that is not known.
    """

    holes: Holes | None
    vouched: Mapping[Instrument, Vouched] = field(default_factory=dict)
    newest_us: Mapping[Instrument, int] | None = None


def assurance_of(
    holes: Holes,
    states: Mapping[int, FoldState] | None,
    instruments: Collection[Instrument] | None,
    expected: Mapping[Instrument, Expected] | None,
    now: Mapping[int, FoldState] | None = None,
) -> Assurance:
    """Add to the holes of an answer what is vouched for; arguments as for `holes_of`.

    Args:
        holes: as `holes_of` found them.
        states: None where they are of a moment before the end of the answer.
        instruments: of the request; None: all.
        expected: what feeds and ledger knew; None: nothing is vouched for.
        now: of a pinned answer, the states of a later moment.
    """
    seen = _seen(states or {}, instruments)
    newest_us = None if states is None else {name: of.time_max_us for name, of in seen.items()}
    vouched = {} if expected is None else _vouched(seen, instruments, expected, now)
    return Assurance(holes, vouched, newest_us)


def since(vouched: Mapping[Instrument, Vouched], since_us: int | None) -> dict[Instrument, Vouched]:
    """Return what is vouched for from a time on; None: all of it."""
    begin_us = _NEVER_US if since_us is None else since_us
    return {name: replace(of, since_us=begin_us) for name, of in vouched.items()}


def _vouched(
    seen: Mapping[Instrument, Seen],
    instruments: Collection[Instrument] | None,
    expected: Mapping[Instrument, Expected],
    now: Mapping[int, FoldState] | None,
) -> dict[Instrument, Vouched]:
    """Find what is vouched for: up to the newest trade, or the first that used an id again."""
    today = _seen(now, instruments) if now is not None else None
    return {
        instrument: Vouched(
            _NEVER_US,
            of.time_max_us if of.reused_us is None else min(of.time_max_us, of.reused_us),
            int(of.intervals[0, 0]),
            _missing(
                of,
                expected.get(instrument, _NOTHING),
                TimeRange(),
                None if today is None else today.get(instrument),
                pinned=today is not None,
            ),
            expected.get(instrument, _NOTHING).filling,
        )
        for instrument, of in seen.items()
    }


def vouched_table(vouched: Mapping[Instrument, Vouched]) -> pa.RecordBatch:
    """Make a table of what is vouched for: exchange, symbol, since_us, until_us, from_id."""
    numbers = [(of.since_us, of.until_us, of.from_id) for of in vouched.values()]
    return _table(vouched, numbers, ("since_us", "until_us", "from_id"))


def holes_table(vouched: Mapping[Instrument, Vouched]) -> pa.RecordBatch:
    """Make a table of the missing ids: exchange, symbol, first_id, last_id, filling."""
    every = [(of, ids) for of, each in vouched.items() for ids in each.missing.tolist()]
    table = _table([of for of, _ in every], [ids for _, ids in every], ("first_id", "last_id"))
    filling = [_overlaps(each.missing, each.filling) for each in vouched.values()]
    found = np.concatenate(filling) if filling else np.empty(0, np.bool_)
    return table.append_column("filling", pa.array(found, pa.bool_()))


def _overlaps(ranges: Int64s, others: Int64s) -> Bools:
    """Tell of each range whether it shares an id with one of others; both ascending, disjoint."""
    low = np.searchsorted(others[:, 1], ranges[:, 0])
    overlaps: Bools = low < np.searchsorted(others[:, 0], ranges[:, 1], side="right")
    return overlaps


def _table(
    instruments: Iterable[Instrument], numbers: Sequence[Sequence[int]], names: Sequence[str]
) -> pa.RecordBatch:
    of = list(instruments)
    columns = {
        "exchange": pa.array([each.exchange for each in of], pa.string()),
        "symbol": pa.array([each.symbol for each in of], pa.string()),
    }
    for at, name in enumerate(names):
        columns[name] = pa.array([row[at] for row in numbers], pa.int64())
    return pa.RecordBatch.from_pydict(columns)


def holes_of(
    states: Mapping[int, FoldState],
    instruments: Collection[Instrument] | None,
    times: TimeRange,
    expected: Mapping[Instrument, Expected] | None,
    now: Mapping[int, FoldState] | None = None,
) -> Holes:
    """Find the missing ids of the instruments of a request (None: all).

    Args:
        states: of every partition, with all records of the answer judged.
        instruments: the instruments.
        times: event times of the answer.
        expected: what feeds and ledger knew at a moment before the end of the answer; None where
            that is not known, so that the edges are not known.
        now: of a pinned answer, the states of a moment after that of `expected`.
    """
    seen = _seen(states, instruments)
    known = expected or {}
    today = _seen(now, instruments) if now is not None else None
    names = seen.keys() if today is not None else seen.keys() | _among(known, instruments)
    listed: list[Gap] = []
    total = 0
    for instrument in sorted(names):
        missing = _missing(
            seen.get(instrument),
            known.get(instrument, _NOTHING),
            times,
            None if today is None else today.get(instrument),
            pinned=today is not None,
        )
        total += len(missing)
        some = missing[: GAPS_LISTED_MAX - len(listed)].tolist()
        listed += [Gap(instrument, first, last) for first, last in some]
    all_seen = bool(seen) and (instruments is None or len(seen) == len(instruments))
    vouched = expected is not None and all(
        _is_vouched(of, known.get(instrument, _NOTHING), times, pinned=today is not None)
        for instrument, of in seen.items()
    )
    covered_us = min((of.time_max_us for of in seen.values()), default=None)
    return Holes(
        tuple(listed),
        total,
        all_seen and vouched,
        covered_us if all_seen else None,
        any(_is_reused(of, times) for of in seen.values()),
    )


def _missing(
    seen: Seen | None, expected: Expected, times: TimeRange, now: Seen | None, *, pinned: bool
) -> Int64s:
    """Return the ids that are missing in a range of times, as int64[k, 2] ascending ranges."""
    if seen is None:
        return _without(expected.promised, expected.void)
    first, last = int(seen.intervals[0, 0]), int(seen.intervals[-1, 1])
    above = times.end_us is None or times.end_us > seen.time_max_us
    below = times.start_us is None or times.start_us <= seen.time_max_us
    whole = len(seen.intervals) == 1
    promised = expected.promised
    if expected.since is not None and expected.since < first:
        promised = united(promised, _range(expected.since, first - 1))
    if whole and _lies_in(promised, first, last):
        return _NO_IDS  # nearly always
    there = united(seen.intervals, expected.void) if len(expected.void) else seen.intervals
    beside = _without(promised, there)
    if pinned:
        beside = _without(beside, now.intervals if now is not None else _NO_IDS)
    under = _without(beside, _range(first, _ID_MAX)) if below else _NO_IDS
    between = _without(_range(first, last), there) if below else _NO_IDS
    over = _without(beside, _range(-1, last)) if above else _NO_IDS
    if pinned:
        follows = there[np.searchsorted(there[:, 0], last, side="right") - 1, 1] + 1
        over = over[:1] if len(over) and over[0, 0] == follows else _NO_IDS
    return np.concatenate((under, between, over))


def _is_reused(seen: Seen, times: TimeRange) -> bool:
    """Tell whether a range reaches past the first record that used an id again."""
    past = times.end_us is None or seen.reused_us is None or times.end_us > seen.reused_us
    return seen.reused_us is not None and past


def _is_vouched(seen: Seen, expected: Expected, times: TimeRange, *, pinned: bool) -> bool:
    """Tell whether the range can have no trade above the newest one seen."""
    if times.end_us is not None and times.end_us <= seen.time_max_us:
        return True
    open_below = times.start_us is None or times.start_us <= seen.time_max_us
    return expected.listened and (not pinned or (times.end_us is None and open_below))


def completeness(holes: Holes | None, missing: Sequence[MissingPart]) -> Completeness:
    """Return the worst state that applies; UNKNOWN where the holes are not known."""
    if missing:
        return Completeness.PARTIAL
    if holes is None or holes.reused:
        return Completeness.UNKNOWN
    if holes.total:
        return Completeness.GAPS
    return Completeness.COMPLETE if holes.all_known else Completeness.UNKNOWN


def failure_of(
    missing: MissingSide, stopped: K2Error | None, commit_interval_s: float, dwell_s: float
) -> K2Error:
    """Make the error for a caller that does not accept a missing side.

    Args:
        missing: what a plan lacks.
        stopped: why the tail stopped reading, if so.
        commit_interval_s: how often the lake is committed.
        dwell_s: how soon a level falls.
    """
    partitions = ", ".join(map(str, missing.partitions))
    detail = {"partitions": partitions}
    if missing.reason is MissingReason.RELEASED:
        return Overloaded(
            Reason.TAIL_FULL,
            f"rows of partitions {partitions} are not in the lake yet, and the tail is full",
            metadata=detail,
            retry_after_s=commit_interval_s,
        )
    if missing.reason is MissingReason.DEFERRED:
        return Unavailable(
            Reason.DEFERRED,
            f"newer rows of partitions {partitions} are deferred while the platform sheds load:"
            " ask again later, ask COMMITTED, or accept a partial answer",
            metadata=detail,
            retry_after_s=dwell_s,
        )
    if missing.reason is MissingReason.BEHIND:
        cause = f": {stopped.message}" if stopped else ""
        return Unavailable(
            stopped.reason if isinstance(stopped, Unavailable) else Reason.TAIL_BEHIND,
            f"the tail has not reached the end of partitions {partitions}{cause}",
            metadata=detail,
            retry_after_s=limits.TAIL_RETRY_S,
        )
    return Unavailable(
        Reason.LAKE_UNAVAILABLE,
        "the lake cannot be read, or not far enough",
        metadata=detail,
        retry_after_s=limits.SNAPSHOT_POLL_S,
    )


def part_of(missing: MissingSide, failure: K2Error) -> MissingPart:
    """Make the notice for a caller that accepts a missing side."""
    part = "lake" if missing.reason in (MissingReason.LAKE, MissingReason.EVICTED) else "tail"
    return MissingPart(part, failure.reason, failure.message)


def below_retention(retained_from_us: int | None, times: TimeRange) -> tuple[MissingPart, ...]:
    """Name what an answer lacks that reaches below the time up to which retention removed rows."""
    if retained_from_us is None or (
        times.start_us is not None and times.start_us >= retained_from_us
    ):
        return ()
    since = datetime.fromtimestamp(retained_from_us / 1e6, UTC).isoformat()
    message = f"retention has removed trades of before {since}; from then on none is missing"
    return (MissingPart(RETENTION, Reason.OUT_OF_RANGE, message),)


def united(*ranges: Int64s) -> Int64s:
    """Merge ranges of ids, in any order, into the fewest disjoint ones, int64[k, 2] ascending."""
    every = np.concatenate(ranges)
    every = every[np.argsort(every[:, 0], kind="stable")]
    if len(every) < 2:
        return every
    reached = np.maximum.accumulate(every[:, 1])
    begin = np.flatnonzero(np.concatenate(([True], every[1:, 0] > reached[:-1] + 1)))
    end = np.concatenate((begin[1:], [len(every)])) - 1
    return np.stack((every[begin, 0], reached[end]), axis=1)


def _without(ranges: Int64s, others: Int64s) -> Int64s:
    """Subtract disjoint ranges of ids from disjoint ranges; both ascending."""
    parts = [_NO_IDS]
    for first, last in ranges.tolist():
        low = np.searchsorted(others[:, 1], first)
        high = max(low, np.searchsorted(others[:, 0], last, side="right"))
        inside = others[low:high]
        # An end at _ID_MAX wraps around below, and is dropped: nothing lies above it.
        firsts = np.concatenate(([first], inside[:, 1] + 1))
        lasts = np.concatenate((inside[:, 0] - 1, [last]))
        kept = (firsts <= lasts) & (firsts >= first)
        parts.append(np.stack((firsts[kept], lasts[kept]), axis=1))
    return np.concatenate(parts)


def _range(first: int, last: int) -> Int64s:
    return np.array([[first, last]], dtype=np.int64)


def _lies_in(ranges: Int64s, first: int, last: int) -> bool:
    """Tell whether ascending ranges have no id outside of one range."""
    return len(ranges) == 0 or bool(ranges[0, 0] >= first and ranges[-1, 1] <= last)


def _among(
    instruments: Iterable[Instrument], wanted: Collection[Instrument] | None
) -> set[Instrument]:
    return set(instruments) if wanted is None else {*instruments} & {*wanted}


def _seen(
    states: Mapping[int, FoldState], wanted: Collection[Instrument] | None
) -> dict[Instrument, Seen]:
    if wanted is None:
        return {name: of for state in states.values() for name, of in state.seen.items()}
    return {
        name: state.seen[name] for name in wanted for state in states.values() if name in state.seen
    }


_NOTHING = Expected()
