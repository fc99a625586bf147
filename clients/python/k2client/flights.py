"""Rows of a planned query over Arrow Flight: streamed, retried, resumed where a stream broke.

A ticket pins its answer in a total order, so a stream that broke after n rows is opened again and
its first n rows dropped: the caller sees each row once. Each batch comes with the canonical key of
its last row. The server ends a batch of the second stream with row n; where its key is not that of
the last row handed out, the answer is another (a commit judged a record otherwise than the tail
had), and the stream fails with ANSWER_CHANGED. An answer with a missing side is not pinned (the
side may be back), so it is never resumed once rows were handed out.

A forked child shares its parent's sockets and has none of the threads that serve them, so nothing
made before the fork is used in it: a call raises OTHER_PROCESS. Where the parent had a Flight
connection, its child can make none: Arrow's gRPC aborts or blocks there, sooner or later.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
from google.protobuf.message import DecodeError
from pyarrow import flight

from k2.v1 import market_pb2, query_service_pb2
from k2client.deadline import Deadline, Retry
from k2client.error_mapping import from_flight
from k2client.errors import Internal, Invalid, K2Error, Unavailable

RESTARTS_MAX = 3  # of an answer gathered whole, of which nothing was handed out
RESUME_HEADER = b"k2-resume-after"

_CHANNEL_OPTIONS = [
    ("grpc.enable_http_proxy", 0),  # a proxy is the way to the venue, not to K2
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]
_FAILURES = (flight.FlightError, pa.ArrowException, OSError)


class Heard(Protocol):
    """Is told of each provenance that comes with the rows."""

    def __call__(self, provenance: market_pb2.Provenance) -> None:
        """Take the newest."""
        ...


@dataclass(frozen=True)
class _Place:
    """How far an answer was handed out: how many rows, and the key of the last one."""

    rows: int = 0
    key: market_pb2.RowKey | None = None


_Keyed = tuple[pa.RecordBatch, market_pb2.RowKey | None]


class FlightPool:
    """One Flight connection a location, opened when first needed; safe for several threads.

    Args:
        api_key: sent with every call; None where none is needed.

    Attributes:
        reading: the streams that are open or being opened.
        kept: what a forked child must not free, beside this.
    """

    def __init__(self, api_key: str | None) -> None:
        self._headers = [(b"x-api-key", api_key.encode())] if api_key else []
        self._clients: dict[str, flight.FlightClient] = {}
        self._pid = os.getpid()
        self.reading: dict[object, object] = {}
        self.kept: object = None
        _pools.add(self)

    @property
    def inherited(self) -> bool:
        """Whether this process was forked from the one that made it."""
        return self._pid != os.getpid()

    def check_process(self) -> None:
        """See that the connection was made in this process.

        Raises:
            Invalid: OTHER_PROCESS where it was not.
        """
        if self.inherited:
            forked = _forked_from_reader()
            raise forked or Invalid(
                "OTHER_PROCESS", "this client was made in another process: connect again here"
            )

    def open(
        self, ticket: bytes, location: str, timeout_s: float, resume_after: int = 0
    ) -> flight.FlightStreamReader:
        """Start a stream.

        Args:
            ticket: of the plan.
            location: a Flight URI.
            timeout_s: how long the stream may take.
            resume_after: a batch ends with the row of this number; 0 is none.

        Raises:
            K2Error: as the server says.
        """
        self.check_process()
        resumed = [(RESUME_HEADER, b"%d" % resume_after)] if resume_after else []
        options = flight.FlightCallOptions(timeout=timeout_s, headers=self._headers + resumed)
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
            made = flight.FlightClient(location, generic_options=_CHANNEL_OPTIONS)
            client = self._clients.setdefault(location, made)
        return client

    def close(self) -> None:
        """Close every connection of this process."""
        if self.inherited:
            return
        for client in self._clients.values():
            client.close()
        self._clients.clear()


@dataclass(frozen=True)
class Reading:
    """How rows are read: over which connections, for how long, tried how often.

    Attributes:
        pool: the connections.
        deadline: when the last row must be here.
        retry: how often to open a stream again.
        resumable: whether the answer is pinned, so that a broken stream can go on.
        heard: is told of the provenance that comes with the rows.
    """

    pool: FlightPool
    deadline: Deadline
    retry: Retry
    resumable: bool
    heard: Heard

    def batches(
        self, endpoints: Sequence[query_service_pb2.QueryEndpoint]
    ) -> Iterator[pa.RecordBatch]:
        """All rows of all endpoints, in order."""
        for endpoint in endpoints:
            yield from self._endpoint(endpoint)

    def gathered(
        self, endpoints: Sequence[query_service_pb2.QueryEndpoint]
    ) -> list[pa.RecordBatch]:
        """All rows at once; read from the start again where a broken stream cannot go on."""
        for _ in range(RESTARTS_MAX):
            try:
                return list(self.batches(endpoints))
            except K2Error as error:
                if error.reason != "ANSWER_CHANGED":
                    raise
        return list(self.batches(endpoints))

    def _endpoint(self, endpoint: query_service_pb2.QueryEndpoint) -> Iterator[pa.RecordBatch]:
        place = _Place()
        attempt = tries = 0
        while True:
            try:
                for batch, key in self._behind(place, endpoint, tries):
                    place = _Place(place.rows + batch.num_rows, key)
                    attempt = 0
                    yield batch
                return
            except K2Error as error:
                attempt, tries = attempt + 1, tries + 1
                wait = self.retry.wait_s(error, attempt, self.deadline)
                if wait is None or (place.rows and not self.resumable):
                    raise
            self.retry.sleep(wait)

    def _behind(
        self, place: _Place, endpoint: query_service_pb2.QueryEndpoint, tries: int
    ) -> Iterator[_Keyed]:
        """The batches behind a place, when the rows up to it are those that were handed out."""
        seen = 0
        for batch, key in self._once(endpoint, tries, place.rows):
            begin, seen = seen, seen + batch.num_rows
            same = key is not None and (seen, key) == (place.rows, place.key)
            if begin < place.rows <= seen and not same:
                raise _changed(place.rows)
            if seen > max(begin, place.rows):
                yield batch, key
        if seen < place.rows:
            raise _changed(place.rows)

    def _once(
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
                said = chunk.app_metadata
                key = None if said is None else self._hear(said.to_pybytes())
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

    def _hear(self, metadata: bytes) -> market_pb2.RowKey | None:
        """Pass the provenance on; the key of the batch's last row."""
        provenance = market_pb2.Provenance()
        try:
            provenance.ParseFromString(metadata)
        except DecodeError:
            return None  # of a later version: the rows are right without it
        key = provenance.last_row if provenance.HasField("last_row") else None
        said = market_pb2.Provenance()
        said.CopyFrom(provenance)
        said.ClearField("last_row")
        self.heard(said)
        return key


def _forked_from_reader() -> Invalid | None:
    """The error of a process where Arrow's gRPC cannot work: its threads stayed in the parent."""
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
    """In a forked child: never free what the parent made, for that waits for the parent's threads.

    An object with one reference more than there are outlives the end of the interpreter, too.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(list(_pools)))


os.register_at_fork(after_in_child=_keep_inherited)
