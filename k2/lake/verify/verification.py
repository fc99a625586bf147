"""Verifies that nothing was lost, doubled or changed: folds the tape again and compares (G2).

Everything is compared at the positions of one pinned snapshot:

* the rows that the fold accepts with the rows in the lake, column by column, by place on the tape
  (but for optional columns, which the K2 that stored a row may not have known)
* the records it finds dead with the dead letters
* the dead letters with the table that holds them (`verify_letters.py`)
* its state and counters with those that the snapshot published
* the holes that it leaves with what the ledger says of them (`verify_gaps.py`)

Where retention has removed the beginning of a partition, the fold starts from what the lake holds
of it; that part of the lake is then only checked for doubles.

Where lake retention has removed rows, rows from its retained time on are compared, and only the
tape's count below it. Removed rows may also have had ids that the fold of a shortened tape cannot
know any more; there the published state may know more than the fold, and the beginning of an epoch
more than the rows of earlier epochs. A copy of such a row repeats its time and lies below the
retained time; but a venue that begins the ids of an instrument again uses them with later times.
Where the instrument shows that (`_begun_again`), the commit decides: a record of a published id
without a letter and without a row is a duplicate of a row that is gone.

The fold starts where the tape's epoch began, with the ids that were carried into it. Those must be
the ids of the rows of earlier epochs, each once; the tapes of those epochs are gone.

Some faults depend on what was known at the time (`superseded.py`): there the commit decides. Where
the lake has a row at the letter's place, the letter was superseded and is counted as such; where it
has none, the letter's verdict holds, though the record may be good by what is known today. Such a
record may also have been a duplicate to the writer that committed: no row tells the two apart, and
the counters may have it as either.

Holes in trade ids are trades that K2 never received: they are listed, and are no failure, unless
the ledger calls them filled.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from pyiceberg.io import FileIO

from k2 import limits
from k2.clock import Clock
from k2.errors import Reason, Unavailable
from k2.lake.commit.committer import TapeIdentity, assert_same_tape
from k2.lake.dead_letters.superseded import PartitionLetters, apply_recorded_faults
from k2.lake.iceberg.snapshot import LakeSnapshot, SnapshotReader, read_first_states
from k2.lake.ingest.tape_check import check_tape
from k2.lake.verify.report import (
    Folded,
    Problem,
    StoredRows,
    VerifyInput,
    differences,
    earlier_problems,
    empty_report,
    report,
    standing,
)
from k2.lake.verify.row_checksums import Bucket, PartitionRows, RowChecksums, read_rows
from k2.lake.verify.verify_gaps import compare_gaps
from k2.lake.verify.verify_letters import (
    LetterSources,
    compare_letters,
    stored_letters,
)
from k2.market.events import Bools, Fault, Int64s, TradeColumns
from k2.market.fold import NOTHING_SEEN, FoldState, Seen, Verdict, contains, fold
from k2.market.instrument import Instrument
from k2.market.ledger import GapEvent, fold_all
from k2.tape.acceptance import Acceptance
from k2.tape.avro.trade_codec import Decoder
from k2.tape.consumer import RawBatch
from k2.tape.dead_letter_topic import DeadLetter
from k2.tape.ports import BatchReader, Placement
from k2.tape.topics import TopicDescription

_OF_THE_PAST = (Fault.REUSED_ID, Fault.TOO_MANY_HOLES)  # found by earlier rows
_ANY_NUMBER = 2**62  # of intervals, while rows of the lake come in any order
_DISORDER_US = limits.VERIFY_DISORDER_S * 1_000_000
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class VerifySources:
    """The sources of a verification.

    Attributes:
        snapshots: the lake's.
        io: reads data files.
        identity: of the tape.
        facts: describes the topic now.
        replay: opens a reader at these offsets, in no group.
        decoder, placement: see their classes.
        letters: reads all dead letters that their topic still has.
        table: of the dead letters; None where there is none to compare.
        gaps: reads every event of the ledger; None where there is none to compare.
    """

    snapshots: SnapshotReader
    io: FileIO
    identity: TapeIdentity
    facts: Callable[[], TopicDescription]
    replay: Callable[[Mapping[int, int]], BatchReader]
    decoder: Decoder
    placement: Placement
    letters: Callable[[], Iterable[DeadLetter]]
    table: LetterSources | None = None
    gaps: Callable[[], Iterable[GapEvent]] | None = None


def verify(sources: VerifySources, clock: Clock, progress: Progress) -> dict[str, Any]:
    """Fold the tape again and compare; returns the report as a JSON document.

    Args:
        sources: of the comparison.
        clock: bounds the wait for the broker.
        progress: gets the current step, how much of it is done, and how much there is.

    Raises:
        Data: the tape does not fit the lake at all (`check_tape`, `assert_same_tape`), or something
            cannot be read.
        Unavailable: a part is away.
    """
    ledger = fold_all(sources.gaps() if sources.gaps is not None else ())
    snapshot = sources.snapshots.current()
    facts = sources.facts()
    if snapshot is None:
        return empty_report(facts)
    assert_same_tape(snapshot, sources.identity)
    unremoved = replace(facts, log_start=(0,) * facts.partitions)  # what is gone is reported
    check_tape(unremoved, sources.identity, snapshot.positions, range(facts.partitions))
    left = map(min, facts.log_start, snapshot.positions.offsets)
    start = tuple(map(max, snapshot.first_positions.offsets, left))
    first = read_first_states(sources.io, snapshot)
    published = sources.snapshots.states(snapshot)
    acceptance = Acceptance(sources.decoder, sources.placement, clock, sys.maxsize)
    work = _Work(sources, snapshot, start, first, published, clock, progress, acceptance)
    letters = work.letters()
    stored, folded = work.both(letters, frozenset())
    if again := work.begun_again(stored, folded):  # once more, with what the commits say of these
        work = replace(work, again=again)
        stored, folded = work.both(letters, frozenset())
    places = folded.rows.differing(stored.rows)[: limits.VERIFY_PLACES_MAX]
    if places:  # once more, keeping what differs
        stored, folded = work.both(letters, frozenset(places))
    problems = differences(places, folded.rows, stored.rows)
    if stored.stray:
        message = "rows at or above the snapshot's positions, or of no partition or epoch of it"
        problems.append(Problem("STRAY", None, stored.stray, (), message))
    doubled = sum(state.duplicate for state in stored.before.values())
    if doubled:
        message = "rows of what retention removed from the tape have an id that another row has"
        problems.append(Problem("DOUBLED", None, doubled, (), message))
    problems += earlier_problems(first, stored, snapshot.retained_from_us)
    counts = {"letter_rows": 0, "letters_waiting": 0}
    if sources.table is not None:
        compared = compare_letters(sources.table)
        problems += compared.problems
        counts = {"letter_rows": compared.rows, "letters_waiting": compared.waiting}
    ends = zip(snapshot.positions.offsets, facts.log_end, strict=True)
    whole = {partition for partition, (end, log_end) in enumerate(ends) if end == log_end}
    case = VerifyInput(snapshot, facts, start, published, folded, stored, standing(letters, stored))
    gaps = compare_gaps(ledger, {p: case.known(p) for p in folded.states}, whole)
    problems += gaps.problems
    counts["letters_overruled"] = sum(len(offsets) for offsets in stored.superseded.values())
    return report(case, problems) | counts | {"missing": gaps.missing}


@dataclass(frozen=True)
class _Work:
    """One verification of one snapshot."""

    sources: VerifySources
    snapshot: LakeSnapshot
    start: tuple[int, ...]
    first: Mapping[int, FoldState]
    published: Mapping[int, FoldState]
    clock: Clock
    progress: Progress
    acceptance: Acceptance
    again: frozenset[Instrument] = frozenset()  # whose ids were begun again

    def letters(self) -> dict[int, PartitionLetters]:
        """Read the dead letters of this tape, per partition; the table may keep them longer."""
        self.progress("reading dead letters", 0, 0)
        identity, table = self.sources.identity, self.sources.table
        kept = stored_letters(table, identity.topic, identity.epoch) if table is not None else ()
        faults: dict[int, dict[int, Fault]] = {p: {} for p in range(identity.partitions)}
        for letter in chain(self.sources.letters(), kept):
            if (letter.topic, letter.epoch) == (identity.topic, identity.epoch):
                faults[letter.partition].setdefault(letter.offset, letter.fault)
        return {
            partition: PartitionLetters(
                np.array(sorted(of), dtype=np.int64),
                np.array([of[offset] for offset in sorted(of)], dtype=np.uint8),
            )
            for partition, of in faults.items()
        }

    def both(
        self, letters: Mapping[int, PartitionLetters], keep: frozenset[Bucket]
    ) -> tuple[StoredRows, Folded]:
        """Read the lake and fold the tape."""
        stored = self.stored(letters, keep)
        return stored, self.folded(stored, standing(letters, stored), keep)

    def begun_again(self, stored: StoredRows, folded: Folded) -> frozenset[Instrument]:
        """Find instruments whose venue began ids again, where rows are gone from tape and lake."""
        return frozenset(
            instrument
            for partition, state in folded.states.items()
            if self._partly_known(partition)
            for instrument, seen in state.seen.items()
            if instrument in folded.backwards
            or _begun_again(
                seen, self._published(partition, instrument), stored.lowest.get(instrument)
            )
        )

    def _published(self, partition: int, instrument: Instrument) -> Seen:
        return self.published.get(partition, FoldState()).seen.get(instrument, NOTHING_SEEN)

    def _partly_known(self, partition: int) -> bool:
        """Return whether rows that both retentions removed are known to state and letters alone."""
        whole = self.start[partition] == self.snapshot.first_positions[partition]
        return self.snapshot.retained_from_us is not None and not whole

    def stored(
        self, letters: Mapping[int, PartitionLetters], keep: frozenset[Bucket]
    ) -> StoredRows:
        """Read the lake, and which retriable letters its rows supersede."""
        ends = self.snapshot.positions.offsets
        stored = StoredRows(RowChecksums(ends, keep), dict(self.first))
        retriable = {partition: of.retriable.offsets for partition, of in letters.items()}
        done = 0
        for file in self.sources.snapshots.files(self.snapshot.snapshot_id):
            self.progress("reading the lake", done, self.snapshot.rows_total)
            for rows in read_rows(self.sources.io, file.path):
                self._store(stored, rows, retriable)
            done += file.rows
        return stored

    def _store(
        self, stored: StoredRows, rows: PartitionRows, retriable: Mapping[int, Int64s]
    ) -> None:
        partition, columns = rows.partition, rows.columns
        inside = columns.offset < self._end(rows.epoch, partition)
        if not inside.all():
            stored.stray += int((~inside).sum())
            columns = columns.take(inside)
        if not len(columns):
            return
        if rows.epoch < self.snapshot.positions.epoch:
            stored.earlier = _known(stored.earlier, columns)
            return
        if self._partly_known(partition):
            stored.note(self._compared(columns))
            stored.place(partition, columns.offset[self._is_again(columns)])
        gone = columns.offset < self.start[partition]
        if gone.any():
            before = stored.before[partition]
            stored.before[partition] = _known(before, columns.take(gone))
            columns = columns.take(~gone)
        if len(retriable[partition]):
            stored.supersede(partition, np.intersect1d(retriable[partition], columns.offset))
        stored.rows.add(PartitionRows(partition, self._compared(columns)))

    def _end(self, epoch: int, partition: int) -> int:
        """Return where the lake's rows of a partition end; 0 for one that never was."""
        known = [*self.snapshot.epochs.past, self.snapshot.positions]
        ends = known[epoch].offsets if 0 <= epoch < len(known) else ()
        return ends[partition] if partition < len(ends) else 0

    def folded(
        self,
        stored: StoredRows,
        letters: Mapping[int, PartitionLetters],
        keep: frozenset[Bucket],
    ) -> Folded:
        """Fold the tape from its start, or what retention left, up to the snapshot's positions."""
        ends = self.snapshot.positions.offsets
        states = {p: replace(state, duplicate=0, dead=0) for p, state in stored.before.items()}
        folded = Folded(states, RowChecksums(ends, keep), again=self.again)
        todo = {p: at for p, at in enumerate(self.start) if at < ends[p]}
        total = sum(ends[p] - at for p, at in todo.items())
        if not todo:
            return folded
        replay = self.sources.replay(todo)
        try:
            while todo:
                for batch in self._read(replay):
                    if batch.partition in todo:
                        self._fold(folded, batch, letters[batch.partition], stored)
                        todo[batch.partition] = batch.next_offset
                if over := [p for p, at in todo.items() if at >= ends[p]]:
                    replay.pause(over)
                todo = {p: at for p, at in todo.items() if at < ends[p]}
                left = sum(ends[p] - at for p, at in todo.items())
                self.progress("folding the tape", total - left, total)
        finally:
            replay.close()
        return folded

    def _read(self, replay: BatchReader) -> list[RawBatch]:
        """Read the next records; waits for them up to `limits.VERIFY_PATIENCE_S`."""
        until_s = self.clock.monotonic_s() + limits.VERIFY_PATIENCE_S
        while self.clock.monotonic_s() < until_s:
            if batches := replay.read(limits.CONSUME_BATCH_RECORDS, limits.WRITER_READ_TIMEOUT_S):
                return batches
        raise Unavailable(Reason.TAPE_UNAVAILABLE, "the tape does not answer")

    def _fold(
        self, folded: Folded, batch: RawBatch, letters: PartitionLetters, stored: StoredRows
    ) -> None:
        """Fold the records below the snapshot's positions."""
        rest, partition = _below(batch, self.snapshot.positions[batch.partition]), batch.partition
        partly = self._partly_known(partition)
        beside = _OF_THE_PAST if partly else ()
        duplicate = 0

        def recorded(columns: TradeColumns) -> TradeColumns:
            nonlocal duplicate
            columns, doubtful = apply_recorded_faults(columns, letters, beside)
            folded.doubtful[partition] = folded.doubtful.get(partition, 0) + doubtful
            if self.again and partly:
                copy = self._copies(columns, partition, stored)
                # Below the retained time, a copy may be of a row that was removed.
                duplicate = int(self._stay(columns)[copy].sum())
                columns = columns.take(~copy)
            return columns

        while rest is not None:
            before = folded.states[partition]
            judged = self.acceptance.judge(rest, before, recorded)
            state, rest = judged.state, judged.rest
            folded.states[partition] = replace(state, duplicate=state.duplicate + duplicate)
            if partly:
                folded.backwards |= _backwards(before, judged.accepted())
            dead = judged.columns.offset[judged.verdicts == Verdict.DEAD]
            if len(dead):
                folded.dead.setdefault(partition, []).append(dead)
            folded.rows.add(PartitionRows(partition, self._compared(judged.accepted())))

    def _copies(self, columns: TradeColumns, partition: int, stored: StoredRows) -> Bools:
        """Find good records that have a published id and no row in the lake."""
        places = stored.places.get(partition, np.empty(0, np.int64))
        low, high = (np.searchsorted(places, columns.offset, side) for side in ("left", "right"))
        copy: Bools = (low == high) & (columns.fault == Fault.NONE) & self._is_again(columns)
        for code in np.unique(columns.label[copy]).tolist():
            ids = self._published(partition, columns.labels[code].instrument).intervals
            copy &= (columns.label != code) | contains(ids, columns.trade_id)
        return copy

    def _is_again(self, columns: TradeColumns) -> Bools:
        of_label = np.array([label.instrument in self.again for label in columns.labels] + [False])
        again: Bools = of_label[columns.label]
        return again

    def _compared(self, columns: TradeColumns) -> TradeColumns:
        """Select the rows that lake retention keeps."""
        if self.snapshot.retained_from_us is None:
            return columns
        return columns.take(self._stay(columns))

    def _stay(self, columns: TradeColumns) -> Bools:
        stay: Bools = columns.event_time >= (self.snapshot.retained_from_us or 0)
        return stay


