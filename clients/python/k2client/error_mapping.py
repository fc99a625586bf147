"""Converts failures of gRPC and Flight calls to exceptions of `k2client.errors`.

Both planes carry a `google.rpc.Status` with ErrorInfo (the reason), RetryInfo and BadRequest: gRPC
in its trailing metadata, Flight in the error's `extra_info`. Where no K2 server answered (nothing
listens, a deadline passed on this side), the code alone decides.
"""

from __future__ import annotations

import re
from typing import Final

import grpc
import pyarrow as pa
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from pyarrow import flight

from k2client.errors import (
    Data,
    Internal,
    Invalid,
    K2Error,
    NotFound,
    Overloaded,
    Unavailable,
)

# The kind of each code, and its reason when the answer names none.
_KINDS: Final[dict[int, tuple[type[K2Error], str]]] = {
    code_pb2.CANCELLED: (Unavailable, "CANCELLED"),
    code_pb2.INVALID_ARGUMENT: (Invalid, "BAD_REQUEST"),
    code_pb2.DEADLINE_EXCEEDED: (Overloaded, "DEADLINE_EXCEEDED"),
    code_pb2.NOT_FOUND: (NotFound, "NOT_FOUND"),
    code_pb2.ALREADY_EXISTS: (Invalid, "ALREADY_EXISTS"),
    code_pb2.PERMISSION_DENIED: (Invalid, "PERMISSION_DENIED"),
    code_pb2.UNAUTHENTICATED: (Invalid, "UNAUTHENTICATED"),
    code_pb2.RESOURCE_EXHAUSTED: (Overloaded, "RESOURCE_EXHAUSTED"),
    code_pb2.FAILED_PRECONDITION: (Data, "FAILED_PRECONDITION"),
    code_pb2.ABORTED: (Unavailable, "ABORTED"),
    code_pb2.OUT_OF_RANGE: (NotFound, "OUT_OF_RANGE"),
    code_pb2.UNIMPLEMENTED: (Invalid, "UNIMPLEMENTED"),
    code_pb2.UNAVAILABLE: (Unavailable, "PEER_UNAVAILABLE"),
    code_pb2.DATA_LOSS: (Data, "DATA_LOSS"),
}

_FLIGHT_CODES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (flight.FlightUnavailableError, code_pb2.UNAVAILABLE),
    (flight.FlightTimedOutError, code_pb2.DEADLINE_EXCEEDED),
    (flight.FlightCancelledError, code_pb2.CANCELLED),
    (flight.FlightUnauthenticatedError, code_pb2.UNAUTHENTICATED),
    (flight.FlightUnauthorizedError, code_pb2.PERMISSION_DENIED),
    (pa.ArrowInvalid, code_pb2.INVALID_ARGUMENT),
    (pa.ArrowKeyError, code_pb2.NOT_FOUND),
    (pa.ArrowNotImplementedError, code_pb2.UNIMPLEMENTED),
)


# gRPC says only by this text that there are more calls than the server can even refuse.
_CALLS_EXCEEDED: Final = "Concurrent RPC limit exceeded"


def from_rpc(error: grpc.RpcError, address: str) -> K2Error:
    """Convert the failure of a gRPC call.

    Args:
        error: what the call raised.
        address: the address called, for the message.
    """
    assert isinstance(error, grpc.Call), "a failed call is a call"
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # its details contradict its code: the code decides
        status = None
    if status is not None:
        return from_status(status)
    code = error.code().value[0]
    message = _transport_message(code, error.details(), address)
    if _CALLS_EXCEEDED in (error.details() or ""):
        return Overloaded("TOO_MANY_CALLS", message, retry_after_s=1.0)
    return from_status(status_pb2.Status(code=code, message=message))


def from_flight(error: Exception, address: str) -> K2Error:
    """Convert the failure of a Flight call.

    Args:
        error: what pyarrow raised.
        address: the address called, for the message.
    """
    carried = getattr(error, "extra_info", b"")
    status = status_pb2.Status()
    if carried:
        try:
            status.ParseFromString(carried)
        except DecodeError:
            status.Clear()
    if status.code:
        return from_status(status)
    codes = (code for kind, code in _FLIGHT_CODES if isinstance(error, kind))
    code = next(codes, code_pb2.UNKNOWN)
    message = _transport_message(code, str(error), address)
    return from_status(status_pb2.Status(code=code, message=message))


def from_status(status: status_pb2.Status) -> K2Error:
    """Convert a `google.rpc.Status`."""
    kind, reason = _KINDS.get(status.code, (Internal, "INTERNAL"))
    metadata: dict[str, str] = {}
    retry_after_s = None
    for detail in status.details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        request = error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason = info.reason.removeprefix("ERROR_REASON_") or reason
            metadata.update(info.metadata)
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
        elif detail.Unpack(request):
            fields = [violation.field for violation in request.field_violations if violation.field]
            metadata.update({"field": fields[0]} if fields else {})
    message = status.message or reason
    return kind(reason, message, metadata=metadata, retry_after_s=retry_after_s)


def _transport_message(code: int, details: str | None, address: str) -> str:
    """Describe a failure that no K2 server described."""
    if code == code_pb2.UNAVAILABLE:
        return f"nothing answers at {address}: is K2 running there? ({_first_words(details)})"
    if code == code_pb2.DEADLINE_EXCEEDED:
        return f"{address} did not answer within the deadline"
    return f"{address}: {_first_words(details)}"


def _first_words(details: str | None) -> str:
    """Return the first sentence; the transport's own addresses and file names follow it."""
    text = re.split(r"\. Detail: |\. gRPC client debug| last error: |\n", details or "no details")[
        0
    ]
    return text.removeprefix("Flight returned unavailable error, with message: ").strip(" ;.")
