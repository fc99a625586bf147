"""Rows of a planned query over Arrow Flight: streamed, retried, resumed where a stream broke.

A ticket pins its answer in a total order, so a stream that broke after n rows is opened again and
its first n rows dropped: the caller sees each row once. An answer with a missing side is not
pinned (the side may be back), so it is never resumed once rows were handed out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
from google.protobuf.message import DecodeError
from pyarrow import flight

from k2.v1 import market_pb2, query_service_pb2
from k2client.deadline import Deadline, Retry
from k2client.errors import Internal, K2Error
from k2client.reasons import from_flight

_OPTIONS = [("grpc.enable_http_proxy", 0)]  # a proxy is the way to the venue, not to K2
_FAILURES = (flight.FlightError, pa.ArrowException, OSError)


class Heard(Protocol):
    """Is told of each provenance that comes with the rows."""

    def __call__(self, provenance: market_pb2.Provenance) -> None:
        """Take the newest."""
        ...


class FlightPool:
    """One Flight connection a location, opened when first needed; safe for several threads.

    Args:
        api_key: sent with every call; None where none is needed.
    """

    def __init__(self, api_key: str | None) -> None:
        self._headers = [(b"x-api-key", api_key.encode())] if api_key else []
        self._clients: dict[str, flight.FlightClient] = {}

    def open(self, ticket: bytes, location: str, timeout_s: float) -> flight.FlightStreamReader:
        """Start a stream.

        Raises:
            K2Error: as the server says.
        """
        options = flight.FlightCallOptions(timeout=timeout_s, headers=self._headers)
        try:
            client = self._clients.get(location)
            if client is None:
                made = flight.FlightClient(location, generic_options=_OPTIONS)
                client = self._clients.setdefault(location, made)
            return client.do_get(flight.Ticket(ticket), options)
        except _FAILURES as error:
            raise from_flight(error, location) from error

    def close(self) -> None:
        """Close every connection."""
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

    def _endpoint(self, endpoint: query_service_pb2.QueryEndpoint) -> Iterator[pa.RecordBatch]:
        delivered = attempt = tries = 0
        while True:
            skip = delivered
            try:
                for batch in self._once(endpoint, tries):
                    fresh = batch.slice(min(skip, batch.num_rows))
                    skip -= batch.num_rows - fresh.num_rows
                    if fresh.num_rows:
                        delivered += fresh.num_rows
                        attempt = 0
                        yield fresh
                return
            except K2Error as error:
                attempt, tries = attempt + 1, tries + 1
                wait = self.retry.wait_s(error, attempt, self.deadline)
                if wait is None or (delivered and not self.resumable):
                    raise
            self.retry.sleep(wait)

    def _once(
        self, endpoint: query_service_pb2.QueryEndpoint, tries: int
    ) -> Iterator[pa.RecordBatch]:
        if not endpoint.locations:
            raise Internal("INTERNAL", "the plan names no Flight address")
        location = endpoint.locations[tries % len(endpoint.locations)]
        timeout_s = max(self.deadline.left_s(), 0.001)
        reader = self.pool.open(endpoint.ticket, location, timeout_s)
        ended = False
        try:
            while (chunk := self._chunk(reader, location)) is not None:
                if chunk.app_metadata is not None:
                    self._hear(chunk.app_metadata.to_pybytes())
                if chunk.data is not None:
                    yield chunk.data
            ended = True
        finally:
            if not ended:
                reader.cancel()

    def _chunk(self, reader: flight.FlightStreamReader, location: str) -> Any:  # noqa: ANN401 untyped
        try:
            return reader.read_chunk()
        except StopIteration:
            return None
        except _FAILURES as error:
            raise from_flight(error, location) from error

    def _hear(self, metadata: bytes) -> None:
        provenance = market_pb2.Provenance()
        try:
            provenance.ParseFromString(metadata)
        except DecodeError:
            return  # of a later version: the rows are right without it
        self.heard(provenance)
