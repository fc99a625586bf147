"""Measures answers over Flight: how many, how much, how long, and of which side."""

from __future__ import annotations

import pyarrow as pa
from google.rpc import code_pb2

from k2.clock import Clock
from k2.errors import K2Error
from k2.metrics import SWITCH, counter, histogram
from k2.query.plan import Plan
from servers.services.rpc_status import code_of

_STREAMS = counter("k2_flight_streams_total", "Streams of rows that ended or were refused.", "code")
_BYTES = counter("k2_flight_bytes_total", "Bytes of the record batches that were streamed.")
_ROWS = counter("k2_flight_rows_total", "Rows that were streamed.")
_BATCHES = counter("k2_flight_batches_total", "Record batches with rows that were streamed.")
_SECONDS = histogram(
    "k2_query_seconds",
    "Time from the call for rows to their last batch, of whole answers, the reader's part too.",
    *("shape", "side"),
)
_FIRST_BATCH_SECONDS = histogram(
    "k2_query_first_batch_seconds", "Time from the call for rows to their first batch."
)


def side_of(plan: Plan) -> str:
    """Name the side that a plan reads: lake, tail or both."""
    if plan.skips_lake:
        return "tail"
    return ("both" if len(plan.files) else "tail") if plan.chunks else "lake"


def count_refused(error: K2Error) -> None:
    """Count a call for rows that did not become a stream."""
    _STREAMS.labels(code_pb2.Code.Name(code_of(error))).inc()


class AnswerTimer:
    """Measures one answer, from its call to its end.

    Args:
        clock: monotonic time.
        shape: of the answer.
        side: of the answer's plan (`side_of`).
        began_s: when it was called for.
    """

    def __init__(self, clock: Clock, shape: str, side: str, began_s: float) -> None:
        self._clock = clock
        self._shape = shape
        self._side = side
        self._began_s = began_s
        self._batches = 0
        self._exemplar = SWITCH.exemplar()  # of the call; batches are made in other threads
        self._code = code_pb2.CANCELLED  # unless it is read to its end

    def sent(self, batch: pa.RecordBatch) -> None:
        """Count a batch."""
        if not self._batches:
            _FIRST_BATCH_SECONDS.observe(self._took_s(), self._exemplar)
        self._batches += 1
        _BATCHES.inc()
        _ROWS.inc(batch.num_rows)
        _BYTES.inc(batch.nbytes)

    def completed(self) -> None:
        """Note that all rows were sent."""
        self._code = code_pb2.OK
        _SECONDS.labels(self._shape, self._side).observe(self._took_s(), self._exemplar)

    def _took_s(self) -> float:
        return self._clock.monotonic_s() - self._began_s

    def failed(self, error: K2Error) -> None:
        """Note why it ended early."""
        self._code = code_of(error)

    def ended(self) -> None:
        """Count the stream; once."""
        _STREAMS.labels(code_pb2.Code.Name(self._code)).inc()
