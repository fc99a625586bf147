"""Streams one answer over Flight, and watches over all streams.

A stream sends its schema first, with the provenance as JSON in the metadata `k2.provenance`, then
batches of at most 4 MiB with the key of their last row, then an empty batch whose metadata is the
final provenance, with the rows that came from lake and tail.

An answer that is blocked in the engine does not notice that its caller has gone, so one thread
watches the streams whose next batch is being made. pyarrow's call context may be asked only then:
it is freed with the call, without notice. A stream abandoned between two batches ends when pyarrow
frees it.

Streams that may read much take turns in making their batches: however many there are, point
queries, critical ones and the tail find a processor.

A reader that is suspended leaves pyarrow blocked in a write that nothing can interrupt. The same
thread ends a stream whose batch is not taken for long, or whose deadline has passed: it gives the
place back and frees what the answer holds. Only the batch being written stays until the reader
continues, and then receives the reason for the end of its stream.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pyarrow as pa
import pyarrow.flight as fl  # noqa: TID251 Flight is spoken here
from google.protobuf import json_format

from k2 import limits, tracing
from k2.clock import Clock
from k2.errors import K2Error, Overloaded, Reason, Unavailable
from k2.query.execute import ResultStream, too_late
from k2.query.gate import cancelled
from k2.v1 import market_pb2
from servers.flight.flight_metrics import AnswerTimer
from servers.services.rpc_status import as_k2, to_status
from servers.services.wire_values import time_to

PROVENANCE_KEY: Final = b"k2.provenance"


def flight_error(error: K2Error) -> fl.FlightError:
    """Convert an error to Flight's; `extra_info` is the serialized `google.rpc.Status`."""
    kind = fl.FlightServerError
    if isinstance(error, Unavailable | Overloaded):
        late = error.reason is Reason.DEADLINE_EXCEEDED
        kind = fl.FlightTimedOutError if late else fl.FlightUnavailableError
    elif error.reason is Reason.NOT_LOCAL:
        kind = fl.FlightUnauthorizedError
    elif error.reason is Reason.INTERNAL:
        kind = fl.FlightInternalError
    status = to_status(error)
    return kind(status.message, status.SerializeToString())


def provenance_json(provenance: market_pb2.Provenance) -> bytes:
    """Write a provenance as JSON, field names as in the proto, 64-bit numbers as strings."""
    text = json_format.MessageToJson(provenance, preserving_proto_field_name=True, indent=None)
    return text.encode()


class Stream:
    """One running answer, as it may be ended from outside.

    Attributes:
        long: it takes turns with others, because it may read much.
    """

    def __init__(
        self,
        answer: ResultStream,
        context: fl.ServerCallContext,
        leave: Callable[[], None],
        timer: AnswerTimer,
        long: bool = False,
    ) -> None:
        self.answer = answer
        self.long = long
        self.timer = timer
        self.context = context
        self.ended_by: K2Error | None = None
        self.waiting_since_s: float | None = None  # for its reader; None while a batch is made
        self.span = tracing.begin(tracing.STREAM)
        self.making_since_s = 0.0  # that batch
        self._leave = leave
        self._left = threading.Lock()

    def end(self, error: K2Error) -> None:
        """End it early; its caller receives the error."""
        self.ended_by = error
        self.timer.failed(error)
        self.answer.close()

    def close(self) -> None:
        """Free all it holds; once."""
        if self._left.acquire(blocking=False):
            self.answer.close()
            self.timer.ended()
            self._leave()
            self.span.end(self.ended_by)


class RowStream:
    """The batches of an answer, as pyarrow pulls them. Freed with its stream, read or not."""

    def __init__(
        self,
        stream: Stream,
        provenance: market_pb2.Provenance,
        clock: Clock,
        streams: Streams,
    ) -> None:
        metadata = {PROVENANCE_KEY: provenance_json(provenance)}
        self.schema = stream.answer.schema.with_metadata(metadata)
        self._stream = stream
        self._provenance = provenance
        self._clock = clock
        self._streams = streams
        self._ended = False
        stream.waiting_since_s = clock.monotonic_s()
        streams.add(stream)
        weakref.finalize(self, streams.abandon, stream).atexit = False

    def __iter__(self) -> RowStream:
        return self

    def __next__(self) -> tuple[pa.RecordBatch, pa.Buffer]:
        if self._ended:
            raise StopIteration
        try:
            with self._streams.watching(self._stream), self._streams.turn(self._stream):
                batch = next(self._stream.answer, None)
            if self._stream.ended_by is not None:
                raise self._stream.ended_by
        except Exception as error:  # noqa: BLE001 the last place before the wire
            self._ended = True
            self._stream.timer.failed(as_k2(error))
            self._streams.remove(self._stream)
            raise flight_error(as_k2(error)) from None
        self._note_freshness()
        if batch is not None:
            self._stream.timer.sent(batch)
            return batch, self._metadata()
        self._ended = True
        return self._last()

    def _metadata(self) -> pa.Buffer:
        time_us, exchange, symbol, trade_id = self._stream.answer.last_key
        row = market_pb2.RowKey(
            event_time=time_to(time_us), exchange=exchange, symbol=symbol, trade_id=trade_id
        )
        self._provenance.last_row.CopyFrom(row)
        return pa.py_buffer(self._provenance.SerializeToString())

    def _note_freshness(self) -> None:
        if not self._provenance.HasField("freshness_ms"):
            age_us = self._clock.now_us() - self._provenance.planned_time.ToMicroseconds()
            self._provenance.freshness_ms = age_us / 1e3

    def _last(self) -> tuple[pa.RecordBatch, pa.Buffer]:
        answer = self._stream.answer
        self._stream.timer.completed()
        self._provenance.ClearField("last_row")
        self._provenance.rows_lake, self._provenance.rows_tail = answer.rows_lake, answer.rows_tail
        self._streams.remove(self._stream)
        empty = [pa.array([], field.type) for field in self.schema]
        batch = pa.RecordBatch.from_arrays(empty, schema=self.schema)
        return batch, pa.py_buffer(self._provenance.SerializeToString())


