"""Converts a `K2Error` to a `google.rpc.Status`, the same on gRPC and Flight.

The code follows the kind, ErrorInfo (domain `k2`) carries reason and metadata, RetryInfo the time
after which to retry, BadRequest the field that is wrong when the error knows it.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from k2 import limits
from k2.errors import (
    Data,
    Internal,
    Invalid,
    K2Error,
    NotFound,
    Overloaded,
    Reason,
    Unavailable,
)

DOMAIN: Final = "k2"
DETAILS_KEY: Final = "grpc-status-details-bin"  # where gRPC carries a Status
RETRY_AFTER_S: Final = 1.0  # for a retryable error that does not say itself

_LENIENT: Final = ("utf-8", "replace")  # a lone surrogate has no form on the wire
_CODES: Final[dict[type[K2Error], int]] = {
    Invalid: code_pb2.INVALID_ARGUMENT,
    NotFound: code_pb2.NOT_FOUND,
    Unavailable: code_pb2.UNAVAILABLE,
    Overloaded: code_pb2.RESOURCE_EXHAUSTED,
    Data: code_pb2.DATA_LOSS,
    Internal: code_pb2.INTERNAL,
}
_CODES_OF_REASONS: Final[dict[Reason, int]] = {
    Reason.DEADLINE_EXCEEDED: code_pb2.DEADLINE_EXCEEDED,
    Reason.NOT_LOCAL: code_pb2.PERMISSION_DENIED,
}

_log = logging.getLogger(__name__)


class PeerError(Exception):
    """The error of another server of K2, to be passed on unchanged.

    Args:
        error: the failed call.
    """

    def __init__(self, error: grpc.RpcError) -> None:
        super().__init__(str(error))
        call = error if isinstance(error, grpc.Call) else None
        self.code = call.code() if call else grpc.StatusCode.UNKNOWN
        self.details = (call.details() if call else None) or ""
        metadata = call.trailing_metadata() if call else None
        self.trailing_metadata: tuple[Any, ...] = tuple(metadata or ())


def as_k2(error: BaseException) -> K2Error:
    """Return the error itself, or Internal for an unforeseen one, logged with its traceback."""
    if isinstance(error, K2Error):
        return error
    _log.error("a defect", exc_info=error)
    return Internal(Reason.INTERNAL, "a defect in K2; the server's log has the details")


def code_of(error: K2Error) -> int:
    """Return the `google.rpc.Code` of an error."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return _CODES_OF_REASONS.get(error.reason, code)
    return int(code_pb2.INTERNAL)


def to_status(error: K2Error) -> status_pb2.Status:
    """Convert an error with its details, bounded, because gRPC drops headers above 8 KiB."""
    message = bounded(error.message, limits.ERROR_TEXT_MAX)
    metadata = {
        bounded(name, limits.ERROR_DETAIL_MAX): bounded(value, limits.ERROR_DETAIL_MAX)
        for name, value in list(error.metadata.items())[: limits.ERROR_DETAILS_MAX]
    }
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=metadata)
    ]
    retry_after_s = error.retry_after_s
    if retry_after_s is None and isinstance(error, Unavailable | Overloaded):
        retry_after_s = RETRY_AFTER_S
    if retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMicroseconds(int(retry_after_s * 1e6))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if isinstance(error, Invalid):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=metadata.get("field", ""),
            description=message,
            reason=error.reason.value,
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    return status_pb2.Status(
        code=code_of(error), message=message, details=[_packed(each) for each in details]
    )


def bounded(text: str, size: int) -> str:
    """Return the text, or its beginning and how much more there is; on the wire about `size` bytes.

    gRPC writes each byte of a letter beyond ASCII as three.
    """
    cost, kept = 0, 0
    for letter in text[: size + 1]:
        cost += 1 if " " <= letter <= "~" and letter != "%" else 3 * len(letter.encode(*_LENIENT))
        if cost > size:
            break
        kept += 1
    whole = text[:kept].encode(*_LENIENT).decode()
    return whole if kept == len(text) else f"{whole}… ({len(text) - kept} more characters)"


def to_grpc(error: K2Error) -> grpc.Status:
    """Convert an error to what `ServicerContext.abort_with_status` takes."""
    return rpc_status.to_status(to_status(error))


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
