"""Runs the lake writer: tape → Iceberg, with maintenance and retention beside it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import cache, partial
from operator import attrgetter
from threading import Event
from typing import Annotated

from k2.clock import Clock
from k2.degrade.signals import Scale, Signal, scales
from k2.errors import Unavailable
from k2.feed.publish.coverage_topic import coverage_in, read_coverage
from k2.lake.commit.committer import Committer, Store, TapeIdentity, TradeStore
from k2.lake.commit.event_files import OpsStore
from k2.lake.commit.snapshot_commit import TableCatalog
from k2.lake.iceberg.catalog import Catalog, open_catalog
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT, ensure_lake
from k2.lake.ingest.deferral import DeferralLedger, DeferralSources
from k2.lake.ingest.epoch_transition import AvailableTape, StartedEpoch, begin_epoch, lost_ids
from k2.lake.ingest.reading_order import Backlog, Orders
from k2.lake.ingest.tape_check import WriterTape, identity_of
from k2.lake.ingest.trade_writer import LakeWriter, WriterStats
from k2.lake.maintenance.maintainer import Maintainer
from k2.lake.maintenance.maintenance_commit import Excluding, MaintenanceCommitter
from k2.lake.maintenance.retention import Retention
from k2.market.coverage import Coverage, hull
from k2.market.fold import FoldState
from k2.market.instrument import Instrument, Priorities, Tier
from k2.market.ledger import LAKE, fold_all
from k2.metrics import exported
from k2.settings import Settings
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder
from k2.tape.consumer import OnAssign, OnRevoke, TapeReader
from k2.tape.partition_map import PartitionMap
from k2.tape.ports import BatchReader, Placement
from k2.tape.retention_watch import TapeWatch
from k2.tape.tape_clients import TapeClients
from k2.tape.topics import TapeAdmin, TopicDescription
from k2.tape.truncation_check import read_marks
from k2.telemetry import Counter, Counters, Gauge
from servers.process import Process
from servers.processes.lake_maintenance import beside, maintainer_of, stats_of
from servers.processes.lake_measures import measure_lake
from servers.processes.ops_tables import OpsTables
from servers.runtime import Runtime

GROUP = "k2-lake"  # and the topic: a static member is given what it had, of whatever topic
INSTANCE = "k2-lake-0"  # one writer a stack; a restarted one takes the place of the one before

_log = logging.getLogger(__name__)


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Write the lake until stopped, then commit what is there.

    Raises:
        Data: the tape does not fit the lake; the reason says how.
    """
    with Process.running("lake", settings, runtime) as process:
        clients = process.clients
        catalog = runtime.retry_until_stopped(lambda: _opened(settings, runtime))
        if catalog is None:
            return 0
        process.ending.callback(catalog.close)
        tape = _tape(settings, runtime, catalog, clients)
        if tape is None:
            return 0
        committer = Committer(
            catalog=catalog, clock=runtime.clock, tape=tape.identity, writer_id=runtime.run_id
        )
        ops = OpsTables(settings, runtime, catalog, clients)
        writer = LakeWriter(
            tape=tape,
            committer=committer,
            settings=settings.lake,
            clock=runtime.clock,
            stopping=runtime.stopping,
            orders=Orders(lambda: process.levels, lambda: watch.endangered, lambda: deferral.left),
        )
        maintainers = _maintainers(
            settings, runtime, catalog, committer, ops, lambda: not process.levels.policy.maintains
        )
        retainers = retainers_of(settings, runtime, catalog, committer, ops)
        watch = tape_watch_of(settings, runtime, clients.admin, writer)
        deferral = deferral_of(runtime, clients, writer, tape.placement)
        placed = clients.topic(topics.PARTITIONS)
        process.counters.add(lambda: writer_counters(writer.stats, watch.alerts, placed.skipped))
        process.counters.add(lambda: writer.backlog.counters(runtime.clock.monotonic_s()))
        process.counters.add(lambda: stats_of(maintainers), "maintain_")
        process.counters.add(lambda: PlacementCounters(placed.skipped))
        process.measures.add(lambda: measure_lake(committer, watch.margin_s))
        ops.count(process.counters, process.measures)
        count_retained(retainers, process.counters)
        process.scales = writer_scales(settings)
        process.start({}, lambda: writer_signals(writer.stats, writer.backlog, runtime.clock))
        process.serve()
        try:
            ops.start()
            maintained = maintainers if settings.lake.maintain else ()
            with (
                beside({f"maintain {one.table}": one.run for one in maintained}),
                beside({**retention_runs(retainers, watch), "deferral": deferral.run}),
            ):
                writer.run()
        finally:
            well = ops.stop()
    return 0 if well else 1


