"""The lake writer's process: tape → Iceberg, one writer per group member."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import Any

from k2.clock import Clock
from k2.degrade.level import Level
from k2.degrade.signals import SCALES, Signal
from k2.errors import Unavailable
from k2.lake.catalog import open_catalog
from k2.lake.commit import Committer, TapeIdentity
from k2.lake.intake import Reader, TapeEnd
from k2.lake.maintain import MaintainStats
from k2.lake.pump import Pump, PumpStats
from k2.lake.tables import ensure_tables
from k2.settings import Settings
from k2.tape import topics
from k2.tape.board import Board
from k2.tape.codec import Decoder
from k2.tape.consumer import OnAssign, OnRevoke, TapeReader
from k2.tape.dead_letters import DeadLetterOffice
from k2.tape.placement import Placement
from k2.tape.registry import SchemaStore
from k2.tape.topics import TapeAdmin, TapeFacts
from servers.heartbeat import Heart, Sample, process_signals
from servers.runtime import Runtime
from servers.wiring.maintain import maintained, maintainer_of
from servers.wiring.ops import OpsTables
from servers.wiring.retention import retention_of

PROCESS = "lake"
GROUP = "k2-lake"
INSTANCE = "k2-lake-0"  # one writer a stack; a restarted one takes the place of the one before
_WAIT_S = 0.5

_log = logging.getLogger(__name__)


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Write the lake until stopped, then commit what is there.

    Raises:
        Data: the tape does not fit the lake; the reason says how.
    """
    with ExitStack() as parts:
        bootstrap = settings.tape.bootstrap
        admin = parts.enter_context(closing(TapeAdmin(bootstrap)))
        partitions = parts.enter_context(closing(Board(bootstrap, topics.PARTITIONS)))
        heartbeats = parts.enter_context(closing(Board(bootstrap, topics.HEARTBEATS)))
        letters = parts.enter_context(closing(DeadLetterOffice(bootstrap)))
        identity = _identity(admin, settings, runtime)
        if identity is None:
            return 0
        catalog = parts.enter_context(closing(open_catalog(settings)))
        ensure_tables(catalog)
        committer = Committer(
            catalog=catalog, clock=runtime.clock, tape=identity, writer_id=runtime.run_id
        )
        ops = OpsTables(settings, runtime, catalog, admin, letters)
        pump = Pump(
            tape=_tape_end(settings, identity, admin, partitions, letters),
            committer=committer,
            settings=settings.lake,
            clock=runtime.clock,
            stopping=runtime.stopping,
        )
        maintainer = maintainer_of(
            settings,
            runtime,
            catalog,
            excluding=committer.excluded,
            paused=lambda: heart.level >= Level.SOFT,
        )
        retention = retention_of(settings, runtime, catalog, committer, admin, pump)
        sample = sampler(
            settings,
            runtime.clock,
            lambda: pump.stats,
            lambda: {**maintenance_counters(maintainer.stats), **ops.counters()},
        )
        heart = _heart(runtime, heartbeats, retention.told(sample))
        heart.start()
        try:
            runtime.emit("serving", addresses={})
            ops.start()
            with maintained(maintainer, wanted=settings.lake.maintain), retention:
                pump.run()
        finally:
            well = ops.stop()
            heart.close()
    return 0 if well else 1


def _heart(runtime: Runtime, heartbeats: Board, sample: Callable[[], Sample]) -> Heart:
    return Heart(
        board=heartbeats,
        clock=runtime.clock,
        process=PROCESS,
        run_id=runtime.run_id,
        addresses={},
        sample=sample,
    )


def sampler(
    settings: Settings,
    clock: Clock,
    stats: Callable[[], PumpStats],
    more: Callable[[], Mapping[str, Any]],
) -> Callable[[], Sample]:
    """What the writer's heart says: its lag, its last commit, and what was done."""
    interval = settings.lake.commit_interval_s
    scale = SCALES[Signal.WRITER_LAG_S]
    full: dict[str, float] = {Signal.WRITER_LAG_S: max(scale.full, 30 * interval)}

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
            **more(),
        }
        return Sample(signals=signals, counters=counters, full=full)

    return sample


def maintenance_counters(stats: MaintainStats) -> dict[str, Any]:
    """What maintenance has done, as the heart tells it."""
    return {f"maintain_{name}": count for name, count in asdict(stats).items()}


def identity_of(facts: TapeFacts) -> TapeIdentity:
    """Which tape this is, as commits carry it."""
    return TapeIdentity(
        facts.topic, facts.topic_id, facts.cluster_id, topics.EPOCH, facts.partitions
    )


def _identity(admin: TapeAdmin, settings: Settings, runtime: Runtime) -> TapeIdentity | None:
    """The tape, as soon as it answers; None when stopped before that."""
    while not runtime.stopping.is_set():
        try:
            return identity_of(admin.facts(settings.tape.topic))
        except Unavailable as error:
            _log.warning("waiting for the tape: %s", error.message)
            runtime.stopping.wait(_WAIT_S)
    return None


def _tape_end(
    settings: Settings,
    identity: TapeIdentity,
    admin: TapeAdmin,
    partitions: Board,
    letters: DeadLetterOffice,
) -> TapeEnd:
    def join(on_assign: OnAssign, on_revoke: OnRevoke) -> Reader:
        return TapeReader.joined(settings.tape, GROUP, INSTANCE, on_assign, on_revoke)

    schemas = SchemaStore(settings.tape.registry_url, settings.data_dir / "schemas")
    return TapeEnd(
        identity=identity,
        join=join,
        facts=lambda: admin.facts(settings.tape.topic),
        decoder=Decoder(schemas),
        placement=Placement(partitions, topics.EPOCH, settings.tape.partitions_per_tier),
        letters=letters,
    )
