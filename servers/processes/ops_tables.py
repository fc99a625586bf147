"""Writes the ops tables, in a thread of the lake process."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from k2 import limits
from k2.lake.commit.committer import Committer, TapeIdentity
from k2.lake.commit.event_files import OpsStore, view_of
from k2.lake.iceberg.catalog import Catalog
from k2.lake.iceberg.tables import TableLayout
from k2.lake.ingest.epoch_transition import AvailableTape, begin_epoch
from k2.lake.ingest.event_rows import (
    GapRowDecoder,
    LetterRowDecoder,
    RowDecoder,
    TransitionRowDecoder,
)
from k2.lake.ingest.event_writer import EventOffsets, OpsWriter, run_ops
from k2.lake.maintenance.maintainer import Maintainer
from k2.lake.maintenance.maintenance_commit import Excluding
from k2.market.schema import GAP
from k2.metrics import exported
from k2.settings import Settings
from k2.tape import topics
from k2.tape.avro.record_codec import RecordCodec
from k2.tape.consumer import TapeReader
from k2.tape.ports import BatchReader
from k2.tape.tape_clients import TapeClients
from k2.tape.topics import TapeAdmin, TopicDescription
from k2.telemetry import Counter, Counters
from servers.processes.lake_maintenance import maintainer_of
from servers.runtime import Runtime


@dataclass(frozen=True)
class OpsCounters:
    """The counters of an ops table's writer, as `OpsStats` explains them."""

    rows: Counter
    failures: Counter
    halted: str | None


@dataclass(frozen=True)
class OpsMeasures:
    """The metrics of an ops table's writer, as `OpsStats` explains them."""

    rows: Annotated[Counter, exported("k2_ops_rows_total", "Rows of events committed.", "table")]
    commits: Annotated[Counter, exported("k2_ops_commits_total", "Commits of events.", "table")]
    failures: Annotated[
        Counter,
        exported("k2_ops_failures_total", "Times that pending events were read again.", "table"),
    ]


class OpsTables:
    """Writes the tables of `OPS_LAYOUTS` from `start` until the process stops.

    Args:
        settings, runtime: of the process.
        catalog, clients: shared with the trades' writer; the tables exist.
    """

    def __init__(
        self, settings: Settings, runtime: Runtime, catalog: Catalog, clients: TapeClients
    ) -> None:
        self._runtime = runtime
        self._catalog = catalog
        codec = RecordCodec(GAP, clients.schemas)
        decoders: dict[str, RowDecoder] = {
            topics.GAPS: GapRowDecoder(topics.GAPS, codec, clients.dead_letters, runtime.clock),
            topics.DEAD_LETTERS: LetterRowDecoder(topics.DEAD_LETTERS, runtime.clock),
            topics.TRANSITIONS: TransitionRowDecoder(
                topics.TRANSITIONS, clients.dead_letters, runtime.clock
            ),
        }
        self._writers = {
            decoder.layout.name: OpsWriter(
                _ends(topic, decoder, settings, runtime, catalog, clients.admin),
                settings.lake.commit_interval_s,
                runtime.clock,
            )
            for topic, decoder in decoders.items()
        }
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="ops", daemon=True)

    def start(self) -> None:
        """Begin to write; returns at once."""
        self._failed = True  # until the thread has ended well
        self._thread.start()

    def stop(self) -> bool:
        """Have what is there committed, within `limits.DRAIN_S`; whether there was no defect."""
        self._runtime.stopping.set()
        if self._thread.is_alive():
            self._thread.join(limits.DRAIN_S)
        return self._thread.is_alive() or not self._failed

    def maintainers(self, settings: Settings, paused: Callable[[], bool]) -> list[Maintainer]:
        """Make a maintainer of each table, which waits while the table's writer commits."""
        return [
            maintainer_of(
                settings,
                self._runtime,
                self._catalog,
                OpsStore(writer.layout),
                excluding=self.excluding(writer.layout),
                paused=paused,
            )
            for writer in self._writers.values()
        ]

    def excluding(self, layout: TableLayout) -> Excluding:
        """Return the lock that keeps the writer of a table from committing."""
        return self._writers[layout.name].excluded

    def count(self, counters: Counters, measures: Counters) -> None:
        """Add what was done for each table to the counters, and to what only a scrape counts."""
        for name, writer in self._writers.items():
            counters.add(partial(_counted, writer), f"{name}.")
            measures.add(partial(_measured, writer), labels=(name,))

    def _run(self) -> None:
        try:
            run_ops(list(self._writers.values()), self._runtime.stopping)
            self._failed = False
        finally:  # a defect ends the process, as one of the trades' writer does
            self._runtime.stopping.set()


def _counted(writer: OpsWriter) -> OpsCounters:
    stats = writer.stats
    return OpsCounters(stats.rows, stats.failures, stats.halted or None)


def _measured(writer: OpsWriter) -> OpsMeasures:
    stats = writer.stats
    return OpsMeasures(stats.rows, stats.commits, stats.failures)


def _ends(
    topic: str,
    decoder: RowDecoder,
    settings: Settings,
    runtime: Runtime,
    catalog: Catalog,
    admin: TapeAdmin,
) -> EventOffsets:
    def committer(identity: TapeIdentity) -> Committer:
        return Committer(
            catalog=catalog,
            clock=runtime.clock,
            tape=identity,
            writer_id=runtime.run_id,
            store=OpsStore(decoder.layout),
        )

    tries = itertools.count(1)

    def facts() -> TopicDescription:
        return admin.facts(topic)

    def epoch() -> int:
        there = AvailableTape(
            facts, marks=lambda _: {}, partition_of=lambda _: 0, on_carry_over=lambda _: None
        )
        commit_id = f"{runtime.run_id}-{decoder.layout.name}-{next(tries)}"
        store = OpsStore(decoder.layout)
        return begin_epoch(catalog, runtime.clock, there, commit_id, store).epoch

    def read_from(start: int) -> BatchReader:
        return TapeReader.of_log(settings.tape, topic, start)

    return EventOffsets(
        facts=facts,
        epoch=epoch,
        read_from=read_from,
        committer=committer,
        view=lambda: view_of(catalog, decoder.layout),
        decoder=decoder,
    )