def _known(state: FoldState, rows: TradeColumns) -> FoldState:
    """Add the ids of rows of the lake, which come in any order, to the state."""
    return fold(state, rows, _ANY_NUMBER, in_order=False).state


def _begun_again(folded: Seen, published: Seen, lowest: int | None) -> bool:
    """Return whether the published state shows that ids were used again with later times.

    Args:
        folded: state of an instrument by its remaining records and rows.
        published: state of the writer.
        lowest: id of its rows from the retained time on; ids that are gone lie below all of them.
    """
    if published.reused_us is not None or folded.time_max_us > published.time_max_us:
        return True
    ends = np.concatenate((published.intervals[:, 1], folded.intervals[:, 0] - 1))
    gone = contains(published.intervals, ends) & ~contains(folded.intervals, ends)
    return lowest is not None and bool((ends[gone] > lowest).any())


def _backwards(before: FoldState, rows: TradeColumns) -> set[Instrument]:
    """Find instruments with an accepted id below an earlier one's, and a far later time."""
    found = set()
    for code in np.unique(rows.label).tolist():
        instrument, mine = rows.labels[code].instrument, rows.label == code
        seen = before.seen.get(instrument, NOTHING_SEEN)
        ids = np.concatenate((seen.intervals[-1:, 1], rows.trade_id[mine]))
        times = np.concatenate(([seen.time_max_us][: len(seen.intervals)], rows.event_time[mine]))
        below = ids[1:] < np.maximum.accumulate(ids)[:-1]
        later = times[1:] - _DISORDER_US > np.maximum.accumulate(times)[:-1]
        if (below & later).any():
            found.add(instrument)
    return found


def _below(batch: RawBatch, end: int) -> RawBatch | None:
    """Select the records below an offset; None where there are none."""
    count = int(np.searchsorted(batch.offset, end))
    return batch.between(0, count) if count else None