def _opened(settings: Settings, runtime: Runtime) -> Catalog:
    """Open the catalog, and create the lake's tables that do not exist."""
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


def retainers_of(
    settings: Settings,
    runtime: Runtime,
    catalog: TableCatalog,
    committer: Committer,
    ops: OpsTables,
) -> dict[str, Retention]:
    """Make the retention of trades and dead letters, by what leads the names of their counters.

    Each has a budget of its own and waits while the writer commits. Gap events are kept: they are
    small, and a gap that is OPEN may be as old as the lake.
    """

    def retainer(store: Store, excluding: Excluding, bytes_max: int) -> Retention:
        replacer = MaintenanceCommitter(
            catalog=catalog,
            clock=runtime.clock,
            maintainer_id=f"{runtime.run_id}-retain",
            excluding=excluding,
            store=store,
        )
        return Retention(
            replacer=replacer, clock=runtime.clock, settings=settings.lake, bytes_max=bytes_max
        )

    letters = OpsStore(DEAD_LETTERS_LAYOUT)
    return {
        "": retainer(TradeStore(), committer.excluded, settings.lake.bytes_max),
        f"{letters.layout.name}.": retainer(
            letters, ops.excluding(letters.layout), settings.lake.letters_bytes_max
        ),
    }


def tape_watch_of(
    settings: Settings, runtime: Runtime, admin: TapeAdmin, writer: LakeWriter
) -> TapeWatch:
    """Make the watch over the retention of the tape that `writer` reads."""
    topic = settings.tape.topic
    facts = cache(lambda: admin.facts(topic))  # what changes of them is asked for each time

    def offsets_since(time_us: int) -> tuple[int, ...]:
        return admin.offsets_since(topic, facts().partitions, time_us)

    return TapeWatch(
        facts=lambda: admin.bounds(facts()),
        offsets_since=offsets_since,
        positions=lambda: writer.stats.positions,
        clock=runtime.clock,
        settings=settings.tape,
    )


def deferral_of(
    runtime: Runtime, clients: TapeClients, writer: LakeWriter, placement: Placement
) -> DeferralLedger:
    """Make what shows in the ledger what `writer` defers."""
    promises = clients.topic(topics.COVERAGE)
    promises.start()

    def covered() -> dict[Instrument, Coverage]:
        by_feed = coverage_in(promises.current_to_end())
        return {instrument: hull(each.values()) for instrument, each in by_feed.items()}

    def placed() -> Mapping[Instrument, int]:
        return placement.refresh_for(())  # as last read

    sources = DeferralSources(lambda: writer.backlog, placed, covered, clients.gap_log)
    return DeferralLedger(sources, runtime.clock, f"{LAKE}{runtime.run_id}")


def count_retained(retainers: Mapping[str, Retention], counters: Counters) -> None:
    """Add what was removed of each table to the counters."""
    for lead, retention in retainers.items():
        counters.add(partial(attrgetter("stats"), retention), f"{lead}retain_")


def retention_runs(
    retainers: Mapping[str, Retention], watch: TapeWatch
) -> dict[str, Callable[[Event], None]]:
    """Name the lake's retention and the watch over the tape, each run until its event is set."""
    retaining = {f"retention {one.table}": one.run for one in retainers.values()}
    return {**retaining, "tape watch": watch.run}


@dataclass(frozen=True)
class WriterCounters:
    """The writer's counters, as `WriterStats` explains them."""

    commits: Annotated[Counter, exported("k2_lake_commits_total", "Commits of trades.")]
    rows: Annotated[Counter, exported("k2_lake_rows_total", "Rows of trades committed.")]
    duplicates: Annotated[
        Counter,
        exported("k2_lake_duplicate_records", "Duplicates at the newest snapshot, of this epoch."),
    ]
    dead: Annotated[
        Counter,
        exported("k2_lake_dead_records", "Dead records at the newest snapshot, of this epoch."),
    ]
    fenced: Annotated[
        Counter, exported("k2_lake_fenced_total", "Pieces that another writer committed first.")
    ]
    failures: Annotated[
        Counter, exported("k2_lake_commit_failures_total", "Commits that did not reach the lake.")
    ]
    pending_rows: Annotated[
        Gauge, exported("k2_lake_pending_rows", "Rows accepted and not yet committed.")
    ]
    positions: str
    snapshot_id: str
    committed_at_us: int
    alerts: list[str]


