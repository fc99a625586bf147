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
SOFT_AT_MOST = 0.55  # what a busy CPU, or catching up after a restart, may mean by itself


class Signal(StrEnum):
    """A measured quantity; each process publishes those it knows."""

    WRITER_LAG_S = "writer_lag_s"  # for how long the writer has seen a record it did not commit
    PRODUCER_QUEUE = "producer_queue"  # records produced and not yet acknowledged
    FEED_QUEUE = "feed_queue"  # frames received and not yet produced
    RSS_BYTES = "rss_bytes"  # resident memory of the process
    COMMIT_LATENCY_S = "commit_latency_s"  # how long the last commit took
    TAIL_BYTES = "tail_bytes"  # rows in the tail that the lake does not cover yet
    QUERIES_RUNNING = "queries_running"  # without those that wait for their reader
    DISK_FREE_BYTES = "disk_free_bytes"  # of the file system of the data directory
    QUERIES_QUEUED = "queries_queued"  # plans and calls that wait for a place
    OLDEST_WORK_S = "oldest_work_s"  # age of the oldest work that was taken in and is not done
    CGROUP_BYTES = "cgroup_bytes"  # memory of the control group, as a share of its limit
    CPU_PRESSURE = "cpu_pressure"  # share of the last 10 s in which work waited for a CPU
    MEMORY_PRESSURE = "memory_pressure"  # the same, for memory
    IO_PRESSURE = "io_pressure"  # the same, for a disk
    LOOP_LAG_S = "loop_lag_s"  # how late a thread of the process is woken
    BACKLOG_AGE_S = "backlog_age_s"  # age of the oldest record that the writer found at its start


@dataclass(frozen=True)
class Scale:
    """The two thresholds between which pressure goes from 0 to `most`.

    Attributes:
        calm: the value up to which there is no pressure.
        full: the value from which the pressure is `most`.
        most: the highest pressure that the signal can mean by itself.
    """

    calm: float
    full: float
    most: float = 1.0

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
    latency_s = max(commit_interval_s, limits.COMMIT_LATENCY_CALM_S)
    return {
        Signal.WRITER_LAG_S: Scale(3 * lag_s, 30 * lag_s),
        Signal.BACKLOG_AGE_S: Scale(3 * lag_s, 30 * lag_s, SOFT_AT_MOST),
        Signal.PRODUCER_QUEUE: _from(0.2, limits.FEED_QUEUE_RECORDS_MAX),
        Signal.FEED_QUEUE: _from(0.2, limits.FEED_QUEUE_RECORDS_MAX),
        Signal.RSS_BYTES: _from(
            0.5, limits.PROCESS_RSS_MAX + held_beyond(tail_bytes_max, commit_bytes_max)
        ),
        Signal.COMMIT_LATENCY_S: _from(0.1, latency_s),
        Signal.TAIL_BYTES: _from(0.25, tail_bytes_max),
        Signal.QUERIES_RUNNING: _from(0.5, limits.QUERIES_RUNNING_MAX),
        Signal.DISK_FREE_BYTES: Scale(4 * limits.DISK_FREE_MIN, limits.DISK_FREE_MIN),
        Signal.QUERIES_QUEUED: _from(0.5, limits.GRPC_CALLS_MAX),
        Signal.OLDEST_WORK_S: Scale(0.5 * limits.QUERY_DEADLINE_S, limits.QUERY_DEADLINE_S),
        Signal.CGROUP_BYTES: Scale(0.8, 0.97),
        Signal.CPU_PRESSURE: Scale(0.9, 1.0, SOFT_AT_MOST),
        Signal.MEMORY_PRESSURE: Scale(0.1, 0.5),
        Signal.IO_PRESSURE: Scale(0.5, 0.95, SOFT_AT_MOST),
        Signal.LOOP_LAG_S: Scale(0.1, 1.0, SOFT_AT_MOST),
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
    return min(1.0, max(0.0, share)) * scale.most


def pressures(
    readings: Mapping[str, float | None], by_name: Mapping[str, Scale]
) -> dict[str, float]:
    """Compute the pressure of each reading on its scale."""
    return {name: pressure(value, by_name.get(name)) for name, value in readings.items()}
