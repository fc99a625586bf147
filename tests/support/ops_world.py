"""The ops tables, the topics they are written from, and writers that may be faulty."""

from itertools import count

from k2.lake.commit.committer import Committer
from k2.lake.commit.event_files import OpsStore, view_of
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT, OPS_LAYOUTS, ensure_table
from k2.lake.ingest.epoch_transition import AvailableTape, begin_epoch
from k2.lake.ingest.event_rows import GapRowDecoder, LetterRowDecoder, TransitionRowDecoder
from k2.lake.ingest.event_writer import EventOffsets, OpsWriter
from k2.lake.maintenance.retention import Retention
from k2.market.events import Fault
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapEvent, GapState
from k2.market.schema import GAP, avro_schema
from k2.settings import LakeSettings
from k2.tape import topics
from k2.tape.avro.record_codec import RecordCodec
from k2.tape.dead_letter_topic import DeadLetter, headers_of
from tests.fakes.tape import FakeTape
from tests.support.lake_world import LakeWorld
from tests.support.trades import NOW_US

INTERVAL_S = 10.0
_tries = count()


class Schemas:
    def schema(self, schema_id):
        return {1: avro_schema(GAP)}[schema_id]


def letter(offset, topic="trades", *, partition=0, fault=Fault.TRUNCATED, value=b"\x00\xff"):
    return DeadLetter(topic, 0, partition, offset, 7, fault, "ends inside", NOW_US, value)


def gap(first, last, symbol="BTCUSDT", **changes):
    told = {"cause": Cause.DISCONNECT, "state": GapState.OPEN, "feed": "feed:1"} | changes
    instrument = Instrument("BINANCE", symbol)
    return GapEvent(instrument, first, last, NOW_US, recorded_us=NOW_US + 1, **told)


class Office:
    """A dead-letter office over a fake topic."""

    def __init__(self, tape):
        self.tape = tape

    def publish(self, letters, wait_s=10.0):
        self.tape.ask()
        for one in letters:
            headers = [(name, text.encode()) for name, text in headers_of(one).items()]
            self.tape.append(0, one.value, headers=headers)


class OpsWorld(LakeWorld):
    """Topics `letters`, `gaps`, `transitions`, fakes of one partition each, and their tables."""

    def __init__(self, folder):
        super().__init__(folder)
        for layout in OPS_LAYOUTS.values():
            ensure_table(self.catalog, layout)
        self.letters = FakeTape(topics.DEAD_LETTERS, 1)
        self.gaps = FakeTape(topics.GAPS, 1)
        self.transitions = FakeTape(topics.TRANSITIONS, 1)
        self.office = Office(self.letters)
        self.codec = RecordCodec(GAP, Schemas())
        self.opened = []

    def post(self, *letters):
        self.office.publish(letters)

    def tell(self, *events):
        self.gaps.append(0, *(self.codec.encode(event.values(), 1) for event in events))

    def letter_writer(self, writer_id="w1", catalog=None):
        decoder = LetterRowDecoder(self.letters.topic, self.clock)
        return self._writer(self.letters, decoder, writer_id, catalog)

    def gap_writer(self, writer_id="w1", catalog=None):
        intake = GapRowDecoder(self.gaps.topic, self.codec, self.office, self.clock)
        return self._writer(self.gaps, intake, writer_id, catalog)

    def transition_writer(self, writer_id="w1", catalog=None):
        intake = TransitionRowDecoder(self.transitions.topic, self.office, self.clock)
        return self._writer(self.transitions, intake, writer_id, catalog)

    def _writer(self, tape, intake, writer_id, catalog):
        catalog = catalog or self.catalog

        def committer(identity):
            return Committer(
                catalog=catalog,
                clock=self.clock,
                tape=identity,
                writer_id=writer_id,
                store=OpsStore(intake.layout),
            )

        def facts():
            return tape.admin().facts(tape.topic)

        def epoch():
            there = AvailableTape(facts, lambda _: {}, lambda _: 0, lambda _: None)
            commit_id = f"{writer_id}-epoch-{next(_tries)}"
            store = OpsStore(intake.layout)
            return begin_epoch(catalog, self.clock, there, commit_id, store).epoch

        ends = EventOffsets(
            facts=facts,
            epoch=epoch,
            read_from=lambda start: tape.reader({0: start}),
            committer=committer,
            view=lambda: view_of(self.catalog, intake.layout),
            decoder=intake,
        )
        return OpsWriter(ends, INTERVAL_S, self.clock)

    def commit(self, writer):
        """Read what is there and commit it; what became of it."""
        writer.step()
        self.clock.advance(INTERVAL_S)
        writer.step()
        return writer.stats

    def stored(self, layout=DEAD_LETTERS_LAYOUT, *columns, **given):
        """Rows of an ops table, oldest on the tape first."""
        view = view_of(self.catalog, layout)
        names = columns or [field.name for field in layout.event.fields]
        return [*view.newest(names, **given)][::-1] if view else []

    def keeper(self, layout=DEAD_LETTERS_LAYOUT, name="keeper", **given):
        """A maintainer of an ops table."""
        return self.maintainer(name, store=OpsStore(layout), **given)

    def remove_old_letters(self):
        """Let retention remove the rows of letters that were judged long ago."""
        settings = LakeSettings(retention_hours=1)
        replacer = self.replacer("retain", store=OpsStore(DEAD_LETTERS_LAYOUT))
        budget = settings.letters_bytes_max
        one = Retention(replacer=replacer, clock=self.clock, settings=settings, bytes_max=budget)
        assert one.step()

    def files(self, layout=DEAD_LETTERS_LAYOUT):
        """Data files of the newest snapshot."""
        return len([*self.catalog.load_table(layout.identifier).scan().plan_files()])

    def origins(self):
        return [row["origin_offset"] for row in self.stored(DEAD_LETTERS_LAYOUT, "origin_offset")]