@dataclass(frozen=True)
class PlacementCounters:
    """Records of the partition map that no reader can use."""

    placements_skipped: Counter


def writer_counters(
    stats: WriterStats, alerts: Sequence[str], placements_skipped: int = 0
) -> WriterCounters:
    """Count what the writer has done; `alerts` of others follow its own."""
    said = [f"partition {number} waits: {why}" for number, why in sorted(stats.waiting.items())]
    said += alerts
    if placements_skipped:
        skipped = f"{placements_skipped} records are no placements and are skipped"
        said.append(f"{topics.PARTITIONS}: {skipped}")
    return WriterCounters(
        commits=stats.commits,
        rows=stats.rows,
        duplicates=stats.duplicates,
        dead=stats.dead,
        fenced=stats.fenced,
        failures=stats.failures,
        pending_rows=stats.pending_rows,
        positions=stats.positions.encode() if stats.positions else "",
        snapshot_id=str(stats.snapshot_id or ""),
        committed_at_us=stats.committed_at_us or 0,
        alerts=said,
    )


def writer_signals(stats: WriterStats, backlog: Backlog, clock: Clock) -> dict[str, float | None]:
    """Read the writer's lag and the latency of its last commit."""
    now_s = clock.monotonic_s()
    return {
        Signal.WRITER_LAG_S: stats.lag_s(now_s),
        Signal.BACKLOG_AGE_S: backlog.found_age_s(now_s),
        Signal.COMMIT_LATENCY_S: stats.commit_latency_s,
    }


def writer_scales(settings: Settings) -> dict[str, Scale]:
    """Scale the signals by how often and how much this lake commits."""
    lake = settings.lake
    return scales(commit_interval_s=lake.commit_interval_s, commit_bytes_max=lake.commit_bytes_max)


def _tape(
    settings: Settings,
    runtime: Runtime,
    catalog: TableCatalog,
    clients: TapeClients,
) -> WriterTape | None:
    """Open the tape for the writer; None when stopped before it answered."""
    facts = runtime.retry_until_stopped(lambda: clients.admin.facts(settings.tape.topic))
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
    """Continue the lake's epoch of the tape or begin one; None when stopped before that.

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

    begun = runtime.retry_until_stopped(begin)
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
        promised = {instrument: hull(by_feed.values()) for instrument, by_feed in promises.items()}
        ledger = fold_all(clients.gap_log.advance())
        who, now_us = f"{LAKE}{runtime.run_id}", runtime.clock.now_us()
        lost = lost_ids(states, promised, ledger, now_us, who)
        if lost:
            clients.gap_log.publish(lost)
            _log.warning("%d stretches of trades were lost with the epoch", len(lost))


def _tape_end(
    settings: Settings, identity: TapeIdentity, clients: TapeClients, placement: PartitionMap
) -> WriterTape:
    def join(on_assign: OnAssign, on_revoke: OnRevoke) -> BatchReader:
        group = f"{GROUP}.{settings.tape.topic}"
        return TapeReader.joined(settings.tape, group, INSTANCE, on_assign, on_revoke)

    admin, priorities = clients.admin, Priorities(settings.symbols.priority)

    def tiers() -> tuple[Tier, ...]:
        with suppress(Unavailable):  # then by what is known
            placement.refresh()
        return priorities.of_partitions(placement.known(), settings.tape.partitions_per_tier)

    return WriterTape(
        identity=identity,
        join=join,
        facts=lambda: admin.facts(settings.tape.topic, patient=False),  # the pump tries again
        ends=lambda: admin.log_ends(settings.tape.topic, identity.partitions),
        tiers=tiers,
        decoder=Decoder(clients.schemas),
        placement=placement,
        letters=clients.dead_letters,
    )
