"""Reads the rows of a planned query over Arrow Flight, and resumes broken streams.

A ticket pins its answer in a total order, so a stream that broke after n rows is opened again and
its first n rows are dropped: the caller sees each row once. Each batch carries the canonical key of
its last row. The server ends a batch of the second stream with row n; if its key is not that of the
last row returned, the answer has changed (a commit judged a record differently from the tail), and
the stream fails with ANSWER_CHANGED. An answer with a missing side is not pinned (the side may come
back), so it is not resumed once rows were returned.

A forked child shares its parent's sockets but has none of the threads that serve them, so it cannot
use connections made before the fork: a call raises OTHER_PROCESS. If the parent had opened a Flight
connection, the child cannot open one: Arrow's gRPC sooner or later aborts or blocks there.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from google.protobuf.message import DecodeError
from pyarrow import flight

from k2.v1 import market_pb2, query_service_pb2
from k2client.caller_name import CLIENT_HEADER, caller_name
from k2client.deadline import Deadline, Retry
from k2client.error_mapping import from_flight
from k2client.errors import Internal, Invalid, K2Error, Unavailable
from k2client.trace_context import traceparent

RESTARTS_MAX = 3  # of an answer that is gathered whole before any row is returned
RESUME_HEADER = b"k2-resume-after"

_CLIENT_HEADER = CLIENT_HEADER.encode()

_CHANNEL_OPTIONS = [
    ("grpc.enable_http_proxy", 0),  # a proxy leads to the venue, not to K2
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]
_FAILURES = (flight.FlightError, pa.ArrowException, OSError)


@dataclass(frozen=True)
class _Position:
    """The number of rows returned so far, and the key of the last one."""

    rows: int = 0
    key: market_pb2.RowKey | None = None


_Keyed = tuple[pa.RecordBatch, market_pb2.RowKey | None]


class FlightPool:
    """One Flight connection per location, opened when first needed; safe for several threads.

    Args:
        api_key: sent with every call; None when none is needed.
        headers: sent with every call.

    Attributes:
        reading: the streams that are open or being opened.
        kept: another object that a forked child must not free.
    """

    def __init__(self, api_key: str | None, headers: Mapping[str, str] | None = None) -> None:
        named = {**({"x-api-key": api_key} if api_key else {}), **(headers or {})}
        self._headers = [(name.encode(), value.encode()) for name, value in named.items()]
        self._clients: dict[str, flight.FlightClient] = {}
        self._pid = os.getpid()
        self.reading: dict[object, object] = {}
        self.kept: object = None
        _pools.add(self)

    @property
    def inherited(self) -> bool:
        """Whether this process was forked from the one that made the pool."""
        return self._pid != os.getpid()

    def check_process(self) -> None:
        """Check that the connection was made in this process.

        Raises:
            Invalid: OTHER_PROCESS when it was not.
        """
        if self.inherited:
            forked = _forked_from_reader()
            raise forked or Invalid(
                "OTHER_PROCESS", "this client was made in another process: connect again here"
            )

    def open(
        self, ticket: bytes, location: str, timeout_s: float, resume_after: int = 0
    ) -> flight.FlightStreamReader:
        """Open a stream.

        Args:
            ticket: the ticket of the plan.
            location: a Flight URI.
            timeout_s: how long the stream may take.
            resume_after: the number of the row that must end a batch; 0 is none.

        Raises:
            K2Error: the error of the server or of the transport.
        """
        self.check_process()
        resumed = [(RESUME_HEADER, b"%d" % resume_after)] if resume_after else []
        traced = [(b"traceparent", parent.encode())] if (parent := traceparent()) else []
        own, name = self._headers, caller_name().encode()
        if name:
            own = [pair for pair in own if pair[0] != _CLIENT_HEADER] + [(_CLIENT_HEADER, name)]
        headers = own + resumed + traced
        options = flight.FlightCallOptions(timeout=timeout_s, headers=headers)
        try:
            return self._client(location).do_get(flight.Ticket(ticket), options)
        except _FAILURES as error:
            raise from_flight(error, location) from error

    def _client(self, location: str) -> flight.FlightClient:
        client = self._clients.get(location)
        if client is None:
            if forked := _forked_from_reader():
                raise forked
            _readers.add(os.getpid())
            client = flight.FlightClient(location, generic_options=_CHANNEL_OPTIONS)
            client = self._clients.setdefault(location, client)
        return client

    def close(self) -> None:
        """Close every connection of this process."""
        if self.inherited:
            return
        for client in self._clients.values():
            client.close()
        self._clients.clear()


@dataclass(frozen=True)
class RowReading:
    """Reads rows: over which connections, until when, and with which retries.

    Attributes:
        pool: the connections.
        deadline: the time by which the last row must arrive.
        retry: when to open a stream again.
        resumable: whether the answer is pinned, so that a broken stream can be resumed.
        on_provenance: takes each provenance that comes with the rows.
    """

    pool: FlightPool
    deadline: Deadline
    retry: Retry
    resumable: bool
    on_provenance: Callable[[market_pb2.Provenance], None]

    def batches(
        self, endpoints: Sequence[query_service_pb2.QueryEndpoint]
    ) -> Iterator[pa.RecordBatch]:
        """Yield all rows of all endpoints, in order."""
        for endpoint in endpoints:
            yield from self._endpoint(endpoint)

    def gathered(
        self, endpoints: Sequence[query_service_pb2.QueryEndpoint]
    ) -> list[pa.RecordBatch]:
        """Return all rows; read them from the start again when the answer changed."""
        for _ in range(RESTARTS_MAX):
            try:
                return list(self.batches(endpoints))
            except K2Error as error:
                if error.reason != "ANSWER_CHANGED":
                    raise
        return list(self.batches(endpoints))

    def _endpoint(self, endpoint: query_service_pb2.QueryEndpoint) -> Iterator[pa.RecordBatch]:
        position = _Position()
        attempt = tries = 0
        self.retry.budget.count_call()
        while True:
            try:
                for batch, key in self._batches_after(position, endpoint, tries):
                    position = _Position(position.rows + batch.num_rows, key)
                    attempt = 0
                    yield batch
                return
            except K2Error as error:
                attempt, tries = attempt + 1, tries + 1
                wait = self.retry.wait_s(error, attempt, self.deadline)
                if wait is None or (position.rows and not self.resumable):
                    raise
            if tries >= len(endpoint.locations):  # another address is tried at once
                self.retry.sleep(wait)

    def _batches_after(
        self, position: _Position, endpoint: query_service_pb2.QueryEndpoint, tries: int
    ) -> Iterator[_Keyed]:
        """Yield the batches after a position, if the rows up to it are those returned before.

        Raises:
            Unavailable: ANSWER_CHANGED when they are not.
        """
        seen = 0
        for batch, key in self._stream(endpoint, tries, position.rows):
            begin, seen = seen, seen + batch.num_rows
            same = key is not None and (seen, key) == (position.rows, position.key)
            if begin < position.rows <= seen and not same:
                raise _changed(position.rows)
            if seen > max(begin, position.rows):
                yield batch, key
        if seen < position.rows:
            raise _changed(position.rows)

    def _stream(
        self, endpoint: query_service_pb2.QueryEndpoint, tries: int, resume_after: int
    ) -> Iterator[_Keyed]:
        if not endpoint.locations:
            raise Internal("INTERNAL", "the plan names no Flight address")
        location = endpoint.locations[tries % len(endpoint.locations)]
        timeout_s = max(self.deadline.left_s(), 0.001)
        stream, ended = object(), False
        self.pool.reading[stream] = reader = None
        try:
            reader = self.pool.open(endpoint.ticket, location, timeout_s, resume_after)
            self.pool.reading[stream] = reader
            while (chunk := self._chunk(reader, location)) is not None:
                metadata = chunk.app_metadata
                key = None if metadata is None else self._take_metadata(metadata.to_pybytes())
                if chunk.data is not None:
                    yield chunk.data, key
            ended = True
        finally:
            if not self.pool.inherited:
                if reader is not None and not ended:
                    reader.cancel()
                del self.pool.reading[stream]

    def _chunk(self, reader: flight.FlightStreamReader, location: str) -> Any:  # noqa: ANN401 untyped
        self.pool.check_process()
        try:
            return reader.read_chunk()
        except StopIteration:
            return None
        except _FAILURES as error:
            raise from_flight(error, location) from error

    def _take_metadata(self, metadata: bytes) -> market_pb2.RowKey | None:
        """Pass the provenance on and return the key of the batch's last row."""
        provenance = market_pb2.Provenance()
        try:
            provenance.ParseFromString(metadata)
        except DecodeError:
            return None  # of a later version: the rows are correct without it
        key = market_pb2.RowKey()
        key.CopyFrom(provenance.last_row)
        has_key = provenance.HasField("last_row")
        provenance.ClearField("last_row")
        self.on_provenance(provenance)
        return key if has_key else None


def _forked_from_reader() -> Invalid | None:
    """Make the error of a fork where Arrow's gRPC lacks its threads; None in any other process."""
    if not _readers - {os.getpid()}:
        return None
    return Invalid(
        "OTHER_PROCESS",
        "this process was forked from one that had read rows of K2: start it by"
        ' multiprocessing.get_context("spawn"), or fork before rows are read',
    )


def _changed(rows: int) -> Unavailable:
    return Unavailable(
        "ANSWER_CHANGED",
        f"the stream broke after {rows} rows, and the answer does not begin with those any more:"
        " read it again from the start",
        metadata={"rows": str(rows)},
    )


_pools: weakref.WeakSet[FlightPool] = weakref.WeakSet()
_readers: set[int] = set()  # processes that opened a Flight connection: this one, and its parents


def _keep_inherited() -> None:
    """Keep the parent's pools alive in a forked child: freeing them waits for the parent's threads.

    The additional reference keeps them alive at the end of the interpreter, too.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(list(_pools)))


os.register_at_fork(after_in_child=_keep_inherited)
