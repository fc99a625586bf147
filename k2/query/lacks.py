"""What a plan lacks, as those who ask are told: by an error, or in a partial answer."""

from __future__ import annotations

from k2 import limits
from k2.errors import K2Error, Overloaded, Reason, Unavailable
from k2.query.plan import Missing, MissingReason
from k2.query.provenance import MissingPart


def failure_of(missing: Missing, stopped: K2Error | None, commit_interval_s: float) -> K2Error:
    """The error that whoever does not accept the lack gets.

    Args:
        missing: what a plan lacks.
        stopped: why the tail reads no more, if so.
        commit_interval_s: how often the lake is committed.
    """
    partitions = ", ".join(map(str, missing.partitions))
    detail = {"partitions": partitions}
    if missing.lack is MissingReason.RELEASED:
        return Overloaded(
            Reason.TAIL_FULL,
            f"rows of partitions {partitions} are not in the lake yet, and the tail is full",
            metadata=detail,
            retry_after_s=commit_interval_s,
        )
    if missing.lack is MissingReason.BEHIND:
        cause = f": {stopped.message}" if stopped else ""
        return Unavailable(
            stopped.reason if isinstance(stopped, Unavailable) else Reason.TAIL_BEHIND,
            f"the tail has not reached the end of partitions {partitions}{cause}",
            metadata=detail,
            retry_after_s=limits.TAIL_RETRY_S,
        )
    return Unavailable(
        Reason.LAKE_UNAVAILABLE,
        "the lake cannot be read, or not far enough",
        metadata=detail,
        retry_after_s=limits.SNAPSHOT_POLL_S,
    )


def part_of(missing: Missing, failure: K2Error) -> MissingPart:
    """The same for whoever accepts it."""
    part = "lake" if missing.lack in (MissingReason.LAKE, MissingReason.EVICTED) else "tail"
    return MissingPart(part, failure.reason, failure.message)
