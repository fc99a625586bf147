"""The query process: the tail, QueryService and Flight, together because they share the rows."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

from k2 import limits
from k2.degrade.signals import Signal, scales
from k2.errors import Data, Unavailable
from k2.lake.iceberg.catalog import open_catalog
from k2.lake.iceberg.snapshot import SnapshotReader
from k2.lake.ingest.tape_check import assert_fits
from k2.market.offsets import OffsetVector
from k2.query.admission import Admission
from k2.query.execute import Executor
from k2.query.expected_ids import ExpectedIds
from k2.query.lake_snapshots import LakeSide
from k2.query.view import QueryView
from k2.settings import Settings
from k2.tail.tail import Tail
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.consumer import TapeReader
from k2.tape.partition_map import PartitionMap
from k2.tape.schema_registry import SchemaStore
from k2.tape.tape_clients import TapeClients
from k2.tape.truncation_check import read_marks
from servers.flight.flight_server import Parts, RowServer
from servers.heartbeat import (
    Heart,
    Heartbeats,
    Sample,
    listened,
    process_signals,
    progress_told,
)
from servers.process_table import expected_by
from servers.processes.control import source_of
from servers.runtime import Runtime
from servers.services import query_service
from servers.services.grpc_server import GrpcServer
from servers.services.query_service import Planner, QueryService
from servers.services.ticket import KEY_BYTES, Signer, signing_key

PROCESS: Final = "query"
_WAIT_S: Final = 0.5
_FOLLOW_S: Final = 2.0  # for what feeds say, at the start; without it answers read UNKNOWN

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sides:
    """What a query server holds of the platform.

    Attributes:
        board, heartbeats, lake, tail, view, executor, ends: see their classes, and `QueryView`.
        coverage: followed while there are answers.
        assert_fit: refuses a tape that does not fit the lake; asks both.
    """

    board: CompactedTopic
    heartbeats: Heartbeats
    coverage: ExpectedIds
    lake: LakeSide
    tail: Tail
    view: QueryView
    executor: Executor
    ends: Callable[[], tuple[int, ...]]
    assert_fit: Callable[[], None]


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Serve from the moment the tail has caught up until stopped, then drain.

    Raises:
        Unavailable: PORT_IN_USE, NOT_WRITABLE.
        Data: the tape does not fit the lake; the reason says how. EPOCH_ENDED when the lake went
            on to another epoch of the tape.
    """
    with ExitStack() as closing:
        rows = RowServer(settings.query.listen_flight)
        closing.callback(rows.drain)
        clients = closing.enter_context(
            TapeClients.open(settings, runtime.clock, runtime.stopping.wait)
        )
        sides = _sides(settings, runtime, clients, closing)
        if sides is None:
            return 0
        parts = _parts(settings, runtime, sides, rows.uri)
        service = QueryService(planner=parts.planner)
        services = {query_service.NAME: service.register}
        listener = GrpcServer(settings.query.listen_grpc, services, runtime.clock)
        closing.callback(_drain, rows, listener, runtime)  # before what they read from is closed
        listener.start()
        if not _caught_up(sides, runtime):
            return 0
        rows.ready(parts)
        listener.ready()
        addresses = {"grpc": listener.address, "flight": rows.address}
        heart = Heart(
            board=sides.board,
            clock=runtime.clock,
            process=PROCESS,
            run_id=runtime.run_id,
            addresses=addresses,
            sample=progress_told(
                sampler(settings, sides, parts.admission, lambda: rows.waiting),
                "queries_answered",
                runtime,
            ),
        )
        closing.callback(heart.close)
        heart.start()
        runtime.emit("serving", addresses=addresses)
        while not runtime.stopping.wait(_WAIT_S):
            if sides.lake.failure is not None:
                raise sides.lake.failure  # all it knows is of another epoch: to be started again
    return 0


def _drain(rows: RowServer, listener: GrpcServer, runtime: Runtime) -> None:
    """Both at once, so that they have the time of one."""
    plans = threading.Thread(target=listener.drain, name="draining", daemon=True)
    plans.start()
    if not rows.drain():
        runtime.stuck.set()
    plans.join()


