"""Replays dead letters: puts their records back on the tape if they are good now, or repaired.

A record is judged here by the writer's own path, so that none is sent that would be a dead letter
again. A sent record is one more record of the tape: the fold takes its trade once, however often it
is replayed. Replays are recorded, so a second replay can refuse.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from k2 import limits
from k2.clock import Clock
from k2.errors import K2Error, Reason, Unavailable
from k2.lake.dead_letters.letter_list import LetterReader
from k2.lake.ingest.tape_check import meaning
from k2.market.events import ANYWHERE, Fault, Label, Trade, TradeColumns
from k2.market.fold import FoldState
from k2.market.instrument import Instrument
from k2.tape.acceptance import Acceptance
from k2.tape.avro.trade_codec import Decoder, encode_trade
from k2.tape.consumer import RawBatch
from k2.tape.dead_letter_topic import DeadLetter
from k2.tape.ports import DocumentTopic, Placement, RecordSender

LETTER_HEADER = "k2-dead-letter"  # of a replayed record: the letter's name
_SENT, _REFUSED, _BEFORE, _OVERRULED = "SENT", "REFUSED", "REPLAYED_BEFORE", "OVERRULED"


@dataclass(frozen=True)
class ReadRecord:
    """The verdict on a record by what is known now.

    Attributes:
        fault: of the record.
        trade: what was read; None when nothing could be.
        home: the partition of its symbol; None when it has none.
    """

    fault: Fault
    trade: Trade | None
    home: int | None


@dataclass(frozen=True)
class Replayed:
    """The result of replaying a letter.

    Attributes:
        name: the letter's.
        state: SENT, REFUSED, REPLAYED_BEFORE or OVERRULED.
        message: for the operator.
        fault: what its record would be a dead letter of again; NONE unless refused.
        partition, offset: where it is now; None unless sent.
    """

    name: str
    state: str
    message: str
    fault: Fault = Fault.NONE
    partition: int | None = None
    offset: int | None = None


@dataclass(frozen=True)
class ReplayParts:
    """What replaying needs; see the classes.

    Attributes:
        letters: finds them.
        decoder, placement: judge records.
        sender: of the trades topic.
        schema_id: the id that trades are written with; may ask the registry.
        replays: records of replays.
    """

    letters: LetterReader
    decoder: Decoder
    placement: Placement
    sender: RecordSender
    schema_id: Callable[[], int]
    replays: DocumentTopic


class Replayer:
    """Judges and replays letters. Thread-safe: one call at a time."""

    def __init__(self, parts: ReplayParts, clock: Clock) -> None:
        self._parts = parts
        self._clock = clock
        self._lock = threading.Lock()

    def read(self, value: bytes | None) -> ReadRecord:
        """Judge a record as if it came today, on the right partition.

        Raises:
            Unavailable: REGISTRY_UNAVAILABLE, TAPE_UNAVAILABLE.
        """
        with self._lock:
            return self._read(value)

    def encode(self, trade: Trade) -> bytes:
        """Encode a trade as a message of the tape.

        Raises:
            Unavailable: REGISTRY_UNAVAILABLE.
        """
        return encode_trade(trade, self._parts.schema_id())

    def replayed(self) -> dict[str, int]:
        """Return when each letter was last replayed, microseconds, by name."""
        return {
            name: int(document["at_us"])
            for name, document in self._parts.replays.read_all().items()
        }

    def replay(self, name: str, repaired: bytes | None, *, again: bool) -> Replayed:
        """Put one letter's record back on the tape, unless the lake took it meanwhile.

        Args:
            name: the letter's.
            repaired: what to put in the place of its bytes; None: the bytes as they are.
            again: also when it was replayed before.

        Raises:
            NotFound: UNKNOWN_DEAD_LETTER.
            Invalid: BAD_REQUEST.
            Unavailable: not acknowledged, or a part is away; try again.
            Overloaded: QUEUE_FULL.
        """
        with self._lock:
            stored = self._parts.letters.get(name)
            if self._parts.letters.superseded([stored]):
                return Replayed(name, _OVERRULED, "its record is a row of the lake")
            before = self._parts.replays.read_all().get(name)
            if before is not None and not again:
                place = f"partition {before['partition']}, offset {before['offset']}"
                return Replayed(name, _BEFORE, f"it was replayed before: {place}")
            value = stored.letter.value if repaired is None else repaired
            reading = self._read(value)
            if value is None or reading.trade is None or reading.home is None or reading.fault:
                return Replayed(name, _REFUSED, _refusal(reading), reading.fault)
            if self._is_of_another_life(stored.letter, reading.trade.label.instrument):
                message = f"it {meaning(Fault.REUSED_ID)}, then replay it with that exchange"
                return Replayed(name, _REFUSED, message, Fault.REUSED_ID)
            offset = self._send(name, value, reading.trade.label, reading.home)
            note = {"at_us": self._clock.now_us(), "partition": reading.home, "offset": offset}
            self._parts.replays.put(name, note, wait_s=limits.BOARD_WAIT_S)
            return Replayed(
                name, _SENT, "it is on the tape again", partition=reading.home, offset=offset
            )

    def _is_of_another_life(self, letter: DeadLetter, instrument: Instrument) -> bool:
        """Return whether a record that reused an id would be put back under the same symbol."""
        if letter.fault is not Fault.REUSED_ID:
            return False
        was = self._read(letter.value).trade
        return was is None or was.label.instrument == instrument

    def _read(self, value: bytes | None) -> ReadRecord:
        """Judge a record as if it were appended now, by acceptance's own path."""
        now_us = np.array([self._clock.now_us()], dtype=np.int64)
        batch = RawBatch(ANYWHERE, np.zeros(1, np.int64), [value], 1, append_time=now_us)
        acceptance = Acceptance(self._parts.decoder, self._parts.placement, self._clock)
        columns = acceptance.judge(batch, FoldState()).columns
        fault = Fault(int(columns.fault[0]))
        if columns.label[0] < 0:
            return ReadRecord(fault, None, None)
        trade = _trade_of(columns)
        instrument = trade.label.instrument
        home = self._parts.placement.refresh_for([instrument]).get(instrument)
        return ReadRecord(fault, trade, home)

    def _send(self, name: str, value: bytes, label: Label, partition: int) -> int:
        """Send a record; returns its offset."""
        acknowledged: list[tuple[int | None, K2Error | None]] = []

        def on_ack(offset: int | None, error: K2Error | None) -> None:
            acknowledged.append((offset, error))

        headers = {"source": label.source.encode(), LETTER_HEADER: name.encode()}
        sender = self._parts.sender
        sender.send(label.instrument.key.encode(), value, partition, headers, on_ack)
        sender.flush(limits.BOARD_WAIT_S)
        offset, error = acknowledged[0] if acknowledged else (None, None)
        if error is not None:
            raise error
        if offset is None:
            raise Unavailable(
                Reason.TAPE_UNAVAILABLE,
                f"the tape did not acknowledge within {limits.BOARD_WAIT_S} s: it may have taken"
                " the record, which harms nothing; try again",
                retry_after_s=limits.RECONNECT_MAX_S,
            )
        return offset


def _trade_of(columns: TradeColumns) -> Trade:
    """Return the first record."""
    low, high = columns.quantity[0].tolist()
    vendor = columns.vendor_data
    return Trade(
        label=columns.labels[int(columns.label[0])],
        trade_id=int(columns.trade_id[0]),
        event_time_us=int(columns.event_time[0]),
        receive_time_us=int(columns.receive_time[0]),
        price=int(columns.price[0]),
        quantity=(high << 64) | (low & (2**64 - 1)),
        side=int(columns.side[0]),
        vendor_data={} if vendor is None else dict(vendor[0].as_py()),
    )


def _refusal(reading: ReadRecord) -> str:
    """Explain why a record may not go back."""
    if reading.trade is not None and reading.home is None:
        return f"no feed has placed {reading.trade.label.instrument.key} on a partition"
    return f"it {meaning(reading.fault)}"
