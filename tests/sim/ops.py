"""The ops tables of a world: their topics, the processes that write them, and what must be true.

Dead letters come from writers and feeds, gap events from feeds and new epochs; both may be told
twice or in part, and beside them stand records that are neither. What each record means is
remembered when it is put on its topic, so the judge asks no code of K2.
"""

import io
from datetime import UTC, datetime, timedelta
from itertools import count

import pyarrow as pa
import pyarrow.parquet as pq

from k2.errors import Reason, Unavailable
from k2.lake.commit.committer import Committer
from k2.lake.commit.event_files import OpsStore, view_of
from k2.lake.iceberg.catalog import local_path
from k2.lake.iceberg.snapshot import current_of
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT, GAPS_LAYOUT, ensure_table
from k2.lake.ingest.epoch_transition import AvailableTape, begin_epoch
from k2.lake.ingest.event_writer import EventOffsets, run_ops
from k2.market.ledger import GapState, Ledger, gap_of
from k2.market.schema import GAP
from k2.tape import topics
from k2.tape.avro.record_codec import RecordCodec
from k2.tape.dead_letter_topic import headers_of
from tests.fakes.tape import FakeTape
from tests.sim.catalog import Connection
from tests.sim.process import Flag
from tests.sim.store import Files
from tests.sim.tape import Admin, Reader, Registry
from tests.sim.violation import require

GAP_SCHEMA_ID = 8
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class Topic(FakeTape):
    """A topic of one partition, away when its cluster is.

    Attributes:
        rows: for each record the columns of its row that are known, or None where it is none.
        stored: up to where the table has it.
    """

    def __init__(self, name, cluster):
        super().__init__(name, 1)
        self._cluster = cluster
        self.rows = []
        self.stored = 0

    @property
    def away(self):
        return self._cluster.away

    def ask(self):
        self._cluster.ask()

    def take(self, value, row, headers=()):
        self.rows.append(row)
        self.append(0, value, headers=list(headers))


class OpsTables:
    """Topics and tables of a world, and their judge."""

    def __init__(self, world):
        self._world = world
        self._files = Files(world.store)
        self._origins = set()
        self._codec = RecordCodec(GAP, world.schemas)
        self.letters = Topic(topics.DEAD_LETTERS, world.tape)
        self.gaps = Topic(topics.GAPS, world.tape)
        self.events = []
        self.ledger = Ledger()
        self._topics = {}
        for topic, layout in ((self.letters, DEAD_LETTERS_LAYOUT), (self.gaps, GAPS_LAYOUT)):
            ensure_table(world.metastore, layout)
            self._topics[layout.identifier] = topic

    # --- what is put on the topics ----------------------------------------------------------------

    def post(self, letter):
        """A letter, and perhaps beside it what is none: that is its own origin."""
        if self._world.happens("poison"):
            offset, value = len(self.letters.rows), self._world.poison(b"no letter at all")
            origin = (self.letters.topic, 0, 0, offset)
            self._put(origin, {"value": value, "fault": "BAD_VALUE"}, value)
        origin = (letter.topic, letter.epoch, letter.partition, letter.offset)
        said = {
            "schema_id": letter.schema_id, "fault": letter.fault.name, "judged": letter.at_us,
            "value": letter.value,
        }  # fmt: skip
        headers = [(name, text.encode()) for name, text in headers_of(letter).items()]
        self._put(origin, said, letter.value, headers)

    def _put(self, origin, said, value, headers=()):
        """Only the first record of an origin is a row."""
        names = ("origin", "origin_epoch", "origin_partition", "origin_offset")
        row = None if origin in self._origins else said | dict(zip(names, origin, strict=True))
        self._origins.add(origin)
        self.letters.take(value, row, headers)

    def tell(self, event):
        """A gap event, and perhaps beside it what is none."""
        value = self._codec.encode(event.values(), GAP_SCHEMA_ID)
        if self._world.happens("poison"):
            self.gaps.take(self._world.poison(value), None)
        self.events.append(event)
        self.ledger.apply(event)
        self.gaps.take(value, event.values())

    # --- what must be true ------------------------------------------------------------------------

    def told_what_is_lost(self, lost):
        """What was on the tape of an epoch, and feeds have promised or filled, is missing by now.

        Args:
            lost: instrument and id of what neither the lake nor the tape has any more.
        """
        promises, reset = self._promises(), self._world.venue.reset
        for instrument, one in sorted(lost):
            if instrument.symbol in reset:
                continue  # its promises are of the ids of its present life
            promised = any(after < one <= last for after, last in promises.get(instrument.key, ()))
            said = self.said_of(instrument, one)
            if said is not None or promised:
                missing = said is not None and said.state is GapState.OPEN
                require(missing, "lost, and not missing in the ledger", instrument, one, said)

    def _promises(self):
        """By instrument, what each feed promises, from its first promise on."""
        found, first = {}, {}
        for key, document in self._world.tape.boards.get(topics.COVERAGE, []):
            found[key] = document["began_after"], document["trade_id"]
            first[key] = min(first.get(key, document["first_id"]), document["first_id"])
            reset = any(f":{symbol}@" in key for symbol in self._world.venue.reset)
            forgotten = found[key][0] >= first[key] and not reset
            require(not forgotten, "a beginning forgotten", key, document)
        promises = {}
        for key, between in found.items():
            promises.setdefault(key.rpartition("@")[0], []).append(between)
        return promises

    def said_of(self, instrument, trade_id):
        """The last event of an id."""
        for event in reversed(self.events):
            if event.instrument == instrument and event.first_id <= trade_id <= event.last_id:
                return event
        return None

    def landed(self, identifier, metadata):
        """A commit adds the rows between its parent's position and its own, each once."""
        topic, position = self._topics[identifier], current_of(metadata).positions[0]
        require(position >= topic.stored, "an ops position moved back", topic.stored, position)
        want = {
            offset: row
            for offset, row in enumerate(topic.rows[topic.stored : position], topic.stored)
            if row is not None
        }
        rows = self._added(metadata.current_snapshot())
        have = {row["tape_offset"]: row for row in rows}
        require(len(have) == len(rows), "an ops row twice", topic.topic)
        require(have.keys() == want.keys(), "other ops rows", topic.topic, [*want], [*have])
        for offset, row in want.items():
            same = all(have[offset][name] == value for name, value in row.items())
            require(same, "an ops row changed", topic.topic, row, have[offset])
        topic.stored = position
        self._world.note("lake", f"holds {topic.topic} below {position}")

    def _added(self, head):
        """The rows that a snapshot added; times in microseconds."""
        rows = []
        for manifest in head.manifests(self._files):
            if manifest.added_snapshot_id == head.snapshot_id:
                for entry in manifest.fetch_manifest_entry(self._files):
                    if entry.snapshot_id == head.snapshot_id:
                        rows += self._read(entry.data_file.file_path)
        return rows

    def _read(self, location):
        table = pq.read_table(io.BytesIO(self._world.store.read(local_path(location))))
        times = [n for n, field in enumerate(table.schema) if pa.types.is_timestamp(field.type)]
        for at in times:
            table = table.set_column(at, table.field(at).name, table.column(at).cast("int64"))
        return table.to_pylist()

    @property
    def rest(self):
        """Whether the tables have all that the topics have."""
        return all(topic.stored == len(topic.rows) for topic in self._topics.values())

    def audit(self):
        """Read as K2 reads them, the tables say what the topics say."""
        painted, said = Ledger(), self.ledger
        for row in self._rows(GAPS_LAYOUT):
            painted.apply(gap_of({name: _told(value) for name, value in row.items()}))
        require([*painted.gaps()] == [*said.gaps()], "the ledger's paint differs")
        names = [name for name in DEAD_LETTERS_LAYOUT.event.columns if name.startswith("origin")]
        origins = [tuple(row[name] for name in names) for row in self._rows(DEAD_LETTERS_LAYOUT)]
        require(len(origins) == len(self._origins), "letters", len(origins), len(self._origins))
        require({*origins} == self._origins, "letters of other records")

    def _rows(self, layout):
        """Oldest on the topic first."""
        view = view_of(self._world.metastore, layout)
        return [*view.newest(layout.event.columns)][::-1] if view else []


