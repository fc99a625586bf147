"""Checks that the tape fits the lake, and makes the dead letters of judged records.

Records are judged by `tape/acceptance.py`. Faults that two writers may judge differently, each by
what it knows, are the subject of `superseded.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from k2.errors import Data, Reason
from k2.lake.commit.committer import TapeIdentity, assert_same_tape, assert_same_topic
from k2.lake.iceberg.snapshot import LakeSnapshot
from k2.lake.ingest.letter_identity import Origin
from k2.market.events import Fault
from k2.market.fold import RULES
from k2.market.instrument import Tier
from k2.market.offsets import OffsetVector
from k2.tape.acceptance import Judged
from k2.tape.avro.trade_codec import Decoder
from k2.tape.consumer import OnAssign, OnRevoke, lost_position
from k2.tape.dead_letter_topic import DeadLetter
from k2.tape.ports import BatchReader, LetterSink, Placement
from k2.tape.topics import RECOVERY_HINT, TopicDescription

_HEADER_BYTES = 5  # magic and schema id
Marks = Callable[[Mapping[int, int]], Mapping[int, str]]


@dataclass(frozen=True)
class WriterTape:
    """The parts of the tape that the trade writer uses.

    Attributes:
        identity: the tape that the lake is written from.
        join: opens the reader that takes part in the writers' group.
        facts: describes the topic now, asked once.
        ends: where each partition ends now, asked once.
        tiers: the tier of each partition now; raises nothing.
        decoder, placement, letters: see their classes.
    """

    identity: TapeIdentity
    join: Callable[[OnAssign, OnRevoke], BatchReader]
    facts: Callable[[], TopicDescription]
    ends: Callable[[], tuple[int, ...]]
    tiers: Callable[[], tuple[Tier, ...]]
    decoder: Decoder
    placement: Placement
    letters: LetterSink


def letters_of(judged: Judged, identity: TapeIdentity, now_us: int) -> list[DeadLetter]:
    """Make a dead letter of each record that is neither a row nor a duplicate."""
    batch = judged.batch
    origin = Origin(identity.topic, identity.epoch, batch.partition)
    return [
        dead_letter(
            origin,
            int(batch.offset[row]),
            batch.values[row],
            Fault(int(judged.faults[row])),
            now_us,
        )
        for row in np.flatnonzero(judged.faults).tolist()
    ]


def dead_letter(
    origin: Origin, offset: int, value: bytes | None, fault: Fault, at_us: int
) -> DeadLetter:
    """Make the dead letter of a record."""
    named = value is not None and len(value) >= _HEADER_BYTES and value[0] == 0
    return DeadLetter(
        topic=origin.topic,
        epoch=origin.epoch,
        partition=origin.partition,
        offset=offset,
        schema_id=int.from_bytes(value[1:5], "big") if value and named else None,
        fault=fault,
        error=meaning(fault),
        at_us=at_us,
        value=value,
    )


def meaning(fault: Fault) -> str:
    """Describe a fault, to be read after the name of the record."""
    return _MEANING[fault]


def check_tape(
    facts: TopicDescription,
    identity: TapeIdentity,
    positions: OffsetVector,
    partitions: Iterable[int],
) -> None:
    """Refuse a tape that does not fit the positions of the lake.

    Raises:
        Data: CLUSTER_CHANGED, PARTITIONS_CHANGED, TOPIC_RECREATED; RETENTION_OVERTOOK when records
            were removed before they were committed; TAPE_TRUNCATED when committed ones are gone.
    """
    assert_same_topic(identity, identity_of(facts, identity.epoch))
    for partition in partitions:
        start, end = facts.log_start[partition], facts.log_end[partition]
        if not start <= positions[partition] <= end:
            raise lost_position(partition, positions[partition], start, end)


def assert_fits(
    snapshot: LakeSnapshot | None,
    facts: TopicDescription,
    epoch: int,
    marks: Marks,
    rules: int = RULES,
) -> None:
    """Refuse a tape that the lake cannot go on with, before anything is read from it.

    Args:
        snapshot: the lake's newest; any tape fits an empty lake.
        facts: the description of the topic.
        epoch: the one this process works in.
        marks: reads the marks of records on the tape, by partition and offset.
        rules: the version of the fold's rules that this process judges by.

    Raises:
        Data: as `assert_same_tape` and `check_tape`; TAPE_TRUNCATED also when the last record that
            the lake has passed is another now.
        Unavailable: TAPE_UNAVAILABLE.
    """
    if snapshot is None:
        return
    identity = identity_of(facts, epoch)
    assert_same_tape(snapshot, identity, rules)
    check_tape(facts, identity, snapshot.positions, range(facts.partitions))
    kept = {p: mark for p, mark in enumerate(snapshot.epochs.marks) if mark}
    last = {p: snapshot.positions[p] - 1 for p in kept}
    found = marks({p: at for p, at in last.items() if at >= facts.log_start[p]})
    for partition, mark in found.items():
        if mark != kept[partition]:
            raise Data(
                Reason.TAPE_TRUNCATED,
                f"partition {partition} has another record at {last[partition]} than the one that"
                f" the lake went past: the tape lost records and was filled again; {RECOVERY_HINT}",
                metadata={"partition": str(partition), "position": str(last[partition] + 1)},
            )


def identity_of(facts: TopicDescription, epoch: int) -> TapeIdentity:
    """Return a topic's identity, as commits carry it."""
    return TapeIdentity(facts.topic, facts.topic_id, facts.cluster_id, epoch, facts.partitions)


_MEANING = {
    Fault.BAD_MAGIC: "not in Confluent wire format",
    Fault.UNKNOWN_SCHEMA: "its schema is unknown, or is not a trade's",
    Fault.TRUNCATED: "ends inside a field",
    Fault.TRAILING: "has bytes after its last field",
    Fault.BAD_VALUE: "holds a value that its column cannot",
    Fault.OUT_OF_RANGE: "holds an id, a time, a price or a quantity that K2 cannot store; if its"
    " time lay ahead of the broker's clock, replay it when that time has come",
    Fault.WRONG_PARTITION: "is not on the partition that its symbol keeps",
    Fault.OVERSIZE: "is larger than a record may be",
    Fault.NULL_VALUE: "has no value",
    Fault.TOO_MANY_HOLES: "would begin one more stretch of ids than is remembered of a symbol;"
    " fill its gaps (k2 backfill), then replay",
    Fault.REUSED_ID: "repeats an id of its symbol with a time more than an hour after all trades"
    " before it: the venue began its ids again; give the new life an exchange of its own",
    Fault.INTERNAL: "makes K2 fail: report the defect with these bytes; it is good when a later"
    " version takes it (k2 dlq replay)",
}
