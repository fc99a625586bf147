"""`python -m servers verify`: checks that tape, lake, dead letters and published state agree."""

from __future__ import annotations

from contextlib import closing

from k2.lake.commit.event_files import view_of
from k2.lake.iceberg.catalog import Catalog, open_catalog
from k2.lake.iceberg.snapshot import SnapshotReader
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT, ensure_tables
from k2.lake.ingest.tape_check import identity_of
from k2.lake.verify.verification import VerifySources, verify
from k2.lake.verify.verify_letters import LetterSources
from k2.settings import Settings
from k2.tape.avro.trade_codec import Decoder
from k2.tape.consumer import TapeReader
from k2.tape.tape_clients import TapeClients
from servers.runtime import Runtime


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Verify; progress and the report as JSON lines. 1 for loss, doubling or disagreement.

    It only reads, so it stops wherever it is asked to.
    """
    with (
        closing(open_catalog(settings, runtime.clock)) as catalog,
        TapeClients.open(settings, runtime.clock, runtime.stopping.wait) as clients,
        runtime.interruptible(),
    ):
        sources = _sources(settings, catalog, clients)
        document = verify(sources, runtime.clock, runtime.progress())
    runtime.emit("result", **document)
    return 0 if document["ok"] else 1


def _sources(settings: Settings, catalog: Catalog, clients: TapeClients) -> VerifySources:
    topic, letters = settings.tape.topic, clients.dead_letters
    facts = clients.admin.facts(topic)
    snapshots = SnapshotReader(catalog)
    newest = snapshots.current()
    return VerifySources(
        snapshots=snapshots,
        io=ensure_tables(catalog).io,
        identity=identity_of(facts, newest.positions.epoch if newest else 0),
        facts=lambda: clients.admin.facts(topic),
        replay=lambda start: TapeReader.assigned(settings.tape, start),
        decoder=Decoder(clients.schemas),
        placement=clients.partition_map(facts.topic_id),
        letters=letters.read_all,
        table=LetterSources(
            view=lambda: view_of(catalog, DEAD_LETTERS_LAYOUT), posted=letters.read_posted
        ),
        gaps=clients.gap_log.advance,
    )
