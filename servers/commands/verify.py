"""`k2 verify`: tells whether tape, lake, dead letters and published state agree."""

from __future__ import annotations

from k2 import limits
from k2.clock import Clock
from k2.lake.commit.event_files import view_of
from k2.lake.iceberg.catalog import open_catalog
from k2.lake.iceberg.snapshot import SnapshotReader
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT, ensure_tables
from k2.lake.ingest.tape_check import identity_of
from k2.lake.verify.verification import Progress, VerifySources, verify
from k2.lake.verify.verify_letters import LetterWitnesses
from k2.settings import Settings
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.consumer import TapeReader
from k2.tape.dead_letter_topic import DeadLetterTopic
from k2.tape.gap_topic import GapLog
from k2.tape.partition_map import PartitionMap
from k2.tape.topics import TapeAdmin
from servers.processes.schemas import open_schemas
from servers.runtime import Interrupted, Runtime


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Verify; progress and the report as JSON lines. 1 for loss, doubling or disagreement.

    It only reads, so it stops wherever it is asked to.
    """
    bootstrap = settings.tape.bootstrap
    admin, partitions = TapeAdmin(bootstrap), CompactedTopic(bootstrap, topics.PARTITIONS)
    letters = DeadLetterTopic(bootstrap)
    schemas = open_schemas(settings, runtime)
    gaps = GapLog(bootstrap, schemas)
    catalog = open_catalog(settings, runtime.clock)
    try:
        with runtime.interruptible():
            facts = admin.facts(settings.tape.topic)
            snapshots = SnapshotReader(catalog)
            newest = snapshots.current()
            witnesses = VerifySources(
                snapshots=snapshots,
                io=ensure_tables(catalog).io,
                identity=identity_of(facts, newest.positions.epoch if newest else 0),
                facts=lambda: admin.facts(settings.tape.topic),
                replay=lambda start: TapeReader.assigned(settings.tape, start),
                decoder=Decoder(schemas),
                placement=PartitionMap(
                    partitions, facts.topic_id, settings.tape.partitions_per_tier
                ),
                letters=letters.read_all,
                table=LetterWitnesses(
                    view=lambda: view_of(catalog, DEAD_LETTERS_LAYOUT), posted=letters.read_posted
                ),
                gaps=gaps.advance,
            )
            document = verify(witnesses, runtime.clock, paced(runtime))
    finally:
        for part in (gaps, letters, partitions, admin, catalog):
            part.close()
    runtime.emit("result", **document)
    return 0 if document["ok"] else 1


def paced(runtime: Runtime) -> Progress:
    """Prints progress, a few times a second at most."""
    clock: Clock = runtime.clock
    last_s = -limits.VERIFY_PROGRESS_INTERVAL_S

    def progress(message: str, done: int, total: int) -> None:
        nonlocal last_s
        if runtime.interrupting.is_set() and runtime.stopping.is_set():
            raise Interrupted  # what is raised inside a finalizer is lost
        if clock.monotonic_s() - last_s >= limits.VERIFY_PROGRESS_INTERVAL_S:
            last_s = clock.monotonic_s()
            runtime.emit("progress", message=message, done=done, total=total)

    return progress