def _told(value):
    """A time as microseconds."""
    if isinstance(value, datetime):
        return (value - BEGINNING) // timedelta(microseconds=1)
    return value


# --- processes -----------------------------------------------------------------------------------


class GapTeller:
    """The ledger's topic to a process: events may be acknowledged in part, and be told again."""

    def __init__(self, process):
        self._process = process

    def read_all(self):
        self._process.ask_tape("read the ledger")
        return list(self._process.world.ops.events)

    def publish(self, events):
        process, world = self._process, self._process.world
        process.before("tell gaps")
        world.tape.ask()
        failing = world.happens("tape.error")
        told = events[: int(world.chance.integers(0, len(events) + 1))] if failing else events
        for event in told:
            world.ops.tell(event)
        if failing:
            raise Unavailable(Reason.TAPE_UNAVAILABLE, "gaps fail", retry_after_s=0.1)
        process.after("tell gaps")


class Calmly:
    """The catalog as a process asks it; pyiceberg reads what a view needs in its own threads."""

    def __init__(self, connection, metastore):
        self._connection = connection
        self._metastore = metastore

    def load_table(self, identifier):
        self._connection.ask("load the view")
        return self._metastore.load_table(identifier)


def write_ops(process, parts):
    """Write both tables for ever."""
    world = process.world
    letters = parts.office(process, world.tape)
    codec = RecordCodec(GAP, Registry(process, world.schemas))
    gaps = parts.gap_intake(topics.GAPS, codec, letters, process)
    dead = parts.letter_intake(topics.DEAD_LETTERS, process)
    pairs = (world.ops.gaps, gaps), (world.ops.letters, dead)
    run_ops([_writer(process, parts, topic, intake) for topic, intake in pairs], Flag(process))


def _writer(process, parts, topic, intake):
    world, tries = process.world, count(1)
    connection = Connection(process, world.metastore, world.store)
    store = OpsStore(intake.layout)

    def facts():
        return Admin(process, topic).facts(topic.topic)

    def epoch():
        there = AvailableTape(facts, lambda _: {}, lambda _: 0, lambda _: None)
        commit_id = f"{process.identity}-{intake.layout.name}-{next(tries)}"
        return begin_epoch(connection, process, there, commit_id, store).epoch

    def committer(identity):
        return Committer(
            catalog=connection, clock=process, tape=identity, writer_id=process.identity,
            store=store,
        )  # fmt: skip

    ends = EventOffsets(
        facts=facts,
        epoch=epoch,
        read_from=lambda start: Reader(process, topic, {0: start}),
        committer=committer,
        view=lambda: view_of(Calmly(connection, world.metastore), intake.layout),
        decoder=intake,
    )
    return parts.ops_writer(ends, world.swarm.commit_interval_s, process)
