"""The report of a verification: the comparison of tape, lake, dead letters and published state.

`ok` is false only for loss, doubling or disagreement. In the document, snapshot ids are text (a
JSON number would lose their last digits); trade ids and offsets are numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from k2 import limits
from k2.lake.dead_letters.superseded import PartitionLetters
from k2.lake.iceberg.snapshot import LakeSnapshot
from k2.lake.verify.row_checksums import RowChecksums
from k2.market.events import Int64s, TradeColumns
from k2.market.fold import FoldState, Seen
from k2.market.instrument import Instrument
from k2.tape.topics import TopicDescription

Counts = tuple[int, int, int]  # accepted, duplicate, dead


@dataclass(frozen=True)
class Problem:
    """One disagreement.

    Attributes:
        kind: LOST, DOUBLED, UNDUE, CHANGED, STRAY (rows); LETTER_MISSING, LETTER_UNDUE (dead
            letters); LETTER_ROW_... (their table, see `verify_letters.py`); GAP_UNTRUE (the ledger,
            see `verify_gaps.py`; its offsets are trade ids); STATE, COUNTERS (what the snapshot
            published); OVERTAKEN (retention removed records that were never committed).
        partition: of the tape; None when it is of no one partition.
        count: how many.
        offsets: the first of them.
        message: for the operator.
    """

    kind: str
    partition: int | None
    count: int
    offsets: tuple[int, ...]
    message: str


@dataclass
class Folded:
    """The result of folding the tape again.

    Attributes:
        states: of each partition at the snapshot's positions.
        rows: checksums of the accepted records.
        dead: offsets of dead records, per partition.
        doubtful: records per partition that a letter alone calls dead: they are good by what is
            known today, and the lake has no row at their place.
        backwards: instruments with an accepted id below an earlier one's, and a far later time.
        again: instruments whose ids were begun again, of which only rows that are there count.
    """

    states: dict[int, FoldState]
    rows: RowChecksums
    dead: dict[int, list[Int64s]] = field(default_factory=dict)
    doubtful: dict[int, int] = field(default_factory=dict)
    backwards: set[Instrument] = field(default_factory=set)
    again: frozenset[Instrument] = frozenset()


@dataclass
class StoredRows:
    """The rows of the lake.

    Attributes:
        rows: checksums of those that the tape still has.
        before: the fold's state from what the epoch began with and the rows that retention removed
            from the tape.
        stray: rows at or above the snapshot's positions, or of partitions the tape does not have.
        earlier: the fold's state from the rows of earlier epochs, all partitions together.
        superseded: offsets of retriable letters at whose place there is a row, per partition.
        lowest: trade id of the rows from the retained time on, per instrument, where some rows are
            gone from tape and lake.
        places: offsets of rows of instruments whose ids were begun again, per partition.
    """

    rows: RowChecksums
    before: dict[int, FoldState]
    stray: int = 0
    earlier: FoldState = field(default_factory=FoldState)
    superseded: dict[int, Int64s] = field(default_factory=dict)
    lowest: dict[Instrument, int] = field(default_factory=dict)
    places: dict[int, Int64s] = field(default_factory=dict)

    def note(self, rows: TradeColumns) -> None:
        """Record the lowest id of each instrument among rows from the retained time on."""
        for code in np.unique(rows.label).tolist():
            instrument = rows.labels[code].instrument
            lowest = int(rows.trade_id[rows.label == code].min())
            self.lowest[instrument] = min(lowest, self.lowest.get(instrument, lowest))

    def place(self, partition: int, offsets: Int64s) -> None:
        """Record the places of rows."""
        self.places[partition] = np.union1d(self.places.get(partition, offsets), offsets)

    def supersede(self, partition: int, offsets: Int64s) -> None:
        """Record the places of letters that are rows."""
        known = self.superseded.get(partition, offsets)
        self.superseded[partition] = np.union1d(known, offsets)


def standing(
    letters: Mapping[int, PartitionLetters], stored: StoredRows
) -> dict[int, PartitionLetters]:
    """Select the letters that no row supersedes."""
    none = np.empty(0, np.int64)
    return {p: of.without(stored.superseded.get(p, none)) for p, of in letters.items()}


@dataclass(frozen=True)
class VerifyInput:
    """All inputs of the report.

    Attributes:
        snapshot: the pinned one.
        facts: of the tape.
        start: where each partition's replay began.
        published: the states of the snapshot.
        folded, stored, letters: the results of reading; the letters that stand, per partition.
    """

    snapshot: LakeSnapshot
    facts: TopicDescription
    start: tuple[int, ...]
    published: Mapping[int, FoldState]
    folded: Folded
    stored: StoredRows
    letters: Mapping[int, PartitionLetters]

    def exact(self, partition: int) -> bool:
        """Return whether the fold of the tape must give exactly the published state.

        It need not where lake retention has removed rows, and the beginning of the tape is gone as
        well, or the row of a superseded letter may be gone: their ids are in the published state
        alone.
        """
        whole = self.start[partition] == self.snapshot.first_positions[partition]
        sure = whole and not self.folded.doubtful.get(partition)
        return sure or self.snapshot.retained_from_us is None

    def known(self, partition: int) -> FoldState:
        """Return the most complete state there is of a partition."""
        states = self.folded.states if self.exact(partition) else self.published
        return states.get(partition, FoldState())


def report(case: VerifyInput, problems: Sequence[Problem]) -> dict[str, Any]:
    """Build the document.

    Args:
        case: what is compared.
        problems: those of rows; others are added here.
    """
    found = [*problems]
    for partition in range(case.facts.partitions):
        found += _letter_problems(case, partition)
        found += _state_problems(case, partition)
        overtaken = case.facts.log_start[partition] - case.snapshot.positions[partition]
        if overtaken > 0:
            message = "records that retention removed before they were committed"
            found.append(Problem("OVERTAKEN", partition, overtaken, (), message))
    holes = [hole for partition in sorted(case.folded.states) for hole in _holes(case, partition)]
    ends, log_ends = case.snapshot.positions.offsets, case.facts.log_end
    uncommitted = sum(max(0, log - end) for end, log in zip(ends, log_ends, strict=True))
    rows = sum(state.accepted for state in case.folded.states.values())
    earlier = case.stored.earlier.accepted
    return {
        "ok": not found,
        "message": _sentence(found, rows, earlier, len(holes)) + _not_compared(case),
        "snapshot_id": str(case.snapshot.snapshot_id),
        "committed_at_us": case.snapshot.committed_at_us,
        "positions": case.snapshot.positions.encode(),
        "floor_us": case.snapshot.retained_from_us,
        "rows": case.snapshot.rows_total,
        "epoch": case.snapshot.positions.epoch,
        "rows_of_earlier_epochs": earlier,
        "accepted": rows,
        "duplicate": sum(state.duplicate for state in case.published.values()),
        "dead": sum(state.dead for state in case.published.values()),
        "uncommitted": uncommitted,
        "problems": [asdict(problem) for problem in found],
        "partitions": [_partition(case, p) for p in range(case.facts.partitions)],
        "symbols": [symbol for p in sorted(case.folded.states) for symbol in _symbols(case, p)],
        "holes": holes[: limits.VERIFY_HOLES_LISTED],
        "holes_total": len(holes),
    }


def empty_report(facts: TopicDescription) -> dict[str, Any]:
    """Build the document of a lake without a snapshot, where nothing is promised yet."""
    waiting = sum(end - start for start, end in zip(facts.log_start, facts.log_end, strict=True))
    names = ("rows", "accepted", "duplicate", "dead", "holes_total", "letters_overruled")
    counts = dict.fromkeys((*names, "letter_rows", "letters_waiting"), 0)
    lists: dict[str, Any] = {n: [] for n in ("problems", "partitions", "symbols", "holes")}
    return (
        counts
        | lists
        | {
            "ok": True,
            "message": f"the lake is empty; {waiting} records wait to be committed",
            "snapshot_id": None,
            "committed_at_us": None,
            "positions": None,
            "uncommitted": waiting,
        }
    )


def differences(
    places: Sequence[tuple[int, int]], tape: RowChecksums, lake: RowChecksums
) -> list[Problem]:
    """Compare row by row the buckets where tape and lake differ; both kept their rows."""
    problems = []
    for place in places:
        want, want_prints = tape.rows_at(place)
        have, have_prints = lake.rows_at(place)
        once, first, times = np.unique(have, return_index=True, return_counts=True)
        both, in_want, in_once = np.intersect1d(want, once, return_indices=True)
        changed = both[want_prints[in_want] != have_prints[first[in_once]]]
        for kind, offsets, message in (
            ("LOST", np.setdiff1d(want, have), "accepted on the tape, not in the lake"),
            ("DOUBLED", once[times > 1], "more than once in the lake"),
            ("UNDUE", np.setdiff1d(have, want), "in the lake, not accepted on the tape"),
            ("CHANGED", changed, "in the lake with other values than on the tape"),
        ):
            problems += _problem(kind, place[0], offsets, message)
    return problems


def earlier_problems(
    first: Mapping[int, FoldState], stored: StoredRows, retained_from_us: int | None
) -> list[Problem]:
    """Check that the rows of earlier epochs are, each once, what this epoch began with.

    Args:
        first: the states that it began with.
        stored: what the lake holds.
        retained_from_us: None unless lake retention has removed rows, whose ids are still known.
    """
    problems = []
    if doubled := stored.earlier.duplicate:
        message = "rows of earlier epochs have an id that another row has"
        problems.append(Problem("DOUBLED", None, doubled, (), message))
    carried = {name: seen for state in first.values() for name, seen in state.seen.items()}
    have = stored.earlier.seen
    names, fits = ({*carried, *have}, _same_ids) if retained_from_us is None else ({*have}, _within)
    differing = sorted(n.key for n in names if not fits(have.get(n), carried.get(n)))
    if differing:
        named = ", ".join(differing[: limits.VERIFY_OFFSETS_LISTED])
        message = f"rows of earlier epochs differ from what was carried into this one: {named}"
        problems.append(Problem("STATE", None, len(differing), (), message))
    return problems


def _problem(kind: str, partition: int, offsets: Int64s, message: str) -> list[Problem]:
    listed = tuple(offsets[: limits.VERIFY_OFFSETS_LISTED].tolist())
    return [Problem(kind, partition, len(offsets), listed, message)] if len(offsets) else []


def _letter_problems(case: VerifyInput, partition: int) -> list[Problem]:
    pieces = case.folded.dead.get(partition, [])
    dead = np.concatenate(pieces) if pieces else np.empty(0, np.int64)
    letters = case.letters[partition].offsets
    start, end = case.start[partition], case.snapshot.positions[partition]
    letters = letters[(letters >= start) & (letters < end)]
    missing, undue = np.setdiff1d(dead, letters), np.setdiff1d(letters, dead)
    return [
        *_problem("LETTER_MISSING", partition, missing, "bad on the tape, not in the dead letters"),
        *_problem("LETTER_UNDUE", partition, undue, "in the dead letters, not bad on the tape"),
    ]


def _state_problems(case: VerifyInput, partition: int) -> list[Problem]:
    published = case.published.get(partition, FoldState())
    folded = case.folded.states.get(partition, FoldState())
    exact = case.exact(partition)
    problems = []
    names = set(folded.seen) | (set(published.seen) if exact else set())
    first = case.snapshot.first_positions[partition]
    whole = case.start[partition] == first  # else duplicate and dead of the beginning are not known
    fits = (_equal if whole else _same_ids) if exact else _within
    differing = sorted(n.key for n in names if not fits(folded.seen.get(n), published.seen.get(n)))
    if differing:
        named = ", ".join(differing[: limits.VERIFY_OFFSETS_LISTED])
        message = f"ids seen or the newest time differ from the published state: {named}"
        problems.append(Problem("STATE", partition, len(differing), (), message))
    have = published.accepted, published.duplicate, published.dead
    want = folded.accepted, folded.duplicate, folded.dead
    doubtful = case.folded.doubtful.get(partition, 0)
    same = _agree(have, want, doubtful) if whole else have[0] == want[0] and have[1:] >= want[1:]
    if not (same if exact else have[0] >= want[0] and have[1] >= want[1]):
        message = f"accepted, duplicate, dead: the tape gives {want}, the snapshot says {have}"
        problems.append(Problem("COUNTERS", partition, 1, (), message))
    return problems


def _agree(have: Counts, want: Counts, doubtful: int) -> bool:
    """Return whether two counts are equal, but for doubtful records that were duplicates."""
    duplicates = have[1] - want[1]
    return 0 <= duplicates <= doubtful and have == (want[0], have[1], want[2] - duplicates)


def _equal(folded: Seen | None, published: Seen | None) -> bool:
    return folded == published


def _same_ids(folded: Seen | None, published: Seen | None) -> bool:
    """Return whether two agree, where a record that reused an id may be gone from the tape."""
    if folded is not None and published is not None and published.reused_us is not None:
        published = replace(published, reused_us=folded.reused_us)
    return folded == published


def _within(folded: Seen | None, published: Seen | None) -> bool:
    """Return whether the published state has all ids of the folded one."""
    if folded is None or published is None:
        return folded is None
    starts, ends = published.intervals[:, 0], published.intervals[:, 1]
    at = np.searchsorted(starts, folded.intervals[:, 0], side="right") - 1
    inside = (at >= 0) & (folded.intervals[:, 1] <= ends[np.maximum(at, 0)])
    return bool(inside.all()) and folded.time_max_us <= published.time_max_us


def _partition(case: VerifyInput, partition: int) -> dict[str, Any]:
    state, end = case.folded.states[partition], case.snapshot.positions[partition]
    return {
        "partition": partition,
        "from_offset": case.start[partition],
        "to_offset": end,
        "accepted": state.accepted,
        "duplicate": state.duplicate,
        "dead": state.dead,
        "rows_in_lake": case.stored.rows.rows(partition) + case.stored.before[partition].accepted,
        "uncommitted": max(0, case.facts.log_end[partition] - end),
    }


def _symbols(case: VerifyInput, partition: int) -> list[dict[str, Any]]:
    before = case.stored.before[partition].seen
    return [
        {
            "partition": partition,
            "exchange": instrument.exchange,
            "symbol": instrument.symbol,
            "accepted": seen.count,
            "rows_in_lake": case.stored.rows.symbols.get((partition, instrument), 0)
            + (before[instrument].count if instrument in before else 0),
            "first_id": int(seen.intervals[0, 0]),
            "last_id": int(seen.intervals[-1, 1]),
            "holes": len(seen.intervals) - 1,
            "missing_ids": _missing(seen),
        }
        for instrument, seen in sorted(case.known(partition).seen.items())
    ]


def _missing(seen: Seen) -> int:
    first, last = int(seen.intervals[0, 0]), int(seen.intervals[-1, 1])
    return last - first + 1 - seen.count


def _holes(case: VerifyInput, partition: int) -> list[dict[str, Any]]:
    seen: list[tuple[Instrument, Seen]] = sorted(case.known(partition).seen.items())
    return [
        {
            "exchange": instrument.exchange,
            "symbol": instrument.symbol,
            "first_id": first,
            "last_id": last,
            "count": last - first + 1,
        }
        for instrument, ids in seen
        for first, last in ids.holes()
    ]


def _sentence(problems: Sequence[Problem], rows: int, earlier: int, holes: int) -> str:
    if not problems:
        carried = f" and {earlier} of earlier epochs" if earlier else ""
        return (
            f"{rows} trades{carried}, each once, as the tape has them; {holes} holes in trade ids"
        )
    kinds = ", ".join(sorted({problem.kind for problem in problems}))
    return f"tape and lake disagree: {kinds}"


def _not_compared(case: VerifyInput) -> str:
    if case.snapshot.retained_from_us is None:
        return ""
    since = datetime.fromtimestamp(case.snapshot.retained_from_us / 1e6, UTC).isoformat()
    message = f"; lake retention has removed rows of before {since}"
    if case.folded.again:
        names = ", ".join(sorted(instrument.key for instrument in case.folded.again))
        message += f"; ids were used again, and a lost row may look like a duplicate, of {names}"
    return message
