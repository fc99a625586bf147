"""Applies the lake's retention and watches the tape's, in threads of the lake process.

Trades and dead letters are held to it, each to a budget of its own. Gap events are not: they are
small, and a gap that is OPEN may be as old as the lake.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Self

from k2 import limits
from k2.lake.commit.committer import Committer, Store, TradeStore
from k2.lake.commit.event_files import OpsStore
from k2.lake.commit.snapshot_commit import TableCatalog
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT
from k2.lake.ingest.trade_writer import LakeWriter
from k2.lake.maintenance.maintenance_commit import Excluding, MaintenanceCommitter
from k2.lake.maintenance.retention import Retention
from k2.settings import Settings
from k2.tape.retention_watch import TapeWatch
from k2.tape.topics import TapeAdmin
from k2.telemetry import Counters
from servers.processes.ops_tables import OpsTables
from servers.runtime import Runtime


class LakeRetention:
    """Runs retention and the watch over the tape, in threads, while the `with` block runs.

    Args:
        retainers: by what leads the names of their counters.
        watch: of the tape.
    """

    def __init__(self, retainers: Mapping[str, Retention], watch: TapeWatch) -> None:
        self._retainers = retainers
        self._watch = watch
        self._stopping = threading.Event()
        runs = {f"retention {retention.table}": retention.run for retention in retainers.values()}
        self._threads = [
            threading.Thread(target=run, args=(self._stopping,), name=name, daemon=True)
            for name, run in (runs | {"tape watch": watch.run}).items()
        ]

    @property
    def alerts(self) -> Sequence[str]:
        """The findings of the watch over the tape."""
        return self._watch.alerts

    def count(self, counters: Counters) -> None:
        """Add what was removed of each table to the counters."""
        for lead, retention in self._retainers.items():
            counters.add(lambda one=retention: one.stats, f"{lead}retain_")  # type: ignore[misc]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(limits.DRAIN_S / len(self._threads))  # a broker that is away holds it up


def retainers_of(
    settings: Settings,
    runtime: Runtime,
    catalog: TableCatalog,
    committer: Committer,
    ops: OpsTables,
) -> dict[str, Retention]:
    """Make the retention of trades and dead letters, which waits while the writer commits."""

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
