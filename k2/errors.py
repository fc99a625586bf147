"""Every way K2 can fail, as six kinds; each says what the caller must do.

    K2Error
    ├── Invalid      the request is wrong: mend it, do not retry
    ├── NotFound     what it names does not exist (any more)
    ├── Unavailable  a part is missing now: retry after `retry_after_s`
    ├── Overloaded   a limit is reached: retry later, or ask for less
    ├── Data         what is stored or recorded contradicts itself: an operator must look
    └── Internal     a defect in K2

A kind decides how to react, a `Reason` says what happened; programs compare reasons, people read
messages. Each reason has one kind (`KIND_OF`); gRPC status, retry advice and exit code follow it.
Reasons equal the enum of `protos/k2/v1/error_reason.proto` (a test holds them together).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from k2 import limits


class Reason(StrEnum):
    """What happened, in one word that programs may rely on."""

    # Invalid
    BAD_REQUEST = "BAD_REQUEST"
    RANGE_REVERSED = "RANGE_REVERSED"
    LIMIT_OUT_OF_BOUNDS = "LIMIT_OUT_OF_BOUNDS"
    UNKNOWN_COLUMN = "UNKNOWN_COLUMN"
    BAD_PAGE_TOKEN = "BAD_PAGE_TOKEN"
    BAD_TICKET = "BAD_TICKET"
    TICKET_EXPIRED = "TICKET_EXPIRED"
    BAD_SETTING = "BAD_SETTING"
    NOT_LOCAL = "NOT_LOCAL"
    BAD_TOKEN = "BAD_TOKEN"
    OTHER_PROCESS = "OTHER_PROCESS"
    # NotFound
    UNKNOWN_SYMBOL = "UNKNOWN_SYMBOL"
    UNKNOWN_SNAPSHOT = "UNKNOWN_SNAPSHOT"
    STACK_NOT_RUNNING = "STACK_NOT_RUNNING"
    UNKNOWN_TOKEN = "UNKNOWN_TOKEN"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNKNOWN_DEAD_LETTER = "UNKNOWN_DEAD_LETTER"
    UNKNOWN_TOPIC = "UNKNOWN_TOPIC"
    FILE_NOT_FOUND = "FILE_NOT_FOUND"
    # Unavailable
    STARTING = "STARTING"
    DRAINING = "DRAINING"
    TAPE_UNAVAILABLE = "TAPE_UNAVAILABLE"
    TAIL_BEHIND = "TAIL_BEHIND"
    LAKE_UNAVAILABLE = "LAKE_UNAVAILABLE"
    REGISTRY_UNAVAILABLE = "REGISTRY_UNAVAILABLE"
    VENUE_UNAVAILABLE = "VENUE_UNAVAILABLE"
    PEER_UNAVAILABLE = "PEER_UNAVAILABLE"
    ANSWER_CHANGED = "ANSWER_CHANGED"
    PARTITION_STOPPED = "PARTITION_STOPPED"
    DEFERRED = "DEFERRED"
    # Overloaded
    TOO_MANY_QUERIES = "TOO_MANY_QUERIES"
    TOO_MANY_CALLS = "TOO_MANY_CALLS"
    TAIL_FULL = "TAIL_FULL"
    QUEUE_FULL = "QUEUE_FULL"
    STREAM_IDLE = "STREAM_IDLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    DISK_FULL = "DISK_FULL"
    SHED = "SHED"
    CANCELLED = "CANCELLED"
    # Data
    STAMP_MISMATCH = "STAMP_MISMATCH"
    TOPIC_RECREATED = "TOPIC_RECREATED"
    CLUSTER_CHANGED = "CLUSTER_CHANGED"
    PARTITIONS_CHANGED = "PARTITIONS_CHANGED"
    TAPE_TRUNCATED = "TAPE_TRUNCATED"
    RETENTION_OVERTOOK = "RETENTION_OVERTOOK"
    SCHEMA_CONFLICT = "SCHEMA_CONFLICT"
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"
    WRITER_FENCED = "WRITER_FENCED"
    LAKE_CORRUPT = "LAKE_CORRUPT"
    BACKUP_INVALID = "BACKUP_INVALID"
    RESTORE_UNFINISHED = "RESTORE_UNFINISHED"
    DATA_DIR_NEWER = "DATA_DIR_NEWER"
    EPOCH_ENDED = "EPOCH_ENDED"
    RULES_CHANGED = "RULES_CHANGED"
    VALUE_TOO_LARGE = "VALUE_TOO_LARGE"
    # Operation of a stack on one machine: Invalid, or Unavailable
    PORT_IN_USE = "PORT_IN_USE"
    NOT_WRITABLE = "NOT_WRITABLE"
    ALREADY_RUNNING = "ALREADY_RUNNING"
    PROCESS_DIED = "PROCESS_DIED"
    NOT_EMPTY = "NOT_EMPTY"
    # Internal
    INTERNAL = "INTERNAL"


class K2Error(Exception):
    """A failure with a reason, a message for readers and details for programs.

    Args:
        reason: what happened.
        message: what happened and what to do about it, in words.
        metadata: details, short strings (carried by `google.rpc.ErrorInfo`).
        retry_after_s: seconds after which another try makes sense; None where none does.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s