class Streams:
    """All running streams; a thread ends those that hold their place without progress.

    Args:
        clock: of the answers' deadlines.
        idle_s: a stream whose reader takes no batch for this time ends.
    """

    def __init__(self, clock: Clock, idle_s: float = limits.STREAM_IDLE_S) -> None:
        self._clock = clock
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._running: set[Stream] = set()
        self._watched: set[Stream] = set()
        self._turns = threading.Semaphore(limits.QUERY_TURNS)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="streams", daemon=True)

    def start(self) -> None:
        """Watch from now on."""
        self._thread.start()

    def add(self, stream: Stream) -> None:
        """Count a stream."""
        with self._lock:
            self._running.add(stream)

    def remove(self, stream: Stream) -> None:
        """Forget a stream and free what it holds; may be called again."""
        with self._lock:
            self._running.discard(stream)
        stream.close()

    def abandon(self, stream: Stream) -> None:
        """Free a stream that pyarrow dropped; where it had not ended, its caller has gone."""
        with self._lock:
            gone = stream in self._running
        if gone:
            stream.ended_by = cancelled()
        self.remove(stream)

    @property
    def running(self) -> int:
        """Streams that are open."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Streams that have waited for their reader for a while: they are no load."""
        since_s = self._clock.monotonic_s() - limits.STREAM_WAITING_S
        with self._lock:
            return sum(_waits_since(stream, since_s) for stream in self._running)

    @property
    def oldest_work_s(self) -> float:
        """How long the batch that takes longest has been in the making."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            return max((now_s - stream.making_since_s for stream in self._watched), default=0.0)

    @contextmanager
    def watching(self, stream: Stream) -> Iterator[None]:
        """End the stream if its caller goes while its next batch is being made."""
        with self._lock:
            stream.waiting_since_s = None
            stream.making_since_s = self._clock.monotonic_s()
            self._watched.add(stream)
        try:
            yield
        finally:
            with self._lock:
                self._watched.discard(stream)
                stream.waiting_since_s = self._clock.monotonic_s()

    @contextmanager
    def turn(self, stream: Stream) -> Iterator[None]:
        """Let a few long streams at a time make a batch, so that the tail and others go on."""
        if not stream.long:
            yield
            return
        with self._turns:
            yield

    def drain(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` for all streams to end; then end them."""
        quiet = threading.Event()
        for _ in range(int(timeout_s / limits.STREAM_POLL_S)):
            if not self._running or quiet.wait(limits.STREAM_POLL_S):
                break
        with self._lock:
            left = list(self._running)
        for stream in left:
            self._end(stream, Unavailable(Reason.DRAINING, "the server is shutting down"))
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """End streams whose caller has gone while a batch was made, and those that wait too long.

        The thread repeats this.
        """
        now_s = self._clock.monotonic_s()
        with self._lock:
            gone = [stream for stream in self._watched if stream.context.is_cancelled()]
            waiting = self._running - self._watched
        for stream in gone:
            self._end(stream, cancelled())
        for stream in waiting:
            if now_s >= stream.answer.ends_at_s:
                self._end(stream, too_late())
            elif _waits_since(stream, now_s - self._idle_s):
                self._end(stream, _idle(self._idle_s))

    def _end(self, stream: Stream, error: K2Error) -> None:
        stream.end(error)
        self.remove(stream)

    def _watch(self) -> None:
        while not self._stopping.wait(limits.STREAM_POLL_S):
            self.look()


def _waits_since(stream: Stream, moment_s: float) -> bool:
    return stream.waiting_since_s is not None and stream.waiting_since_s <= moment_s


def _idle(idle_s: float) -> Overloaded:
    return Overloaded(
        Reason.STREAM_IDLE,
        f"its reader took no batch for {idle_s:g} s and others need the place: ask again for what"
        " is missing, or raise query.stream_idle_s",
        metadata={"idle_s": f"{idle_s:g}"},
        retry_after_s=0.1,
    )
