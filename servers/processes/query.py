"""Runs the query process: tail, QueryService and Flight in one process, because they share rows."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final

from k2 import limits
from k2.degrade.level import Level
from k2.degrade.signals import Signal, scales
from k2.errors import Data, Unavailable
from k2.lake.iceberg.catalog import open_catalog
from k2.lake.iceberg.snapshot import SnapshotReader
from k2.lake.ingest.tape_check import assert_fits
from k2.market.instrument import Priorities
from k2.market.offsets import OffsetVector
from k2.metrics import exported
from k2.query.admission import Admission, Places
from k2.query.execute import Executor
from k2.query.expected_ids import ExpectedIds
from k2.query.gate import QueryGate
from k2.query.lake_snapshots import LakeSide
from k2.query.view import QueryView
from k2.settings import Settings
from k2.tail.tail import Tail
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder
from k2.tape.consumer import TapeReader
from k2.tape.partition_map import PartitionMap
from k2.tape.schema_registry import SchemaStore
from k2.tape.truncation_check import read_marks
from k2.telemetry import Counter, Gauge
from servers.flight.flight_server import Parts, RowServer
from servers.heartbeat import Heartbeats, listened
from servers.local.stamp import source_in
from servers.process import Process
from servers.processes.query_measures import measures_of
from servers.processes.query_tiers import TierPauses
from servers.runtime import Runtime
from servers.services import query_service
from servers.services.grpc_server import GrpcServer
from servers.services.query_service import Planner, QueryService
from servers.services.ticket import KEY_BYTES, Signer, signing_key

_WAIT_S: Final = 0.5
_FOLLOW_S: Final = 2.0  # for what feeds say, at the start; without it answers read UNKNOWN

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sides:
    """The parts of a query server that hold state.

    Attributes:
        lake, tail, view, executor, ends: see their classes, and `QueryView`.
        coverage: followed while there are answers.
        assert_fit: refuses a tape that does not fit the lake; asks both.
        tiers: pauses the tail.
    """

    coverage: ExpectedIds
    lake: LakeSide
    tail: Tail
    view: QueryView
    executor: Executor
    ends: Callable[[], tuple[int, ...]]
    assert_fit: Callable[[], None]
    tiers: TierPauses


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Serve from the moment the tail has caught up until stopped, then drain.

    Raises:
        Unavailable: PORT_IN_USE, NOT_WRITABLE.
        Data: the tape does not fit the lake; the reason says how. EPOCH_ENDED when the lake went
            on to another epoch of the tape.
    """
    with Process.running("query", settings, runtime) as process:
        trusted = settings.access.trusted_networks
        rows = RowServer(settings.query.listen_flight, trusted)
        process.ending.callback(rows.drain)
        sides = _sides(process)
        if sides is None:
            return 0
        parts = _parts(process, sides, rows.locations)
        service = QueryService(planner=parts.planner)
        services = {query_service.NAME: service.register}
        server = GrpcServer(settings.query.listen_grpc, services, runtime.clock, trusted)
        process.ending.callback(_drain, rows, server, runtime)  # before what they read from closes
        server.start()
        process.subscribe(sides.tiers.obey)
        process.read_levels()  # the tail starts before the first beat
        process.on_tick(sides.tiers.refresh)
        if not _caught_up(sides, runtime):
            return 0
        rows.ready(parts)
        server.ready()
        gauges = QueryGauges(settings.query.tail_bytes_max, sides, parts, rows, server)
        process.counters.add(gauges.counters)
        process.measures.add(
            measures_of(sides.tail, sides.view, sides.coverage, sides.executor, rows)
        )
        process.scales = scales(tail_bytes_max=settings.query.tail_bytes_max)
        process.start({"grpc": server.address, "flight": rows.address}, gauges.signals)
        process.serve()
        while not runtime.stopping.wait(_WAIT_S):
            server.tell(well=process.is_evaluated)
            if sides.lake.failure is not None:
                raise sides.lake.failure  # all it knows is of another epoch: to be started again
    return 0


def _drain(rows: RowServer, server: GrpcServer, runtime: Runtime) -> None:
    """Both at once, so that they have the time of one."""
    plans = threading.Thread(target=server.drain, name="draining", daemon=True)
    plans.start()
    if not rows.drain():
        runtime.stuck.set()
    plans.join()


