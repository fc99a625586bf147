"""Reads the tape's partitions for the lake's writer and judges what was read.

Each assigned partition has a queue of batches that are not judged yet, and a list of judged pieces
that no commit holds yet. A partition whose next record cannot be judged now waits alone: it is
paused, and the others go on. While commits fail, every partition is paused at the memory bound.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from k2 import limits, tracing
from k2.clock import Clock
from k2.errors import Unavailable
from k2.lake.commit.trade_files import rows_within_days
from k2.lake.ingest.pausing import PartitionPauses, PauseReason
from k2.lake.ingest.reading_order import ReadingOrder
from k2.lake.ingest.tape_check import WriterTape, letters_of
from k2.market.events import DAY_US, TradeColumns
from k2.market.fold import FoldState
from k2.tape.acceptance import Acceptance
from k2.tape.consumer import RawBatch
from k2.tape.ports import BatchReader

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JudgedPiece:
    """Consecutive judged records of one partition.

    Attributes:
        end: the offset after them.
        state: the fold's state at `end`.
        accepted: the records that are rows.
        last: the value of the last record.
        days: event days of the rows.
        traces: traceparents of the spans that judged them.
    """

    end: int
    state: FoldState
    accepted: TradeColumns
    last: bytes | None
    days: frozenset[int]
    traces: tuple[str, ...] = ()


@dataclass
class PartitionSlice:
    """Records of one partition that were read since its last commit.

    Attributes:
        start: the lake's position.
        state: the fold's state at `end`.
        end: the offset after all judged records.
        pieces: judged records, in order.
        unjudged: batches that follow them.
        retry_at_s: monotonic second before which the next record is not judged again.
        passed_over: commits in a row that had no room for the partition.
        waits_for: why the next record cannot be judged now; empty when it can.
        rows, bytes: accepted rows held, and their memory.
    """

    start: int
    state: FoldState
    end: int = 0
    pieces: list[JudgedPiece] = field(default_factory=list)
    unjudged: deque[RawBatch] = field(default_factory=deque)
    retry_at_s: float = 0.0
    passed_over: int = 0
    waits_for: str = ""
    rows: int = 0
    bytes: int = 0

    def __post_init__(self) -> None:
        self.end = self.start

    @property
    def read_to(self) -> int:
        """The offset after all that was read."""
        return self.unjudged[-1].next_offset if self.unjudged else self.end

    def add(self, piece: JudgedPiece) -> None:
        """Append a judged piece."""
        self.pieces.append(piece)
        self.end, self.state = piece.end, piece.state
        self.rows += len(piece.accepted)
        self.bytes += _size(piece.accepted)

    def committed(self, position: int) -> None:
        """Drop the pieces that the lake holds: those that end at or below its position."""
        self.start = position
        self.pieces = [piece for piece in self.pieces if piece.end > position]
        self.rows = sum(len(piece.accepted) for piece in self.pieces)
        self.bytes = sum(_size(piece.accepted) for piece in self.pieces)


class TradeReader:
    """Reads and judges the assigned partitions. One thread uses it.

    Args:
        tape: what is read, and where dead letters go.
        clock: for retries and the age of what is held.
        stopping: ends judging between two pieces when set.
        bytes_max: of rows in a commit; reading pauses at twice that.
        order: which partitions are read.
        reader: takes part in the writers' group; what it is given calls `start` for each assigned
            partition, and `drop` with those that are revoked.

    Attributes:
        reader: as given.
        pauses: of its partitions.
        slices: what is held of each assigned partition.
        pending_since_s: monotonic second when the oldest uncommitted record was judged; None while
            there is none.
    """

    def __init__(
        self,
        tape: WriterTape,
        clock: Clock,
        stopping: threading.Event,
        bytes_max: int,
        *,
        order: ReadingOrder,
        reader: BatchReader,
    ) -> None:
        self._tape = tape
        self._clock = clock
        self._stopping = stopping
        self._bytes_max = bytes_max
        self.slices: dict[int, PartitionSlice] = {}
        self.pending_since_s: float | None = None
        self.acceptance = Acceptance(tape.decoder, tape.placement, clock)
        self._order = order
        self.reader = reader
        self.pauses = PartitionPauses(reader)

    def start(self, partition: int, position: int, state: FoldState) -> None:
        """Begin a newly assigned partition at the lake's position."""
        self.pauses.forget(partition)
        self._order.start(partition)
        self.slices[partition] = PartitionSlice(position, state)

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget revoked partitions; their next writer reads from the lake's position."""
        for partition in partitions:
            self.slices.pop(partition, None)
            self.pauses.forget(partition)
            self._order.drop(partition)

    def rewind(self, partition: int, position: int, state: FoldState) -> None:
        """Read a partition again from the lake's position."""
        self.slices[partition] = PartitionSlice(position, state)
        self.reader.seek({partition: position})

    def poll(self) -> int:
        """Read once; returns how many records were read.

        Raises:
            Data: a position is not on the tape any more.
        """
        self._bound_memory()
        self._order.arrange(self.slices, self.pauses)
        room = self._order.throttle.room()
        if not room:
            return 0
        timeout_s = 0.0 if self.may_judge() else limits.WRITER_READ_TIMEOUT_S
        count = sum(self._take(batch) for batch in self.reader.read(room, timeout_s))
        self._order.throttle.take(count)
        return count

    def _take(self, batch: RawBatch) -> int:
        """Queue a batch; returns how many records it has."""
        held = self.slices.get(batch.partition)
        if held is not None and self._order.sheds(batch.partition):  # assigned in this reading
            self.reader.seek({batch.partition: held.read_to})
            return 0
        if held is not None and batch.next_offset > held.read_to:  # not read before a seek
            news = batch.from_offset(held.read_to)
            held.unjudged.append(news)
            self._order.took(news)
        return len(batch)

    def may_judge(self) -> bool:
        """Return whether records that were read can be judged without waiting."""
        now_s = self._clock.monotonic_s()
        return any(held.unjudged and now_s >= held.retry_at_s for held in self.slices.values())

    def judge(self) -> None:
        """Judge what was read of every partition, as far as it can be judged now."""
        for partition in list(self.slices):
            self._judge_partition(partition)

    def has_judged(self) -> bool:
        """Return whether any judged piece waits for a commit."""
        return any(held.pieces for held in self.slices.values())

    def pending(self) -> tuple[int, int]:
        """Count the rows and bytes held."""
        slices = self.slices.values()
        return sum(held.rows for held in slices), sum(held.bytes for held in slices)

    # --- judging ---------------------------------------------------------------------------------

    def _judge_partition(self, partition: int) -> None:
        """Judge what was read of a partition, up to a record that has to wait for a step or more.

        The partition is not read meanwhile, so that what is held of it stays bounded.
        """
        held = self.slices[partition]
        if held.unjudged and self._clock.monotonic_s() < held.retry_at_s:
            return
        try:
            while held.unjudged and not self._stopping.is_set():
                if not self._fold_next(held, held.unjudged[0]):
                    break
            held.waits_for = ""
        except Unavailable as error:
            if not held.waits_for:
                where = {"reason": error.reason.value, "partition": partition}
                _log.warning("waiting: %s", error.message, extra=where)
            held.waits_for = error.message
            held.retry_at_s = self._clock.monotonic_s() + limits.COMMIT_RETRY_MIN_S
        if held.unjudged:
            self.pauses.pause(PauseReason.WAITING, [partition])
        else:
            self.pauses.resume(PauseReason.WAITING, [partition])

    def _fold_next(self, held: PartitionSlice, batch: RawBatch) -> bool:
        """Judge as `_judge_next` does, in the traces that published the records."""
        if not batch.traces:
            return self._judge_next(held, batch)
        attributes: dict[str, tracing.Value] = {
            tracing.MESSAGING_SYSTEM: "kafka",
            tracing.MESSAGING_OPERATION: "process",
            tracing.MESSAGING_OPERATION_TYPE: "process",
            tracing.MESSAGING_DESTINATION: self._tape.identity.topic,
            tracing.MESSAGING_PARTITION: str(batch.partition),
            tracing.MESSAGING_COUNT: len(batch),
            tracing.KAFKA_OFFSET: int(batch.offset[0]),
        }
        parents = [traceparent for _, traceparent in batch.traces]
        with tracing.joined(tracing.FOLD, parents, attributes, kind=tracing.Kind.CONSUMER) as span:
            at_once = self._judge_next(held, batch)
            piece = replace(held.pieces[-1], traces=span.traceparents)
            held.pieces[-1] = piece
            span.set({tracing.ROWS: len(piece.accepted)})
        return at_once

    def _judge_next(self, held: PartitionSlice, batch: RawBatch) -> bool:
        """Decode, check and fold as much of a batch as one commit may take; publish its letters.

        Returns:
            Whether what follows may be judged at once; else other partitions take their turn first.
        """
        judged = self.acceptance.judge(batch, held.state)
        at_once = judged.rest is None
        accepted = judged.accepted()
        within = rows_within_days(accepted, limits.COMMIT_DAYS_MAX)
        if within < len(accepted):  # judged again, as far as one commit may take
            fit = int(np.searchsorted(judged.batch.offset, accepted.offset[within]))
            judged = self.acceptance.judge(judged.batch.between(0, fit), held.state)
            accepted = judged.accepted()
        letters = letters_of(judged, self._tape.identity, self._clock.now_us())
        if letters:
            self._tape.letters.publish(letters, limits.DEAD_LETTER_WAIT_S)
        days = frozenset(np.unique(accepted.event_time // DAY_US).tolist())
        part = judged.batch
        held.add(JudgedPiece(part.next_offset, judged.state, accepted, part.values[-1], days))
        if self.pending_since_s is None:
            self.pending_since_s = self._clock.monotonic_s()
        if part.next_offset < batch.next_offset:
            held.unjudged[0] = batch.from_offset(part.next_offset)
        else:
            held.unjudged.popleft()
        return at_once

    # --- pauses ----------------------------------------------------------------------------------

    def _bound_memory(self) -> None:
        """Pause reading at the memory bound, which is reached only while commits fail."""
        rows, size = self.pending()
        if rows >= 2 * limits.COMMIT_ROWS_MAX or size >= 2 * self._bytes_max:
            self.pauses.pause(PauseReason.MEMORY, self.slices)
        else:
            self.pauses.resume(PauseReason.MEMORY, self.slices)


def _size(columns: TradeColumns) -> int:
    """Estimate the bytes that rows take in memory."""
    arrays = (columns.vendor_data, columns.optional)
    size = sum(int(array.nbytes) for array in arrays if array is not None)
    return len(columns) * limits.ROW_BYTES + size
