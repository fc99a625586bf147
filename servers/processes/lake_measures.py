"""Measures what the lake process counts beside its heartbeat: the table, and the tape's margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from k2.lake.commit.committer import Committer
from k2.metrics import exported
from k2.telemetry import Counter, Gauge


@dataclass(frozen=True)
class LakeMeasures:
    """What the lake process measures; None where there is nothing to divide, or no look yet."""

    snapshots: Annotated[Gauge, exported("k2_lake_snapshots", "Snapshots of the table of trades.")]
    files: Annotated[Gauge, exported("k2_lake_files", "Files of the newest snapshot of trades.")]
    table_bytes: Annotated[
        Gauge, exported("k2_lake_table_bytes", "Bytes of the newest snapshot of trades.")
    ]
    table_rows: Annotated[
        Gauge, exported("k2_lake_table_rows", "Rows of the newest snapshot of trades.")
    ]
    bytes_per_trade: Annotated[
        Gauge | None,
        exported("k2_lake_bytes_per_trade", "Bytes of the newest snapshot for each of its rows."),
    ]
    last_commit_time_seconds: Annotated[
        Gauge | None,
        exported("k2_lake_last_commit_time_seconds", "Unix time of the newest snapshot of trades."),
    ]
    written_files: Annotated[
        Counter, exported("k2_lake_files_written_total", "Files of trades that commits added.")
    ]
    written_bytes: Annotated[
        Counter, exported("k2_lake_bytes_total", "Bytes of the files that commits of trades added.")
    ]
    retention_margin_seconds: Annotated[
        Gauge | None,
        exported(
            "k2_tape_retention_margin_seconds",
            "Time until the tape's hours remove a record that is not in the lake, at least.",
        ),
    ]


def measure_lake(committer: Committer, margin_s: float | None) -> LakeMeasures:
    """Measure the table of trades.

    Args:
        committer: of trades.
        margin_s: of the tape's retention; None while not known.
    """
    size = committer.size
    return LakeMeasures(
        snapshots=size.snapshots,
        files=size.files,
        table_bytes=size.bytes,
        table_rows=size.rows,
        bytes_per_trade=size.bytes / size.rows if size.rows else None,
        last_commit_time_seconds=size.committed_at_us / 1e6 or None,
        written_files=committer.written_files,
        written_bytes=committer.written_bytes,
        retention_margin_seconds=margin_s,
    )
