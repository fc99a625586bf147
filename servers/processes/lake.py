"""The lake writer's process: tape → Iceberg, one writer per group member."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

from k2.clock import Clock
from k2.degrade.level import Level
from k2.degrade.signals import Signal, scales
from k2.errors import Data
from k2.feed.publish.coverage_topic import read_coverage
from k2.lake.commit.committer import Committer, TapeIdentity, TradeStore
from k2.lake.commit.snapshot_commit import TableCatalog
from k2.lake.iceberg.catalog import Catalog, open_catalog
from k2.lake.iceberg.tables import ensure_lake
from k2.lake.ingest.epoch_transition import AvailableTape, StartedEpoch, begin_epoch, lost_ids
from k2.lake.ingest.tape_check import WriterTape, identity_of
from k2.lake.ingest.trade_writer import LakeWriter, WriterStats
from k2.lake.maintenance.maintainer import Maintainer, MaintainStats
from k2.market.coverage import hull
from k2.market.fold import FoldState
from k2.market.ledger import fold_all
from k2.settings import Settings
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.consumer import OnAssign, OnRevoke, TapeReader
from k2.tape.partition_map import PartitionMap
from k2.tape.ports import BatchReader
from k2.tape.tape_clients import TapeClients
from k2.tape.topics import TapeAdmin, TopicDescription
from k2.tape.truncation_check import read_marks
from servers.heartbeat import REFUSED, Heart, Sample, process_signals, progress_told
from servers.processes.lake_maintenance import maintained, maintainer_of, stats_of
from servers.processes.lake_retention import LakeRetention, retainers_of, tape_watch_of
from servers.processes.ops_tables import OpsTables
from servers.runtime import Runtime

PROCESS = "lake"
GROUP = "k2-lake"  # and the topic: a static member is given what it had, of whatever topic
INSTANCE = "k2-lake-0"  # one writer a stack; a restarted one takes the place of the one before

_log = logging.getLogger(__name__)


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Write the lake until stopped, then commit what is there.

    Raises:
        Data: the tape does not fit the lake; the reason says how.
    """
    with ExitStack() as parts:
        clients = parts.enter_context(
            TapeClients.open(settings, runtime.clock, runtime.stopping.wait)
        )
        heartbeats = clients.topic(topics.HEARTBEATS)
        parts.enter_context(_refusal_told(runtime, heartbeats))
        catalog = runtime.patiently(lambda: _opened(settings, runtime))
        if catalog is None:
            return 0
        parts.enter_context(closing(catalog))
        tape = _tape(settings, runtime, catalog, clients)
        if tape is None:
            return 0
        committer = Committer(
            catalog=catalog, clock=runtime.clock, tape=tape.identity, writer_id=runtime.run_id
        )
        ops = OpsTables(settings, runtime, catalog, clients)
        pump = LakeWriter(
            tape=tape,
            committer=committer,
            settings=settings.lake,
            clock=runtime.clock,
            stopping=runtime.stopping,
        )
        maintainers = _maintainers(
            settings, runtime, catalog, committer, ops, lambda: heart.level >= Level.SOFT
        )
        retention = LakeRetention(
            retainers_of(settings, runtime, catalog, committer, ops),
            tape_watch_of(settings, runtime, clients.admin, pump),
        )
        sample = sampler(
            settings,
            runtime.clock,
            lambda: pump.stats,
            lambda: _counters(stats_of(maintainers), ops, clients.topic(topics.PARTITIONS)),
        )
        heart = _heart(runtime, heartbeats, retention.told(sample))
        heart.start()
        try:
            runtime.emit("serving", addresses={})
            ops.start()
            with maintained(maintainers, wanted=settings.lake.maintain), retention:
                pump.run()
        finally:
            well = ops.stop()
            heart.close()
    return 0 if well else 1


def _opened(settings: Settings, runtime: Runtime) -> Catalog:
    """The catalog, with all tables of the lake."""
    with ExitStack() as failing:
        catalog = failing.enter_context(closing(open_catalog(settings, runtime.clock)))
        ensure_lake(catalog)
        failing.pop_all()
    return catalog


def _maintainers(
    settings: Settings,
    runtime: Runtime,
    catalog: TableCatalog,
    committer: Committer,
    ops: OpsTables,
    paused: Callable[[], bool],
) -> list[Maintainer]:
    """One for each table that this process writes."""
    trades = maintainer_of(
        settings, runtime, catalog, TradeStore(), excluding=committer.excluded, paused=paused
    )
    return [trades, *ops.maintainers(settings, paused)]


@contextmanager
def _refusal_told(runtime: Runtime, heartbeats: CompactedTopic) -> Iterator[None]:
    """Tell by a last beat why the lake refused what is stored."""
    try:
        yield
    except Data as refusal:
        told = {"reason": refusal.reason, "message": refusal.message}
        _heart(runtime, heartbeats, lambda: Sample(counters=told, state=REFUSED)).beat()
        raise


def _heart(runtime: Runtime, heartbeats: CompactedTopic, sample: Callable[[], Sample]) -> Heart:
    return Heart(
        board=heartbeats,
        clock=runtime.clock,
        process=PROCESS,
        run_id=runtime.run_id,
        addresses={},
        sample=progress_told(sample, "commits", runtime),
    )


