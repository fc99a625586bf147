"""Where an answer comes from, and how much of the asked it holds (guarantees G4 and G5).

Completeness is sound and coarse. The fold knows which ids of an instrument are missing, not when
they were traded; but a missing trade lies between two that were seen, so it is never newer than the
newest trade seen. So an answer reads GAPS when an instrument asked for has a hole in its ids,
unless its range starts after that instrument's newest trade.

Where lake retention has removed rows of the range, an answer reads PARTIAL and says up to when.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice

from k2.errors import Reason
from k2.market.fold import FoldState, Seen
from k2.market.instrument import Instrument
from k2.market.offsets import OffsetVector, ReadToken, TimeRange

GAPS_LISTED_MAX = 100


class Completeness(StrEnum):
    """How much of the asked range an answer holds."""

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
        reason: what the query would have failed with.
        message: the same for a person.
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
        newest_receive_us: when the newest row the tail holds of those asked for was received; None
            where it holds none.
        source: what the rows are: live, recorded or simulated.
        completeness: how much of the asked range the answer holds.
        gaps: ids missing, at most `GAPS_LISTED_MAX`.
        gaps_total: how many gaps there are.
        missing: sides that are not in the answer.
        range: event times asked for, `last` resolved.
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

    @property
    def token(self) -> ReadToken:
        """What asks for the same rows again."""
        return ReadToken(self.topic_id, self.end, self.snapshot_id)


@dataclass(frozen=True)
class Estimate:
    """What an answer will cost to read: files, chunks, and the bytes and rows in them."""

    files: int
    chunks: int
    bytes: int
    rows: int


@dataclass(frozen=True)
class Holes:
    """The gaps that may lie in an answer.

    Attributes:
        listed: the first of them.
        total: how many there are.
        all_known: whether there are no others: every instrument asked for was ever seen, and what
            is known is not of a later moment, at which some may have been filled.
    """

    listed: tuple[Gap, ...]
    total: int
    all_known: bool


def holes_of(
    states: Mapping[int, FoldState], asked: Collection[Instrument] | None, times: TimeRange
) -> Holes:
    """What the fold knows of the instruments asked for (None: all).

    Args:
        states: of every partition.
        asked: which instruments.
        times: event times of the answer.
    """
    seen = _seen(states, asked)
    broken = {
        instrument: of
        for instrument, of in seen.items()
        if len(of.intervals) > 1 and (times.start_us is None or of.time_max_us >= times.start_us)
    }
    gaps = (
        Gap(instrument, first, last)
        for instrument in sorted(broken)
        for first, last in _first(broken[instrument]).holes()
    )
    return Holes(
        tuple(islice(gaps, GAPS_LISTED_MAX)),
        sum(len(of.intervals) - 1 for of in broken.values()),
        bool(seen) and (asked is None or len(seen) == len(asked)),
    )


def completeness(holes: Holes | None, missing: Sequence[MissingPart]) -> Completeness:
    """The worst that is true; UNKNOWN where nothing is known of the holes."""
    if missing:
        return Completeness.PARTIAL
    if holes is None:
        return Completeness.UNKNOWN
    if holes.total:
        return Completeness.GAPS
    return Completeness.COMPLETE if holes.all_known else Completeness.UNKNOWN


def below_floor(floor_us: int | None, times: TimeRange) -> tuple[MissingPart, ...]:
    """What an answer lacks that reaches below the time up to which retention has removed rows."""
    if floor_us is None or (times.start_us is not None and times.start_us >= floor_us):
        return ()
    since = datetime.fromtimestamp(floor_us / 1e6, UTC).isoformat()
    message = f"retention has removed trades of before {since}; from then on none is missing"
    return (MissingPart("retention", Reason.OUT_OF_RANGE, message),)


def _first(seen: Seen) -> Seen:
    """So much of it that all holes which can be listed are there."""
    return Seen(seen.intervals[: GAPS_LISTED_MAX + 1], seen.time_max_us)


def _seen(
    states: Mapping[int, FoldState], asked: Collection[Instrument] | None
) -> dict[Instrument, Seen]:
    if asked is None:
        return {one: of for state in states.values() for one, of in state.seen.items()}
    return {one: state.seen[one] for one in asked for state in states.values() if one in state.seen}
