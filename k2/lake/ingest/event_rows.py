"""Decodes records of the ops topics to rows: one decoder for each table.

A record that is no event of its topic becomes a dead letter of it, acknowledged before its batch
is committed, like a trade's. A record of the dead-letter topic that is no letter gets no letter,
because it is on that topic already: its row says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from k2 import limits
from k2.clock import Clock
from k2.lake.commit.event_files import OpsView, Row
from k2.lake.iceberg.tables import (
    DEAD_LETTERS_LAYOUT,
    GAPS_LAYOUT,
    TRANSITIONS_LAYOUT,
    TableLayout,
)
from k2.lake.ingest.letter_identity import Origin, accept_letters, bounded
from k2.lake.ingest.tape_check import dead_letter
from k2.market.events import Fault
from k2.market.fold import FoldState
from k2.tape.avro.record_codec import RecordCodec
from k2.tape.consumer import RawBatch
from k2.tape.dead_letter_topic import DeadLetter, read_letter
from k2.tape.gap_topic import read_event
from k2.tape.ports import LetterSink
from k2.tape.transition_topic import read_transition


class EventRowDecoder(ABC):
    """Decodes events: each record once; a repeated event makes two equal rows.

    Args:
        topic: of the events.
        letters: takes the records that are none.
        clock: time of those letters.
    """

    layout: TableLayout

    def __init__(self, topic: str, letters: LetterSink, clock: Clock) -> None:
        self._topic = topic
        self._letters = letters
        self._clock = clock
        self._epoch = 0

    def start(self, state: FoldState, view: OpsView | None, epoch: int) -> FoldState:
        """Begin in an epoch of the tape; returns the state to use, which is the given one."""
        self._epoch = epoch
        return state

    def decode(self, batch: RawBatch, state: FoldState) -> tuple[pa.Table, FoldState]:
        """Make a row of each event and a dead letter of each other record.

        Returns:
            The rows, and the fold's state after the batch.

        Raises:
            Unavailable: a dependency is away; decode the batch again later.
        """
        rows: list[Row] = []
        letters: list[DeadLetter] = []
        origin, now_us = Origin(self._topic, self._epoch, 0), self._clock.now_us()
        for offset, value in zip(batch.offset.tolist(), batch.values, strict=True):
            read = self._read(value)
            if isinstance(read, Fault):
                letters.append(dead_letter(origin, offset, value, read, now_us))
            else:
                rows.append(read | _position(self._epoch, offset))
        if letters:
            self._letters.publish(letters, limits.DEAD_LETTER_WAIT_S)
        after = FoldState(
            state.seen, state.accepted + len(rows), state.duplicate, state.dead + len(letters)
        )
        return _table(rows, self.layout), after

    @abstractmethod
    def _read(self, value: bytes | None) -> Row | Fault:
        """Read the columns that a message carries, or what is wrong with it."""


class GapRowDecoder(EventRowDecoder):
    """Decodes gap events, which `codec` reads."""

    layout = GAPS_LAYOUT

    def __init__(self, topic: str, codec: RecordCodec, letters: LetterSink, clock: Clock) -> None:
        super().__init__(topic, letters, clock)
        self._codec = codec

    def _read(self, value: bytes | None) -> Row | Fault:
        event = read_event(self._codec, value)
        return event if isinstance(event, Fault) else event.values()


class TransitionRowDecoder(EventRowDecoder):
    """Decodes changes of the platform's level."""

    layout = TRANSITIONS_LAYOUT

    def _read(self, value: bytes | None) -> Row | Fault:
        transition = read_transition(value)
        return transition if isinstance(transition, Fault) else transition.values()


class LetterRowDecoder:
    """Decodes dead letters: each origin once, however often its letter was published."""

    layout = DEAD_LETTERS_LAYOUT

    def __init__(self, topic: str, clock: Clock) -> None:
        self._topic = topic
        self._clock = clock
        self._view: OpsView | None = None
        self._epoch = 0

    def start(self, state: FoldState, view: OpsView | None, epoch: int) -> FoldState:
        """Begin at a snapshot of the table, in an epoch; returns the state within its bounds."""
        self._epoch = epoch
        self._view = view
        return bounded(state)

    def decode(self, batch: RawBatch, state: FoldState) -> tuple[pa.Table, FoldState]:
        """Make a row of each letter whose origin is new; as `EventRowDecoder.decode`."""
        now_us = self._clock.now_us()
        offsets = batch.offset.tolist()
        letters = [
            read_letter(headers, value) or self._placeholder(offset, value, now_us)
            for offset, value, headers in zip(
                offsets, batch.values, batch.headers or [], strict=True
            )
        ]
        after, new = accept_letters(
            state, [(_origin(letter), letter.offset) for letter in letters], now_us, self._stored
        )
        rows = [
            row_of(letter) | _position(self._epoch, offset)
            for letter, offset, is_new in zip(letters, offsets, new, strict=True)
            if is_new
        ]
        return _table(rows, self.layout), after

    def _stored(self, origin: Origin, offsets: Sequence[int]) -> Iterable[int]:
        """Look up offsets of an origin in the table, at the snapshot of the state."""
        if self._view is None:
            return ()
        conditions = [
            ("origin", "==", origin.topic),
            ("origin_epoch", "==", origin.epoch),
            ("origin_partition", "==", origin.partition),
            ("origin_offset", "in", [*offsets]),
        ]
        rows = self._view.newest(["origin_offset"], conditions)
        return [int(row["origin_offset"]) for row in rows]

    def _placeholder(self, offset: int, value: bytes | None, now_us: int) -> DeadLetter:
        """Make a letter for a record of the topic that is none."""
        return DeadLetter(
            topic=self._topic,
            epoch=self._epoch,
            partition=0,
            offset=offset,
            schema_id=None,
            fault=Fault.BAD_VALUE,
            error="is on the topic of dead letters and is not one",
            at_us=now_us,
            value=value,
        )


RowDecoder: TypeAlias = EventRowDecoder | LetterRowDecoder


def row_of(letter: DeadLetter) -> Row:
    """Return a letter's columns of `schema.DEAD_LETTER`; times in microseconds."""
    return {
        "origin": letter.topic,
        "origin_epoch": letter.epoch,
        "origin_partition": letter.partition,
        "origin_offset": letter.offset,
        "schema_id": letter.schema_id,
        "fault": letter.fault.name,
        "error": letter.error,
        "judged": letter.at_us,
        "value": letter.value,
    }


LETTER_COLUMNS = tuple(DEAD_LETTERS_LAYOUT.event.columns)
LETTER_COLUMNS_LISTED = tuple(name for name in LETTER_COLUMNS if name != "value")


def letter_of(row: Row) -> DeadLetter:
    """Return the letter of a row of `ops.dead_letters`; without a `value` column it has none."""
    return DeadLetter(
        topic=row["origin"],
        epoch=row["origin_epoch"],
        partition=row["origin_partition"],
        offset=row["origin_offset"],
        schema_id=row["schema_id"],
        fault=Fault[row["fault"]],
        error=row["error"],
        at_us=int(row["judged"].timestamp() * 1_000_000),
        value=row.get("value"),
    )


def _origin(letter: DeadLetter) -> Origin:
    return Origin(letter.topic, letter.epoch, letter.partition)


def _position(epoch: int, offset: int) -> dict[str, Any]:
    return {"tape_epoch": epoch, "tape_partition": 0, "tape_offset": offset}


def _table(rows: Sequence[Row], layout: TableLayout) -> pa.Table:
    return pa.Table.from_pylist([*rows], schema=layout.columns)