def sampler(
    settings: Settings,
    clock: Clock,
    stats: Callable[[], WriterStats],
    more: Callable[[], Mapping[str, Any]],
) -> Callable[[], Sample]:
    """What the writer's heart says: its lag, its last commit, and what was done."""
    lake = settings.lake
    ours = scales(commit_interval_s=lake.commit_interval_s, commit_bytes_max=lake.commit_bytes_max)

    def sample() -> Sample:
        now = stats()
        signals = process_signals(settings.data_dir) | {
            Signal.WRITER_LAG_S: now.lag_s(clock.monotonic_s()),
            Signal.COMMIT_LATENCY_S: now.commit_latency_s,
        }
        counters = {
            "commits": now.commits,
            "rows": now.rows,
            "duplicates": now.duplicates,
            "dead": now.dead,
            "fenced": now.fenced,
            "failures": now.failures,
            "pending_rows": now.pending_rows,
            "positions": now.positions.encode() if now.positions else "",
            "snapshot_id": str(now.snapshot_id or ""),
            "committed_at_us": now.committed_at_us or 0,
            "alerts": [f"partition {p} waits: {why}" for p, why in sorted(now.waiting.items())],
            **more(),
        }
        return Sample(signals=signals, counters=counters, scales=ours)

    return sample


def _counters(stats: MaintainStats, ops: OpsTables, partitions: CompactedTopic) -> dict[str, Any]:
    """What the heart says beside the pump's numbers."""
    placements = {"placements_skipped": partitions.skipped}
    return {**maintenance_counters(stats), **ops.counters(), **placements}


def maintenance_counters(stats: MaintainStats) -> dict[str, Any]:
    """What maintenance has done for all tables, as the heart tells it."""
    return {f"maintain_{name}": count for name, count in asdict(stats).items()}


def _tape(
    settings: Settings,
    runtime: Runtime,
    catalog: TableCatalog,
    clients: TapeClients,
) -> WriterTape | None:
    """The tape as a writer reads it; None when stopped before it answered. See `_begin`."""
    facts = runtime.patiently(lambda: clients.admin.facts(settings.tape.topic))
    if facts is None:
        return None
    placement = clients.partition_map(facts.topic_id)
    identity = _begin(settings, runtime, catalog, clients.admin, facts, placement)
    if identity is None:
        return None
    return _tape_end(settings, identity, clients, placement)


def _begin(
    settings: Settings,
    runtime: Runtime,
    catalog: TableCatalog,
    admin: TapeAdmin,
    facts: TopicDescription,
    placement: PartitionMap,
) -> TapeIdentity | None:
    """The tape, in the epoch that goes on or begins with it; None when stopped before that.

    Raises:
        Data: the tape does not fit the lake; the reason says how.
    """
    tries = itertools.count(1)
    there = AvailableTape(
        facts=lambda: admin.facts(settings.tape.topic),
        marks=partial(read_marks, partial(TapeReader.assigned, settings.tape)),
        partition_of=placement.place,
        on_carry_over=partial(_tell_lost, settings, runtime),
    )

    def begin() -> StartedEpoch:
        commit_id = f"{runtime.run_id}-epoch-{next(tries)}"
        return begin_epoch(catalog, runtime.clock, there, commit_id)

    begun = runtime.patiently(begin)
    if begun is None:
        return None
    if begun.adopted:
        level = logging.WARNING if begun.epoch else logging.INFO
        _log.log(level, "epoch %d of the tape begins", begun.epoch, extra={"topic": facts.topic_id})
    return identity_of(facts, begun.epoch)


def _tell_lost(settings: Settings, runtime: Runtime, states: Mapping[int, FoldState]) -> None:
    """Put what an ended epoch lost, as far as it was said to be there, into the ledger."""
    with TapeClients.open(settings, runtime.clock, runtime.stopping.wait) as clients:
        promises = read_coverage(clients.topic(topics.COVERAGE))
        promised = {one: hull(of.values()) for one, of in promises.items()}
        told = fold_all(clients.gap_log.advance())
        who, now_us = f"lake:{runtime.run_id}", runtime.clock.now_us()
        lost = lost_ids(states, promised, told, now_us, who)
        if lost:
            clients.gap_log.publish(lost)
            _log.warning("%d stretches of trades were lost with the epoch", len(lost))


def _tape_end(
    settings: Settings, identity: TapeIdentity, clients: TapeClients, placement: PartitionMap
) -> WriterTape:
    def join(on_assign: OnAssign, on_revoke: OnRevoke) -> BatchReader:
        group = f"{GROUP}.{settings.tape.topic}"
        return TapeReader.joined(settings.tape, group, INSTANCE, on_assign, on_revoke)

    admin = clients.admin
    return WriterTape(
        identity=identity,
        join=join,
        facts=lambda: admin.facts(settings.tape.topic, patient=False),  # the pump tries again
        decoder=Decoder(clients.schemas),
        placement=placement,
        letters=clients.dead_letters,
    )
