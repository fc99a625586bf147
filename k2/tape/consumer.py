"""Reads the tape from positions that K2 keeps itself, in batches, one per partition.

The group, where there is one, only says who reads what; where to read from comes from the lake
(`on_assign`), and a position that the tape no longer has, or does not have yet, is an error by
name: never a silent jump to the oldest or newest record.

A broker that is away is not an error: librdkafka keeps reconnecting, `read` returns nothing
meanwhile, and `connected` is false.

The client hands out one Python object a record; taking value, offset and partition from it is most
of the cost. So this happens in C-level `map` calls over the whole list, never in a Python loop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from itertools import compress
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from k2 import limits, tracing
from k2.errors import Data, K2Error, Reason
from k2.market.events import RECORD_TIME_MAX_US, Int64s
from k2.settings import TapeSettings
from k2.tape.kafka_client import configuration, translate
from k2.tape.topics import RECOVERY_HINT
from k2.tape.trace_headers import Traces, traces_of

OnAssign: TypeAlias = Callable[[list[int]], Mapping[int, int]]
OnRevoke: TypeAlias = Callable[[list[int]], None]

_STAMP_KIND, _STAMP = itemgetter(0), itemgetter(1)
_LOST = frozenset(
    {
        KafkaError._AUTO_OFFSET_RESET,
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError._LOG_TRUNCATION,
    }
)


@dataclass(frozen=True)
class RawBatch:
    """Consecutive records of one partition, as they are on the tape.

    Attributes:
        partition: where they sit.
        offset: of each, ascending. int64[n], n > 0
        values: of each; None for a record without one.
        next_offset: the position after the last.
        headers: of each, where the reader was asked for them.
        append_time: when the broker appended each, microseconds; `RECORD_TIME_MAX_US` where its
            producer stamped it. None: so of all. int64[n]
        traces: traceparents found in their headers, each with the offset of a record; a member of a
            group looks at more of them.
    """

    partition: int
    offset: Int64s
    values: list[bytes | None]
    next_offset: int
    headers: list[Any] | None = None
    append_time: Int64s | None = None
    traces: Traces = ()

    def __len__(self) -> int:
        return len(self.values)

    def between(self, low: int, high: int) -> RawBatch:
        """Select the records at the indices low <= i < high, at least one."""
        if low == 0 and high == len(self):
            return self
        after = self.next_offset if high == len(self) else int(self.offset[high - 1]) + 1
        return RawBatch(
            self.partition,
            self.offset[low:high],
            self.values[low:high],
            after,
            self.headers and self.headers[low:high],
            None if self.append_time is None else self.append_time[low:high],
            tuple(each for each in self.traces if self.offset[low] <= each[0] < after),
        )

    def from_offset(self, offset: int) -> RawBatch:
        """Select the records at `offset` and after, at least one."""
        return self.between(int(np.searchsorted(self.offset, offset)), len(self))


class TapeReader:
    """Reads partitions of the trades topic; make one by `assigned` or `joined`.

    One thread uses a reader; `connected` and `positions` may be read by any.

    Attributes:
        connected: whether a broker was reachable at the last look, at most about a second ago.
    """

    def __init__(self, tape: TapeSettings, group: Mapping[str, Any]) -> None:
        self._topic = tape.topic
        self._batches = by_partition
        self._looked_at_max = limits.TRACE_EXAMPLES_MAX
        self._positions: dict[int, int] = {}
        self.connected = False
        self._failure: K2Error | None = None  # raised once
        self._fenced: K2Error | None = None  # raised by every later call
        self._consumer = Consumer(
            configuration(
                tape.bootstrap,
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                auto_offset_reset="error",
                isolation_level="read_uncommitted",
                check_crcs=True,
                fetch_min_bytes=1,
                fetch_wait_max_ms=int(limits.FETCH_WAIT_S * 1000),
                fetch_queue_backoff_ms=5,
                fetch_error_backoff_ms=100,
                queued_min_messages=limits.FETCH_QUEUE_RECORDS,
                queued_max_messages_kbytes=limits.FETCH_QUEUE_BYTES_MAX // limits.KIB,
                statistics_interval_ms=1000,
                stats_cb=self._on_statistics,
                error_cb=self._on_error,
                **group,
            )
        )

    @classmethod
    def assigned(cls, tape: TapeSettings, start: Mapping[int, int]) -> TapeReader:
        """Open a reader of these partitions from these offsets, in no group."""
        reader = cls(tape, {"group_id": "k2-assigned"})
        reader._assign(start)
        return reader

    @classmethod
    def of_log(cls, tape: TapeSettings, topic: str, start: int) -> TapeReader:
        """Open a reader of a one-partition topic from an offset, in no group, with headers."""
        reader = cls.assigned(tape.model_copy(update={"topic": topic}), {0: start})
        reader._batches = with_headers
        return reader

    @classmethod
    def joined(
        cls,
        tape: TapeSettings,
        group: str,
        instance_id: str,
        on_assign: OnAssign,
        on_revoke: OnRevoke,
    ) -> TapeReader:
        """Open a reader of the partitions that a group assigns it, as a static member.

        Args:
            tape: where the tape is.
            group: those who share the partitions.
            instance_id: this member: a restarted one gets its partitions back at once, and a
                second one with the same id ends the first (WRITER_FENCED).
            on_assign: gets partitions, answers where to read each from; called inside `read`.
            on_revoke: takes the partitions that are no longer this reader's; called inside `read`.
                Another member may read them by then: a commit must compare.
        """
        reader = cls(
            tape,
            {
                "group_id": group,
                "group_instance_id": instance_id,
                "session_timeout_ms": int(limits.READER_SESSION_S * 1000),
                "partition_assignment_strategy": "range",
            },
        )
        reader._looked_at_max = limits.TRACE_LOOKED_AT_MAX
        reader._subscribe(on_assign, on_revoke)
        return reader

    def read(
        self, max_records: int = limits.CONSUME_BATCH_RECORDS, timeout_s: float = 0.1
    ) -> list[RawBatch]:
        """Read the next records, one batch a partition; empty when none came within `timeout_s`.

        Returns as soon as there are any; it never waits to fill a batch.

        Raises:
            Data: RETENTION_OVERTOOK when a position is no longer on the tape, TAPE_TRUNCATED when
                the tape ends before it, WRITER_FENCED when another member has this one's identity;
                whatever `on_assign` and `on_revoke` raise.
        """
        self._check()
        try:
            messages = self._consumer.consume(max_records, 0)
            if not messages:
                messages = self._consumer.consume(1, timeout_s)
                if messages and max_records > 1:
                    messages += self._consumer.consume(max_records - 1, 0)
        except KafkaException as error:
            self._note(error.args[0])
            messages = []
        self._check()
        if any(map(Message.error, messages)):
            messages = self._without_errors(messages)
        batches = self._batches(messages) if messages else []
        if tracing.enabled() and (found := traces_of(messages, self._looked_at_max)):
            batches = [replace(each, traces=found.get(each.partition, ())) for each in batches]
        for batch in batches:
            self._positions[batch.partition] = batch.next_offset
        return batches

    def pause(self, partitions: Collection[int]) -> None:
        """Stop reading these, until `resume` or a new assignment; their positions stand still."""
        self._consumer.pause(self._named(partitions))

    def resume(self, partitions: Collection[int]) -> None:
        """Go on with paused partitions where they stopped."""
        self._consumer.resume(self._named(partitions))

    def seek(self, positions: Mapping[int, int]) -> None:
        """Read these partitions from these offsets next."""
        moved = self._positions | dict(positions)
        self._positions = moved
        for partition, offset in positions.items():
            self._consumer.seek(TopicPartition(self._topic, partition, offset))

    def report(self, positions: Mapping[int, int]) -> None:
        """Commit positions to the group: Kafka tools show them as lag, K2 never reads them."""
        try:
            self._consumer.commit(
                offsets=[TopicPartition(self._topic, *each) for each in positions.items()],
                asynchronous=True,
            )
        except KafkaException as error:
            self._note(error.args[0])

    @property
    def positions(self) -> Mapping[int, int]:
        """The next offset of each partition read."""
        return dict(self._positions)

    def close(self) -> None:
        """Close the connection; a static member keeps its claim for `limits.READER_SESSION_S`."""
        self._consumer.close()

    # --- assignment -----------------------------------------------------------------------------

    def _assign(self, positions: Mapping[int, int]) -> None:
        """Read these from now on; the client keeps earlier pauses across assignments."""
        self._positions = dict(positions)
        self._consumer.assign(
            [TopicPartition(self._topic, *position) for position in positions.items()]
        )
        self.resume(positions)

    def _subscribe(self, on_assign: OnAssign, on_revoke: OnRevoke) -> None:
        def ours(named: list[TopicPartition]) -> list[int]:
            # A returning static member gets back what it had, also of its former topic.
            return [each.partition for each in named if each.topic == self._topic]

        def assigned(_consumer: Consumer, given: list[TopicPartition]) -> None:
            try:
                self._assign(on_assign(ours(given)))
            except K2Error as error:
                self._failure = error

        def revoked(consumer: Consumer, taken: list[TopicPartition]) -> None:
            try:
                on_revoke(ours(taken))
            except K2Error as error:
                self._failure = error
            self._positions = {}
            consumer.unassign()

        self._consumer.subscribe(
            [self._topic], on_assign=assigned, on_revoke=revoked, on_lost=revoked
        )

    def _named(self, partitions: Collection[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition) for partition in partitions]

    # --- errors ---------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._fenced is not None:
            raise self._fenced
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _without_errors(self, messages: list[Message]) -> list[Message]:
        """Select the records among the messages; note the errors, raise the fatal ones."""
        for message in messages:
            error = message.error()
            if error is not None:
                self._note(error)
                if error.code() == KafkaError._FATAL:
                    self._fenced = _fenced(error)
                elif error.code() in _LOST:
                    self._failure = self._failure or self._explained(message, error)
        good = list(compress(messages, [not message.error() for message in messages]))
        if not good:
            self._check()
        return good

    def _explained(self, message: Message, error: KafkaError) -> K2Error:
        """Find out whether retention overtook a position, or the tape ends before it."""
        failure = translate(error, f"cannot read {self._topic}")
        partition = message.partition() or 0
        position = self._positions.get(partition, 0)
        try:
            start, end = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=limits.TAPE_REQUEST_S
            )
        except KafkaException:
            return failure
        return lost_position(partition, position, start, end)

    def _note(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.connected = False

    def _on_error(self, error: KafkaError) -> None:
        self._note(error)
        if error.fatal():
            self._fenced = _fenced(error)

    def _on_statistics(self, text: str) -> None:
        brokers = json.loads(text).get("brokers", {}).values()
        self.connected = any(broker.get("state") == "UP" for broker in brokers)


def _fenced(error: KafkaError) -> Data:
    """Make the error of a consumer whose identity another has taken."""
    return Data(
        Reason.WRITER_FENCED,
        f"another member of the group has taken this one's identity: {error.str()}",
    )


def lost_position(partition: int, position: int, start: int, end: int) -> Data:
    """Make the error of a position that K2 cannot go on from.

    Args:
        partition: where.
        position: K2 has taken in what is below it.
        start: the oldest offset that is there.
        end: the offset after the newest.
    """
    detail = {"partition": str(partition), "position": str(position)}
    taken = f"K2 has taken in what is below {position}"
    if position < start:
        return Data(
            Reason.RETENTION_OVERTOOK,
            f"partition {partition} of the tape begins at {start}, {taken}: retention removed"
            f" {start - position} records that were never taken in; {RECOVERY_HINT}",
            metadata=detail | {"log_start": str(start)},
        )
    return Data(
        Reason.TAPE_TRUNCATED,
        f"partition {partition} of the tape ends at {end}, {taken}: the tape was truncated or"
        f" restored; {RECOVERY_HINT}",
        metadata=detail | {"log_end": str(end)},
    )


def by_partition(messages: list[Message]) -> list[RawBatch]:
    """Batches of the messages (at least one, none an error), one a partition, in tape order."""
    partition = np.array(list(map(Message.partition, messages)), dtype=np.int32)
    offset = np.array(list(map(Message.offset, messages)), dtype=np.int64)
    appended = _append_times(messages)
    values = list(map(Message.value, messages))
    first = int(partition[0])
    if (partition == first).all():
        return [RawBatch(first, offset, values, int(offset[-1]) + 1, None, appended)]
    batches = []
    for each in np.unique(partition).tolist():
        rows = np.flatnonzero(partition == each)
        chosen = offset[rows]
        picked = [values[rows[0]]] if len(rows) == 1 else list(itemgetter(*rows.tolist())(values))
        end = int(chosen[-1]) + 1
        batches.append(RawBatch(each, chosen, picked, end, None, appended[rows]))
    return batches


def _append_times(messages: list[Message]) -> Int64s:
    """When the broker appended each message; see `RawBatch`."""
    # Each pair is freed before the next is made: thousands kept at once would set off collections.
    stamps = map(_STAMP, map(Message.timestamp, messages))
    appended = np.fromiter(stamps, np.int64, len(messages)) * 1000
    if set(map(_STAMP_KIND, map(Message.timestamp, messages))) != {TIMESTAMP_LOG_APPEND_TIME}:
        kinds = np.fromiter(map(_STAMP_KIND, map(Message.timestamp, messages)), np.int64)
        appended[kinds != TIMESTAMP_LOG_APPEND_TIME] = RECORD_TIME_MAX_US
    return appended


def with_headers(messages: list[Message]) -> list[RawBatch]:
    """Batch the messages (at least one, none an error) of a one-partition topic, with headers."""
    (batch,) = by_partition(messages)
    return [replace(batch, headers=list(map(Message.headers, messages)))]
