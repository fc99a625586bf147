"""What the dead letters' service is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from k2.clock import Clock
from k2.lake.commit.event_files import view_of
from k2.lake.dead_letters.letter_list import LetterReader
from k2.lake.dead_letters.replay import Replayer, ReplayParts
from k2.lake.dead_letters.superseded import SupersededLetters
from k2.lake.iceberg.catalog import Catalog
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT
from k2.market import schema
from k2.market.instrument import Instrument
from k2.settings import Settings
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder
from k2.tape.tape_clients import TapeClients
from servers.services.dead_letter_service import DeadLetterService


class _AskedPartitionMap:
    """The partition map of the trades topic, which is asked for its id at the first use."""

    def __init__(self, clients: TapeClients) -> None:
        self._map = cache(clients.partition_map)

    def refresh_for(self, instruments: Iterable[Instrument]) -> Mapping[Instrument, int]:
        """See `PartitionMap`; also raises what asking the tape raises."""
        return self._map().refresh_for(instruments)


def dead_letter_service(
    settings: Settings, clock: Clock, catalog: Catalog, clients: TapeClients
) -> DeadLetterService:
    """Make the service; nothing is asked of tape or registry before a call is."""
    letters = LetterReader(
        view=lambda: view_of(catalog, DEAD_LETTERS_LAYOUT),
        posted=clients.dead_letters.read_posted,
        superseded=SupersededLetters(catalog).among,
    )
    replayer = Replayer(
        ReplayParts(
            letters=letters,
            decoder=Decoder(clients.schemas),
            placement=_AskedPartitionMap(clients),
            sender=clients.producer,
            schema_id=lambda: clients.schemas.register(
                topics.subject(settings.tape.topic), schema.avro_schema(schema.TRADE)
            ),
            replays=clients.topic(topics.REPLAYS),
        ),
        clock,
    )
    return DeadLetterService(letters=letters, replayer=replayer)