def some_of(names: Sequence[str]) -> str:
    """Name the first few, for a message, and count the rest."""
    named = ", ".join(names[: limits.ERROR_NAMES_MAX])
    more = len(names) - limits.ERROR_NAMES_MAX
    return f"{named} and {more} more" if more > 0 else named


class Invalid(K2Error):
    """The request is wrong; the same request will fail again."""


class NotFound(K2Error):
    """What the request names does not exist, or no longer."""


class Unavailable(K2Error):
    """A part that the answer needs is missing now; try again."""


class Overloaded(K2Error):
    """A limit is reached; try later or ask for less."""


class Data(K2Error):
    """What is stored contradicts itself or its source; no retry mends it."""


class Internal(K2Error):
    """A defect in K2."""


_REASONS: Final[dict[type[K2Error], str]] = {
    Invalid: (
        "BAD_REQUEST RANGE_REVERSED LIMIT_OUT_OF_BOUNDS UNKNOWN_COLUMN BAD_PAGE_TOKEN BAD_TICKET "
        "TICKET_EXPIRED BAD_SETTING NOT_LOCAL BAD_TOKEN OTHER_PROCESS NOT_WRITABLE "
        "ALREADY_RUNNING NOT_EMPTY"
    ),
    NotFound: (
        "UNKNOWN_SYMBOL UNKNOWN_SNAPSHOT STACK_NOT_RUNNING UNKNOWN_TOKEN OUT_OF_RANGE "
        "UNKNOWN_DEAD_LETTER UNKNOWN_TOPIC FILE_NOT_FOUND"
    ),
    Unavailable: (
        "STARTING DRAINING TAPE_UNAVAILABLE TAIL_BEHIND LAKE_UNAVAILABLE REGISTRY_UNAVAILABLE "
        "VENUE_UNAVAILABLE PEER_UNAVAILABLE ANSWER_CHANGED PARTITION_STOPPED DEFERRED "
        "PORT_IN_USE PROCESS_DIED"
    ),
    Overloaded: (
        "TOO_MANY_QUERIES TOO_MANY_CALLS TAIL_FULL QUEUE_FULL STREAM_IDLE DEADLINE_EXCEEDED "
        "DISK_FULL SHED CANCELLED"
    ),
    Data: (
        "STAMP_MISMATCH TOPIC_RECREATED CLUSTER_CHANGED PARTITIONS_CHANGED TAPE_TRUNCATED "
        "RETENTION_OVERTOOK SCHEMA_CONFLICT CHECKSUM_MISMATCH WRITER_FENCED LAKE_CORRUPT "
        "BACKUP_INVALID RESTORE_UNFINISHED DATA_DIR_NEWER EPOCH_ENDED RULES_CHANGED "
        "VALUE_TOO_LARGE"
    ),
    Internal: "INTERNAL",
}
# Reason: its kind.
KIND_OF: Final = {Reason(name): kind for kind, names in _REASONS.items() for name in names.split()}


def error_of(
    reason: Reason,
    message: str,
    *,
    metadata: Mapping[str, str] | None = None,
    retry_after_s: float | None = None,
) -> K2Error:
    """Make the error of a reason that is known only at run time; arguments as for `K2Error`."""
    return KIND_OF[reason](reason, message, metadata=metadata, retry_after_s=retry_after_s)
