"""Ends a tape epoch and begins the next, each by one commit that adds no rows.

A tape that no longer fits what the lake holds (recreated, truncated, of another cluster, overtaken
by retention) is refused by name. An operator resolves this in two commits:

1. `end_epoch` records that the epoch has ended at the lake's positions. It needs the lake alone.
   From then on no writer can add to that epoch: its commit compares, and finds the end.
2. `begin_epoch`, in the next writer's start, adopts the tape that exists: it looks up the partition
   of each known instrument, and carries over all ids seen in earlier epochs. So a trade that the
   lake holds is a duplicate if the new tape has it too, and a lost trade leaves a hole. Ids that
   were acknowledged, and that the lake has not seen, go into the ledger of gaps before that commit.

Where the tape is the same, only with a beginning that retention removed or with records judged by
new rules (`fold.RULES`), the new epoch continues at the lake's positions; in all other cases it
begins with the oldest record there is. Reading a record once more than needed costs time, never a
row.

An empty lake takes any tape, as far as retention has left it: its first commit has no rows either
and records where the first epoch begins. From then on the lake owes every record, and a tape that
is lost before its first row was taken is refused like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from k2 import limits
from k2.clock import Clock
from k2.errors import Data, Invalid, Reason
from k2.lake.commit.committer import Store, TradeStore, write_state
from k2.lake.commit.snapshot_commit import TableCatalog, append, load_ours
from k2.lake.iceberg.catalog import reaching_lake, retry_conflicts
from k2.lake.iceberg.epochs import EpochHistory
from k2.lake.iceberg.snapshot import CommitSummary, LakeSnapshot, current_of, read_states
from k2.lake.ingest.tape_check import Marks, assert_fits
from k2.market.coverage import Coverage
from k2.market.fold import FoldState, Seen
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapEvent, GapState, Ledger, filled, is_deferred
from k2.market.offsets import OffsetVector
from k2.tape.topics import TopicDescription

_TRADES = TradeStore()
_ID_MAX = 2**63 - 1
PartitionOf = Callable[[Instrument], int]
States = Mapping[int, FoldState]


@dataclass(frozen=True)
class AvailableTape:
    """The tape that a writer finds at its start.

    Attributes:
        facts: describes the topic now; called after the lake was read, which another writer moves.
        marks: reads the marks of records, by partition and offset.
        partition_of: the partition of an instrument, chosen now if it has none.
        on_carry_over: gets the states that an epoch carries over, before it begins; may be called
            again.
    """

    facts: Callable[[], TopicDescription]
    marks: Marks
    partition_of: PartitionOf
    on_carry_over: Callable[[States], None]


@dataclass(frozen=True)
class StartedEpoch:
    """The epoch that a writer continues.

    Attributes:
        epoch: its number.
        adopted: whether this start began it.
    """

    epoch: int
    adopted: bool = False


def newest(catalog: TableCatalog, store: Store) -> LakeSnapshot | None:
    """Read the newest snapshot of a table; None where there is no snapshot, or no table.

    Raises:
        Unavailable: LAKE_UNAVAILABLE.
    """
    try:
        with reaching_lake():
            table = catalog.load_table(store.layout.identifier)
    except NoSuchTableError:
        return None
    return current_of(table.metadata)


def end_epoch(
    catalog: TableCatalog, clock: Clock, why: str, commit_id: str, store: Store = _TRADES
) -> LakeSnapshot | None:
    """End the current epoch at the lake's positions; harmless where it has ended already.

    Args:
        catalog: of the lake.
        clock: of the commit.
        why: the reason, in one word.
        commit_id: unique among commits.
        store: of the table, which exists.

    Returns:
        The newest snapshot, whose epoch has ended; None for a lake that no writer has begun.

    Raises:
        Invalid: LIMIT_OUT_OF_BOUNDS after `limits.EPOCHS_MAX` epochs.
        Unavailable: LAKE_UNAVAILABLE.
        Overloaded: DISK_FULL.
    """

    def ended(_table: Table, head: LakeSnapshot | None, _name: str) -> CommitSummary | None:
        if head is None or head.epochs.ended:
            return None
        if len(head.epochs.past) >= limits.EPOCHS_MAX:
            raise Invalid(
                Reason.LIMIT_OUT_OF_BOUNDS, f"the lake has had {limits.EPOCHS_MAX} epochs already"
            )
        return replace(
            head.carry_over(writer_id=commit_id, commit_id=commit_id),
            epochs=replace(head.epochs, ended=why),
        )

    return _commit(catalog, clock, store, commit_id, ended)


def begin_epoch(
    catalog: TableCatalog, clock: Clock, tape: AvailableTape, commit_id: str, store: Store = _TRADES
) -> StartedEpoch:
    """Return the lake's epoch; begun on this tape where it is the first or the last has ended.

    Args:
        catalog: of the lake.
        clock: of the commit.
        tape: to begin with, or to go on with.
        commit_id: unique among commits, also among those of earlier tries.
        store: of the table, which exists.

    Raises:
        Unavailable: LAKE_UNAVAILABLE, or as the tape's functions raise; nothing has begun.
        Overloaded: DISK_FULL; nothing has begun.
        Data: the tape does not fit the current epoch (`assert_fits`); LAKE_CORRUPT.
    """

    def beginning(table: Table, head: LakeSnapshot | None, name: str) -> CommitSummary | None:
        if head is not None and not head.epochs.ended:
            return None
        facts = tape.facts()
        states = _carried_states(table, head, tape, facts)
        start, epochs = _next(head, facts, store.layout.rules)
        path = write_state(table, states, name)
        return CommitSummary(
            positions=start,
            counters={},
            state_path=path,
            epochs=replace(epochs, start=start, start_state=path),
            topic=facts.topic,
            topic_id=facts.topic_id,
            cluster_id=facts.cluster_id,
            writer_id=commit_id,
            commit_id=commit_id,
        )

    head = _commit(catalog, clock, store, commit_id, beginning)
    assert head is not None, "an empty lake has begun by now"
    rules = store.layout.rules
    assert_fits(head, tape.facts(), head.positions.epoch, tape.marks, rules)
    return StartedEpoch(head.positions.epoch, head.commit_id == commit_id)


def _carried_states(
    table: Table, head: LakeSnapshot | None, tape: AvailableTape, facts: TopicDescription
) -> States:
    """Carry over the states of the epoch that ended; none where there was no epoch."""
    if head is None:
        return {}
    states = carried_over(read_states(table.io, head), tape.partition_of, facts.partitions)
    tape.on_carry_over(states)
    return states


def _next(
    head: LakeSnapshot | None, facts: TopicDescription, rules: int
) -> tuple[OffsetVector, EpochHistory]:
    """Return where the next epoch begins, and the epochs before it."""
    if head is None:
        return OffsetVector(0, facts.log_start), EpochHistory(rules=rules)
    past = (*head.epochs.past, head.positions)
    topics = (*head.epochs.past_topics, head.topic_id)
    start = OffsetVector(head.positions.epoch + 1, first_positions(head, facts))
    return start, EpochHistory(past=past, past_topics=topics, rules=rules)


def first_positions(head: LakeSnapshot, tape: TopicDescription) -> tuple[int, ...]:
    """Return where the next epoch begins on each partition, by the rule of the module."""
    same = (head.cluster_id, head.topic, head.topic_id, len(head.positions.offsets)) == (
        tape.cluster_id,
        tape.topic,
        tape.topic_id,
        tape.partitions,
    )
    stands = head.positions.offsets
    if not same or head.epochs.ended not in (Reason.RETENTION_OVERTOOK, Reason.RULES_CHANGED):
        return tape.log_start
    if any(position > end for position, end in zip(stands, tape.log_end, strict=True)):
        return tape.log_start
    return tuple(map(max, stands, tape.log_start))


def lost_ids(
    states: States, promises: Mapping[Instrument, Coverage], ledger: Ledger, now_us: int, who: str
) -> list[GapEvent]:
    """Make gap events for ids that the tape had acknowledged and the lake has not seen.

    They cover the most that can be lost: what the next tape has of it is filled as it comes. They
    are the ids that feeds had covered above the last id seen, or at all where none was seen; ids
    that may have come out of order just before the end; and all other unseen ids that the ledger
    calls FILLED. What a writer deferred ends with the epoch: it is FILLED, or else lost.

    Args:
        states: what is carried over.
        promises: coverage of each instrument that any feed has covered.
        ledger: as it stands.
        now_us: the time.
        who: makes the events; events may repeat ids of others.
    """
    seen = {key: ids for state in states.values() for key, ids in state.seen.items()}
    known = {gap.instrument for gap in ledger.gaps()}
    deferred = [gap for gap in ledger.gaps() if gap.state is GapState.OPEN and is_deferred(gap)]
    settled = [replace(filled(gap, now_us), recorded_us=now_us, feed=who) for gap in deferred]
    return settled + [
        GapEvent(key, first, last, now_us, Cause.EPOCH, GapState.OPEN, now_us, who)
        for key in sorted(known.union(seen, promises))
        for first, last in _lost(key, seen.get(key), promises.get(key), ledger)
    ]


def _lost(
    instrument: Instrument, seen: Seen | None, promise: Coverage | None, ledger: Ledger
) -> Iterator[tuple[int, int]]:
    """Iterate over runs of ids that may be lost."""
    low, high = _listened(seen, promise)
    for first, last in _unseen(seen):
        gaps = ledger.within(instrument, first, last)
        yield from ((gap.first_id, gap.last_id) for gap in gaps if gap.state is GapState.FILLED)
        if max(first, low) <= min(last, high):
            yield max(first, low), min(last, high)


def _listened(seen: Seen | None, promise: Coverage | None) -> tuple[int, int]:
    """Return first and last of the ids of which each unseen one may be lost."""
    if promise is None:
        return 0, -1  # no feed listened, and nothing came out of order
    if seen is None:
        return promise.began_after + 1, promise.trade_id
    oldest_id, newest_id = int(seen.intervals[0, 0]), int(seen.intervals[-1, 1])
    low = max(min(oldest_id, promise.began_after + 1), newest_id - limits.SEQUENCE_REORDER_MAX)
    return low, max(newest_id, promise.trade_id)


def _unseen(seen: Seen | None) -> list[tuple[int, int]]:
    """List first and last id of each range around and between the intervals."""
    if seen is None:
        return [(0, _ID_MAX)]
    below, above = int(seen.intervals[0, 0]) - 1, int(seen.intervals[-1, 1]) + 1
    return [*([(0, below)] if below >= 0 else []), *seen.holes(), (above, _ID_MAX)]


def carried_over(
    states: States, partition_of: PartitionOf, partitions: int
) -> dict[int, FoldState]:
    """Move the ids seen of each instrument to its present partition; counters start at zero.

    Raises:
        Data: LAKE_CORRUPT when two partitions have seen ids of one instrument.
    """
    seen: dict[int, dict[Instrument, Seen]] = {number: {} for number in range(partitions)}
    for state in states.values():
        for instrument, ids in state.seen.items():
            of_partition = seen[partition_of(instrument)]
            if instrument in of_partition:
                raise Data(
                    Reason.LAKE_CORRUPT, f"two partitions have seen trades of {instrument.key}"
                )
            of_partition[instrument] = ids
    return {partition: FoldState(ids) for partition, ids in seen.items()}


def _commit(
    catalog: TableCatalog,
    clock: Clock,
    store: Store,
    commit_id: str,
    make: Callable[[Table, LakeSnapshot | None, str], CommitSummary | None],
) -> LakeSnapshot | None:
    """Commit the summary that `make` derives from the head, without rows; returns the head then.

    `make` gets table, head and a name for files that it may write; it returns None for no commit.
    """

    def attempt(number: int) -> LakeSnapshot | None:
        table = load_ours(catalog, store.layout)
        head = current_of(table.metadata)
        with reaching_lake():
            summary = make(table, head, f"{commit_id}-{number}")
            if summary is None:
                return head
            return current_of(append(catalog, table, (), summary, clock.now_us()).metadata)

    return retry_conflicts(attempt)
