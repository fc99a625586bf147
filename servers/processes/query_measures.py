"""Measures what the query process counts beside its heartbeat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from k2.metrics import exported
from k2.query.execute import Executor
from k2.query.expected_ids import ExpectedIds
from k2.query.view import QueryView
from k2.tail.tail import Tail
from k2.telemetry import Counter, Gauge
from servers.flight.flight_server import RowServer


@dataclass(frozen=True)
class QueryMeasures:
    """What the query process measures of itself."""

    tail_partitions_released: Annotated[
        Gauge,
        exported(
            "k2_tail_partitions_released",
            "Partitions released because the tail was full.",
        ),
    ]
    tail_restarts: Annotated[
        Counter,
        exported("k2_tail_restarts_total", "Times that the tail began again from a snapshot."),
    ]
    gaps: Annotated[
        Mapping[str, Gauge], exported("k2_gaps", "Gaps in the ledger, by their state.", "state")
    ]
    gap_ids: Annotated[
        Mapping[str, Gauge], exported("k2_gap_ids", "Ids in the ledger's gaps, by state.", "state")
    ]
    memory_bytes: Annotated[
        Gauge, exported("k2_query_memory_bytes", "Bytes of rows that running answers hold.")
    ]
    streams_running: Annotated[
        Gauge, exported("k2_flight_streams_running", "Streams of rows that are open.")
    ]
    streams_waiting: Annotated[
        Gauge,
        exported("k2_flight_streams_waiting", "Of those, streams that wait for their reader."),
    ]


def measures_of(
    tail: Tail, view: QueryView, coverage: ExpectedIds, executor: Executor, rows: RowServer
) -> Callable[[], QueryMeasures]:
    """Make the function that measures a query process."""

    def measure() -> QueryMeasures:
        gaps = coverage.gaps()
        return QueryMeasures(
            tail_partitions_released=len(tail.released()),
            tail_restarts=view.restarts,
            gaps=gaps.count,
            gap_ids=gaps.ids,
            memory_bytes=executor.memory.held,
            streams_running=rows.running,
            streams_waiting=rows.waiting,
        )

    return measure
