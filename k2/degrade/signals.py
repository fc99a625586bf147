"""Signals of load, and the pressure that each value means.

A signal's pressure is 0 at its `calm` value, 1 at its `full` value, and linear between them; a
signal that gets worse as it shrinks (free disk) has `full` below `calm`. A signal that cannot be
read is not a calm one: it counts as `UNREADABLE`, high enough to shed all but the critical, not
high enough to stop the feed for a broken gauge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from k2 import limits

UNREADABLE = 0.9  # AGGRESSIVE by the default tuning


class Signal(StrEnum):
    """A measured quantity; each process publishes those it knows."""

    WRITER_LAG_S = "writer_lag_s"  # age of the oldest record not yet committed
    PRODUCER_QUEUE = "producer_queue"  # records produced and not yet acknowledged
    FEED_QUEUE = "feed_queue"  # frames received and not yet produced
    RSS_BYTES = "rss_bytes"  # resident memory of the process
    COMMIT_LATENCY_S = "commit_latency_s"  # how long the last commit took
    TAIL_BYTES = "tail_bytes"  # rows in the tail that the lake does not cover yet
    QUERIES_RUNNING = "queries_running"  # without those that wait for their reader
    DISK_FREE_BYTES = "disk_free_bytes"  # of the file system of the data directory


@dataclass(frozen=True)
class Scale:
    """The two thresholds between which pressure goes from 0 to 1."""

    calm: float
    full: float

    def __post_init__(self) -> None:
        assert self.calm != self.full, "a scale needs a length"


def scales(
    commit_interval_s: float = limits.COMMIT_INTERVAL_S,
    tail_bytes_max: float = limits.TAIL_BYTES_MAX,
    commit_bytes_max: float = limits.COMMIT_BYTES_MAX,
) -> dict[str, Scale]:
    """Return the scale of each signal in a process with these settings.

    However often the lake is committed, a lag of some seconds and a commit of up to a second are
    no pressure; what the settings let a process hold beyond the defaults is no pressure either.
    """
    lag_s = max(commit_interval_s, limits.COMMIT_INTERVAL_CALM_S)
    latency_s = max(commit_interval_s, limits.COMMIT_INTERVAL_S)
    return {
        Signal.WRITER_LAG_S: Scale(3 * lag_s, 30 * lag_s),
        Signal.PRODUCER_QUEUE: _from(0.2, limits.FEED_QUEUE_RECORDS_MAX),
        Signal.FEED_QUEUE: _from(0.2, limits.FEED_QUEUE_RECORDS_MAX),
        Signal.RSS_BYTES: _from(
            0.5, limits.PROCESS_RSS_MAX + held_beyond(tail_bytes_max, commit_bytes_max)
        ),
        Signal.COMMIT_LATENCY_S: _from(0.1, latency_s),
        Signal.TAIL_BYTES: _from(0.25, tail_bytes_max),
        Signal.QUERIES_RUNNING: _from(0.5, limits.QUERIES_RUNNING_MAX),
        Signal.DISK_FREE_BYTES: Scale(4 * limits.DISK_FREE_MIN, limits.DISK_FREE_MIN),
    }


def held_beyond(tail_bytes_max: float, commit_bytes_max: float) -> float:
    """Bytes of rows that these settings let a process hold beyond what the defaults do."""
    tail = tail_bytes_max - limits.TAIL_BYTES_MAX
    pending = 2 * (commit_bytes_max - limits.COMMIT_BYTES_MAX)  # reading pauses at twice a commit
    return max(0.0, tail) + max(0.0, pending)


def _from(share: float, full: float) -> Scale:
    """Make the scale that begins at a share of its end."""
    return Scale(share * full, full)


def pressure(value: float | None, scale: Scale | None) -> float:
    """Compute how pressing a value is, 0..1.

    Args:
        value: the reading; None or not a number when it could not be read.
        scale: its thresholds; None for a signal that K2 has none for, which counts as unreadable.
    """
    if value is None or math.isnan(value) or scale is None:
        return UNREADABLE
    share = (value - scale.calm) / (scale.full - scale.calm)
    return min(1.0, max(0.0, share))


def pressures(
    readings: Mapping[str, float | None], by_name: Mapping[str, Scale]
) -> dict[str, float]:
    """Compute the pressure of each reading on its scale."""
    return {name: pressure(value, by_name.get(name)) for name, value in readings.items()}