def _sides(
    settings: Settings, runtime: Runtime, clients: TapeClients, closing: ExitStack
) -> Sides | None:
    """Lake and tail, joined but not started; None when stopped before the tape answered."""
    tape = settings.tape
    admin = clients.admin
    facts = runtime.patiently(lambda: admin.facts(tape.topic))
    if facts is None:
        return None
    count = facts.partitions
    board = clients.topic(topics.HEARTBEATS)
    board.start()
    heartbeats = Heartbeats(board, runtime.clock, expected_by(PROCESS, settings))
    catalog = open_catalog(settings, runtime.clock)
    closing.callback(catalog.close)
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

    coverage = _coverage(clients, runtime, heartbeats, ends, closing)
    view = QueryView(
        lake=lake,
        tail=tail,
        coverage=coverage,
        placement=placement,
        clock=runtime.clock,
        source=source_of(settings),
    )
    closing.callback(view.close)
    executor = Executor(
        clock=runtime.clock, warehouse=settings.warehouse, temp_dir=settings.data_dir / "tmp"
    )
    closing.callback(executor.close)
    return Sides(board, heartbeats, coverage, lake, tail, view, executor, ends, assert_fit)


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
    clients: TapeClients,
    runtime: Runtime,
    heartbeats: Heartbeats,
    ends: Callable[[], tuple[int, ...]],
    closing: ExitStack,
) -> ExpectedIds:
    """What feeds and ledger say of trade ids, followed from now on."""
    coverage = ExpectedIds(
        promises=clients.topic(topics.COVERAGE),
        gaps=clients.gap_log,
        listened=lambda: listened(heartbeats.beats()),
        ends=ends,
        clock=runtime.clock,
    )
    closing.callback(coverage.close)
    coverage.start()
    return coverage


def _parts(settings: Settings, runtime: Runtime, sides: Sides, uri: str) -> Parts:
    """What plans and answers, joined."""
    signer = Signer(signing_key(settings, secrets.token_bytes(KEY_BYTES)))
    planner = Planner(
        plans=sides.view,
        signer=signer,
        clock=runtime.clock,
        level=sides.heartbeats.level,
        location=uri,
    )
    return Parts(
        planner=planner,
        executor=sides.executor,
        admission=Admission(),
        plans=Admission(limits.PLANS_RUNNING_MAX, "plans are being made"),
        clock=runtime.clock,
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
            if sides.tail.wait_until(end, _WAIT_S):
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


def sampler(
    settings: Settings, sides: Sides, admission: Admission, waiting: Callable[[], int]
) -> Callable[[], Sample]:
    """What the query server's heart says: its tail, its queries, its memory.

    Queries that wait for their reader are counted, and are no pressure.
    """
    ours = scales(tail_bytes_max=settings.query.tail_bytes_max)

    def sample() -> Sample:
        stats = sides.tail.stats()
        pending = pending_bytes(sides)
        running = admission.running
        idle = min(waiting(), running)
        signals = process_signals(settings.data_dir) | {
            Signal.TAIL_BYTES: float(settings.query.tail_bytes_max) if stats.released else pending,
            Signal.QUERIES_RUNNING: float(running - idle),
        }
        counters = {
            "tail_rows": stats.rows,
            "tail_bytes": stats.size_bytes,
            "tail_pending_bytes": round(pending),
            "tail_records": stats.records,
            "tail_position": sides.tail.position().encode(),
            "tail_released": sorted(stats.released),
            "tail_failure": stats.failure.reason.value if stats.failure else "",
            "snapshot_id": str(sides.lake.published().snapshot_id),
            "queries_running": running,
            "queries_waiting": idle,
            "queries_refused": admission.refused,
            "queries_answered": admission.answered,
        }
        return Sample(signals=signals, counters=counters, scales=ours)

    return sample


def pending_bytes(sides: Sides) -> float:
    """Bytes of the tail's rows that the lake does not cover, about: they cannot be evicted."""
    stats = sides.tail.stats()
    covered = sides.lake.published().facts.positions
    position = sides.tail.position()
    pending = sum(
        max(read - below, 0) for read, below in zip(position.offsets, covered.offsets, strict=True)
    )
    return min(pending * stats.size_bytes / max(stats.rows, 1), stats.size_bytes)