def _sides(process: Process) -> Sides | None:
    """Join lake and tail, not started; None when stopped before the tape answered."""
    settings, runtime, ending = process.settings, process.runtime, process.ending
    tape, clients, admin = settings.tape, process.clients, process.clients.admin
    facts = runtime.retry_until_stopped(lambda: admin.facts(tape.topic))
    if facts is None:
        return None
    count = facts.partitions
    heartbeats = process.follow()
    catalog = open_catalog(settings, runtime.clock)
    ending.callback(catalog.close)
    placement = clients.partition_map(facts.topic_id)
    snapshots = SnapshotReader(catalog)
    lake = LakeSide(snapshots, count, facts.topic_id, settings.lake.commit_interval_s)
    tail = _tail(settings, runtime, clients.schemas, placement)

    def ends() -> tuple[int, ...]:
        return admin.log_ends(tape.topic, facts.partitions)

    def assert_fit() -> None:
        newest = snapshots.current()
        epoch = newest.positions.epoch if newest else 0
        if newest is None or not newest.epochs.ended:
            marks = partial(read_marks, partial(TapeReader.assigned, tape))
            assert_fits(newest, admin.facts(tape.topic), epoch, marks)

    coverage = _coverage(process, heartbeats, ends)
    view = QueryView(
        lake=lake,
        tail=tail,
        coverage=coverage,
        placement=placement,
        clock=runtime.clock,
        source=source_in(settings),
        dwell_s=settings.degrade.dwell_s,
    )
    ending.callback(view.close)
    executor = Executor(
        clock=runtime.clock, warehouse=settings.warehouse, temp_dir=settings.data_dir / "tmp"
    )
    ending.callback(executor.close)
    priorities = Priorities(settings.symbols.priority)
    tiers = TierPauses(tail, placement.known, priorities, settings.tape.partitions_per_tier)
    return Sides(coverage, lake, tail, view, executor, ends, assert_fit, tiers)


def _tail(
    settings: Settings, runtime: Runtime, schemas: SchemaStore, placement: PartitionMap
) -> Tail:
    tape = settings.tape
    return Tail(
        reader_factory=lambda start: TapeReader.assigned(tape, start),
        decoder=Decoder(schemas),
        placement=placement,
        clock=runtime.clock,
        bytes_max=settings.query.tail_bytes_max,
        recent_s=settings.query.tail_recent_s,
    )


def _coverage(
    process: Process, heartbeats: Heartbeats, ends: Callable[[], tuple[int, ...]]
) -> ExpectedIds:
    """Follow what feeds and ledger say of trade ids from now on."""
    coverage = ExpectedIds(
        promises=process.clients.topic(topics.COVERAGE),
        gaps=process.clients.gap_log,
        listened=lambda: listened(heartbeats.beats()),
        ends=ends,
        clock=process.runtime.clock,
    )
    process.ending.callback(coverage.close)
    coverage.start()
    return coverage


def _parts(process: Process, sides: Sides, locations: Sequence[str]) -> Parts:
    """Join what plans and answers."""
    settings, clock = process.settings, process.runtime.clock
    signer = Signer(signing_key(settings, secrets.token_bytes(KEY_BYTES)))

    def level() -> Level:
        return process.levels.effective

    admission = Admission(pressure=lambda: process.levels.pressure)
    planner = Planner(
        plans=sides.view,
        signer=signer,
        clock=clock,
        level=level,
        locations=locations,
        gate=QueryGate(lambda: process.levels, clock, admission, settings.degrade.dwell_s),
    )
    return Parts(
        planner=planner,
        executor=sides.executor,
        admission=admission,
        plans=Places(limits.PLANS_RUNNING_MAX, "plans are being made"),
        clock=clock,
        stream_idle_s=settings.query.stream_idle_s,
    )


def _caught_up(sides: Sides, runtime: Runtime) -> bool:
    """Start the tail and wait until it is where the tape ended; False when stopped before.

    Raises:
        Data: the tape does not fit the lake.
    """
    end: OffsetVector | None = None
    while not runtime.stopping.is_set():
        try:
            if end is None:
                sides.assert_fit()
                sides.view.start()
                end = OffsetVector(sides.tail.position().epoch, sides.ends())
            wanted = set(range(len(end.offsets))) - sides.tail.deferred()
            if sides.tail.wait_until(end, _WAIT_S, wanted):
                sides.coverage.wait(_FOLLOW_S)
                return True
        except Unavailable as error:
            _log.warning("waiting: %s", error.message, extra={"reason": error.reason})
            sides.view.close()
            end = None
            runtime.stopping.wait(_WAIT_S)
        if isinstance(sides.tail.failure, Data):
            raise sides.tail.failure
    return False


