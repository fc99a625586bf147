"""What a dead-letter service is made of, on fakes: letters, a trades topic, a registry."""

from k2.lake.commit.event_files import view_of
from k2.lake.dead_letters.letter_list import LetterReader
from k2.lake.dead_letters.replay import Replayer, ReplayParts
from k2.lake.dead_letters.superseded import SupersededLetters
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT
from k2.market.events import Fault
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder
from k2.tape.dead_letter_topic import DeadLetter
from k2.tape.partition_map import PartitionMap
from tests.fakes.tape import FakeTape
from tests.support.lake_world import piece
from tests.support.ops_world import OpsWorld
from tests.support.trades import NOW_US
from tests.support.writer_world import BTC, SCHEMA_ID, Schemas
from tests.unit.lake.verify.test_verify_letters import posted


class Desk(OpsWorld):
    """PartitionLetters of a trades topic, and what replays them."""

    def __init__(self, folder):
        super().__init__(folder)
        self.trades = FakeTape(partitions=8)
        self.schemas = Schemas()
        self.placement = PartitionMap(self.trades.board(topics.PARTITIONS), 0, 2)
        self.home = self.placement.place(BTC)
        self.reader = LetterReader(
            view=lambda: view_of(self.catalog, DEAD_LETTERS_LAYOUT),
            posted=lambda start: [one for one in posted(self) if one.offset >= start],
            superseded=SupersededLetters(self.catalog).among,
        )
        self.replayer = Replayer(
            ReplayParts(
                letters=self.reader,
                decoder=Decoder(self.schemas),
                placement=PartitionMap(self.trades.board(topics.PARTITIONS), 0, 2),
                sender=self.trades.producer(),
                schema_id=lambda: SCHEMA_ID,
                replays=self.trades.board(topics.REPLAYS),
            ),
            self.clock,
        )

    def dead(self, value, fault=Fault.UNKNOWN_SCHEMA, offset=5):
        """Post the letter of a record; its name."""
        made = DeadLetter("trades", 0, self.home, offset, 7, fault, "is bad", NOW_US, value)
        self.post(made)
        return made.name

    def taken(self, *ids):
        """Commit these as rows, at the first places of the partition that `dead` names."""
        self.committer().commit([piece(self.home, ids)])

    @property
    def sent(self):
        """Partition, key, value and headers of what is on the trades topic."""
        return [
            (partition, *record)
            for partition, log in enumerate(self.trades.logs)
            for record in zip(log.keys, log.values, log.headers, strict=True)
        ]
