"""What the dead letters' service is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager

from k2.lake.commit.event_files import view_of
from k2.lake.dead_letters.letter_list import LetterReader
from k2.lake.dead_letters.replay import Replayer, ReplayParts
from k2.lake.dead_letters.superseded import Overruled
from k2.lake.iceberg.catalog import Catalog
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT
from k2.market import schema
from k2.market.instrument import Instrument
from k2.settings import Settings, TapeSettings
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.dead_letter_topic import DeadLetterTopic
from k2.tape.partition_map import PartitionMap
from k2.tape.producer import TapeProducer
from servers.processes.schemas import open_schemas
from servers.runtime import Runtime
from servers.services.dead_letter_service import DeadLetterService


class PlacementAsked:
    """The partition map of the trades topic, which is asked for its id at the first use."""

    def __init__(self, board: CompactedTopic, tape: TapeSettings) -> None:
        self._board = board
        self._tape = tape
        self._made: PartitionMap | None = None

    def covering(self, instruments: Iterable[Instrument]) -> Mapping[Instrument, int]:
        """See `PartitionMap`; also raises what asking the tape raises."""
        if self._made is None:
            topic_id = topics.topic_id(self._tape)
            self._made = PartitionMap(self._board, topic_id, self._tape.partitions_per_tier)
        return self._made.covering(instruments)


@contextmanager
def dead_letter_service(
    settings: Settings, runtime: Runtime, catalog: Catalog
) -> Iterator[DeadLetterService]:
    """The service while the block lasts; nothing is asked of tape or registry before a call is."""
    tape = settings.tape
    schemas = open_schemas(settings, runtime)
    with ExitStack() as parts:
        office = parts.enter_context(closing(DeadLetterTopic(tape.bootstrap)))
        partitions = parts.enter_context(closing(CompactedTopic(tape.bootstrap, topics.PARTITIONS)))
        replays = parts.enter_context(closing(CompactedTopic(tape.bootstrap, topics.REPLAYS)))
        sender = parts.enter_context(closing(TapeProducer(tape)))
        letters = LetterReader(
            view=lambda: view_of(catalog, DEAD_LETTERS_LAYOUT),
            posted=office.read_posted,
            overruled=Overruled(catalog).among,
        )
        replayer = Replayer(
            ReplayParts(
                letters=letters,
                decoder=Decoder(schemas),
                placement=PlacementAsked(partitions, tape),
                sender=sender,
                schema_id=lambda: schemas.register(
                    topics.subject(tape.topic), schema.avro_schema(schema.TRADE)
                ),
                replays=replays,
            ),
            runtime.clock,
        )
        yield DeadLetterService(letters=letters, replayer=replayer)