@dataclass(frozen=True)
class QueryCounters:
    """The query server's counters, of its tail and its queries."""

    tail_rows: Annotated[Gauge, exported("k2_tail_rows", "Rows that the tail holds.")]
    tail_bytes: Annotated[Gauge, exported("k2_tail_bytes", "Bytes of the rows in the tail.")]
    tail_pending_bytes: Annotated[
        Gauge, exported("k2_tail_pending_bytes", "Of those, what no commit covers, about.")
    ]
    tail_records: Annotated[
        Counter, exported("k2_tail_records_total", "Records that the tail judged since its start.")
    ]
    tail_position: str
    tail_released: list[int]
    tail_paused: Annotated[
        Mapping[str, int],
        exported(
            "k2_tail_partitions_paused",
            "Partitions that the tail reads later, because a level sheds their tier.",
            "tier",
        ),
    ]
    tail_failure: str
    snapshot_id: str
    queries_running: Gauge
    queries_waiting: Gauge
    queries_refused: Counter
    queries_answered: Counter
    queries_running_by_class: Annotated[
        Mapping[str, int], exported("k2_query_running", "Queries that run now.", "class")
    ]
    queries_places: Annotated[
        Mapping[str, int],
        exported("k2_query_places", "Queries that may run at once at this pressure.", "class"),
    ]
    queries_answered_by_class: Annotated[
        Mapping[str, int],
        exported("k2_query_answered_total", "Queries that ran and ended.", "class"),
    ]


class QueryGauges:
    """Reads what the query server's heartbeat says.

    Args:
        tail_bytes_max: of the settings.
        sides: the tail, and what the lake covers of it.
        parts: what plans and answers.
        rows: knows how many queries wait for their reader; those are counted, and are no pressure.
        server: knows how many plans wait for a worker.
    """

    def __init__(
        self, tail_bytes_max: int, sides: Sides, parts: Parts, rows: RowServer, server: GrpcServer
    ) -> None:
        self._tail_bytes_max = tail_bytes_max
        self._sides = sides
        self._parts = parts
        self._rows = rows
        self._server = server

    def signals(self) -> dict[str, float | None]:
        """Read the tail's bytes, the queries that run, and the work that waits."""
        tail = self._sides.tail
        full = bool(tail.stats().released - tail.deferred())
        running = self._parts.admission.running
        return {
            Signal.TAIL_BYTES: float(
                self._tail_bytes_max if full else pending_bytes(self._sides, tail.deferred())
            ),
            Signal.QUERIES_RUNNING: float(running - min(self._rows.waiting, running)),
            Signal.QUERIES_QUEUED: float(self._server.queued),
            Signal.OLDEST_WORK_S: max(self._rows.oldest_work_s, self._server.oldest_work_s),
        }

    def counters(self) -> QueryCounters:
        """Read all counters."""
        tail, admission = self._sides.tail, self._parts.admission
        stats, running = tail.stats(), admission.running
        classes = admission.classes.items()
        return QueryCounters(
            tail_rows=stats.rows,
            tail_bytes=stats.size_bytes,
            tail_pending_bytes=round(pending_bytes(self._sides)),
            tail_records=stats.records,
            tail_position=tail.position().encode(),
            tail_released=sorted(stats.released),
            tail_paused=self._sides.tiers.counts(),
            tail_failure=stats.failure.reason.value if stats.failure else "",
            snapshot_id=str(self._sides.lake.published().snapshot_id),
            queries_running=running,
            queries_waiting=min(self._rows.waiting, running),
            queries_refused=self._parts.planner.gate.refused,
            queries_answered=admission.answered,
            queries_running_by_class={name.value: of.running for name, of in classes},
            queries_places={name.value: of.most for name, of in classes},
            queries_answered_by_class={name.value: of.answered for name, of in classes},
        )


def pending_bytes(sides: Sides, without: Collection[int] = ()) -> float:
    """Bytes of the tail's rows that the lake does not cover, about: they cannot be evicted.

    Args:
        sides: tail and lake.
        without: partitions that do not count. Those that a level paused press nothing, or shedding
            them would keep the level up: neither side moves there.
    """
    stats = sides.tail.stats()
    covered = sides.lake.published().facts.positions
    position = sides.tail.position()
    pending = sum(
        max(read - below, 0)
        for p, (read, below) in enumerate(zip(position.offsets, covered.offsets, strict=True))
        if p not in without
    )
    return min(pending * stats.size_bytes / max(stats.rows, 1), stats.size_bytes)
