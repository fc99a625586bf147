"""A world of one seed: its processes, what is done to them, and the history that follows.

First the *unsafe* phase: every fault the swarm has, while the oracle judges each commit and each
answer. Then the *live* phase: all faults end, whoever is dead is started again, the venue prints a
last trade of each symbol, so that feeds hear where the ids end, and within a bounded time K2 must
have found and filled all that is missing; everything must be committed, verified and answered. A
safe system that stands still is found out there.

After a disaster (the tape lost records for good) every writer must first refuse by name, and the
lake must be what it was; then a person ends the epoch, and the history goes on in the next one.
"""

import hashlib
from collections import deque
from dataclasses import replace

import numpy as np

from k2 import limits
from k2.errors import Data, Reason
from k2.lake.commit.committer import TapeIdentity
from k2.lake.iceberg.catalog import local_path
from k2.lake.iceberg.snapshot import SnapshotReader
from k2.lake.iceberg.tables import TRADES, ensure_tables
from k2.lake.verify.verification import VerifySources, verify
from k2.market import schema
from k2.market.events import DAY_US, EVENT_TIME_MIN_US, RECORD_TIME_MAX_US, TIME_MAX_US
from k2.market.instrument import first_partition
from k2.query.request import Consistency, Order, TradesRequest
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder, encode_trade
from k2.tape.partition_map import PartitionMap
from tests.sim.asker import Asker
from tests.sim.backfill import audit_gaps, is_settled
from tests.sim.catalog import LATE_S, Connection, Metastore
from tests.sim.chaos import Chaos
from tests.sim.degradation import Degradation
from tests.sim.epoch import renew
from tests.sim.feed import SCHEMA_ID, Feed, Venue
from tests.sim.maintainer import SKEW_S, maintain, retain
from tests.sim.ops import GAP_SCHEMA_ID, OpsTables, write_ops
from tests.sim.oracle import Oracle
from tests.sim.parts import Parts
from tests.sim.process import EPOCH_US, Process
from tests.sim.reference import Reference
from tests.sim.schedule import Scheduler
from tests.sim.store import Store
from tests.sim.swarm import drawn
from tests.sim.tape import Admin, Board, Office, Reader, Registry, SimTape
from tests.sim.violation import require
from tests.sim.writer import pump_of

PARTITIONS = 4
NEWER_FROM = 100  # the first schema id of a newer feed; no garbage below 1000 has it
SETTLED_S = 10.0  # for query servers to compare their tails with the last commit
LIVE_S = 400.0  # for everything to be committed once the faults are over
EVENTS_SHOWN = 60


class World:
    """See the module.

    Args:
        seed: of everything.
        executor: runs queries; shared by all worlds.
        folder: where files are unfolded for it; of no other world.
        parts: what its processes are made of.
        fields: those of its swarm that are not left to chance.
    """

    def __init__(self, seed, executor, folder, parts=None, **fields):
        self.seed = seed
        self.chance = np.random.default_rng(seed)
        self.swarm = replace(drawn(self.chance), **fields)
        self.executor = executor
        self.scheduler = Scheduler()
        self.events = deque(maxlen=EVENTS_SHOWN)
        self.event_count = 0
        self._hash = hashlib.blake2b(digest_size=16)
        self.calm = self.catalog_away = self.registry_away = self.writers_slow = False
        self.refusals = {Reason.RETENTION_OVERTOOK} if "retention" in self.swarm.every_s else set()
        self.schemas = {
            SCHEMA_ID: schema.avro_schema(schema.TRADE),
            GAP_SCHEMA_ID: schema.avro_schema(schema.GAP),
        }
        self.schema_id = SCHEMA_ID  # that feeds write by
        self.reference = Reference(PARTITIONS, lambda instrument: first_partition(instrument, 1))
        self.awaits_epoch = self.stopped = self.settled = False
        self.tape = SimTape(PARTITIONS, self._appended, self)
        self.store = Store()
        self.metastore = Metastore(self.store, f"file://{folder}")
        ensure_tables(self.metastore)
        self._place = f"{local_path(self.metastore.load_table(TRADES).location())}/"
        self.ops = OpsTables(self)
        self.oracle = Oracle(self)
        self.store.on_delete = self.oracle.removes
        self.venue = Venue(self)
        self.parts = parts or Parts()
        self.degradation = Degradation(self)
        self.planned = []
        self.writers = [Process(self, f"writer{n}") for n in range(self.swarm.writers)]
        self.beats = {}  # of feeds by name: when, and what was listened to
        self.feeds = [Process(self, f"feed{n}") for n in range(self.swarm.feeds)]
        self.servers = [Process(self, f"query{n}") for n in range(self.swarm.servers)]
        self.maintainers = [Process(self, f"maintainer{n}") for n in range(self.swarm.maintainers)]
        self.retainers = [Process(self, f"retainer{n}") for n in range(self.swarm.retainers)]
        self.ops_writers = [Process(self, f"ops{n}") for n in range(self.swarm.ops_writers)]
        self.asked = Process(self, "maintenance")
        for process in (*self.maintainers, *self.retainers):
            process.skew_max_s = SKEW_S
        self.chaos = Chaos(self)

    @property
    def processes(self):
        return [
            *self.writers, *self.feeds, *self.servers, *self.maintainers, *self.retainers,
            *self.ops_writers,
        ]  # fmt: skip

    @property
    def history(self):
        """A number that two runs share if all happened alike."""
        return self._hash.hexdigest()

    def happens(self, fault):
        """Whether a fault occurs at this occasion."""
        chance = self.swarm.chances.get(fault)
        return chance is not None and not self.calm and self.chance.random() < chance

    def note(self, who, what):
        """Write the history."""
        line = f"{self.scheduler.now_s:11.6f} {who}: {what}"
        self._hash.update(line.encode())
        self.events.append(line)
        self.event_count += 1

    def post(self, letters):
        """Letters come to their topic."""
        self.tape.letters.extend(letters)
        for letter in letters:
            self.ops.post(letter)

    def poison(self, value):
        """Bytes beside a record that are none."""
        kinds = [
            None, b"", value[:3], value[: len(value) // 2], value + b"x", b"{}",
            b"\x00\x00\x00\x00\x63" + value[5:],
        ]  # fmt: skip
        return kinds[int(self.chance.integers(len(kinds)))]

    def flood(self, value):
        """Bytes beside a record whose schema ids no registry knows, each another."""
        most = 4 * limits.SCHEMA_LOOKUPS_PER_BATCH
        ids = self.chance.integers(1000, 2**32, int(self.chance.integers(1, most)))
        return [b"\x00" + int(one).to_bytes(4, "big") + value[5:] for one in ids]

    def absurd(self, value):
        """A trade beside a record, with a time that K2 does not store."""
        trade, chance = self.reference.meaning(value), self.chance
        kinds = [
            {"event_time_us": self.now_us() + DAY_US + 1 + int(chance.integers(0, 1000))},
            {"event_time_us": TIME_MAX_US + 1},
            {"event_time_us": EVENT_TIME_MIN_US - 1},
            {"receive_time_us": TIME_MAX_US + 1},
            {"receive_time_us": RECORD_TIME_MAX_US},
            {"receive_time_us": EVENT_TIME_MIN_US - 1},
        ]
        made = trade._replace(**kinds[int(chance.integers(len(kinds)))])
        found = encode_trade(made, SCHEMA_ID)
        self.reference.means(found, made)
        return found

    def register_newer(self):
        """Register a schema that no process has read by; feeds write by it from now on."""
        self.schema_id = max(self.schema_id + 1, NEWER_FROM)
        self.schemas[self.schema_id] = self.schemas[SCHEMA_ID]

    def now_us(self):
        """The time of brokers and of the venue, which does not jump."""
        return EPOCH_US + int(self.scheduler.now_s * 1e6)

    def _appended(self, partition, value, at_us):
        if not self.awaits_epoch:
            self.reference.append(partition, value, at_us)

    def strike(self):
        """The tape has lost records: what it holds is judged again when the next epoch begins."""
        self.awaits_epoch = True

    # --- the history ------------------------------------------------------------------------------

    def run(self):
        """Live through it.

        Raises:
            Violation: something K2 promises is not so.
            Exception: whatever a part raised that it must not raise.
        """
        try:
            self.tape.share([self.writers[p % len(self.writers)].name for p in range(PARTITIONS)])
            self.scheduler.spawn("venue", self.venue.run)
            self.scheduler.spawn("supervisor", self._supervise)
            self.scheduler.spawn("degradation", self.degradation.run)
            self.chaos.begin()
            self.scheduler.run(self.swarm.seconds)
            if self.chaos.struck is not None and self._refused():
                renew(self)
            self._live()
        finally:
            self.scheduler.close()

    def _supervise(self):
        """Start whoever is not alive, after a while."""
        while True:
            for process in () if self.stopped else self.processes:
                if not process.alive and not (
                    process in self.feeds and self.chaos.struck is not None
                ):
                    process.start(self._body(process), self.chance.uniform(0.0, 3.0))
            self.scheduler.pause(0.2)

    def _body(self, process):
        if process in self.writers:
            return lambda: self._write(process)
        if process in self.maintainers:
            return lambda: maintain(process, self.parts)
        if process in self.retainers:
            return lambda: retain(process, self.parts)
        if process in self.ops_writers:
            return lambda: write_ops(process, self.parts)
        if process in self.feeds:
            process.body = Feed(process, self.venue, self.tape)
        else:
            process.body = Asker(process, self.parts.tail)
        return process.body.run

    def _write(self, process):
        try:
            pump = pump_of(process, self.parts)
            self.degradation.pumps[process.name] = pump
            pump.run()
        except Data as error:
            require(error.reason in self.refusals, "refused", error.reason, error.message)
            self.note(process.identity, f"refuses: {error.reason}")
            process.refusal = error.reason
        finally:
            self.degradation.pumps.pop(process.name, None)

    # --- liveness ---------------------------------------------------------------------------------

    def _live(self):
        """Faults end; everything must come to rest, right."""
        self.be_calm()
        self.scheduler.run(self.scheduler.now_s + 3.0)
        self.venue.open = False
        self.wait_for(self._all_listen, "the feeds to listen")
        for symbol in self.venue.symbols:
            self.venue.print(symbol)
        self.wait_for(self._rests, "K2 to have all that it heard and all that it missed")
        audit_gaps(self)
        if self.ops_writers:
            self.wait_for(lambda: self.ops.rest, "the ops tables to have all letters and gaps")
            self.ops.audit()
        if self.retainers:
            self.wait_for(self.oracle.is_held_to_retention, "what is due to go")
        if self.maintainers:
            self.wait_for(self._is_swept, "all that nothing names to go")
        self._in_a_task("auditor", self._audit)

    def be_calm(self):
        """No fault from now on."""
        self.calm = True
        self.chaos.end()
        for process in self.processes:
            process.mortal = False
        names = [process.name for process in self.writers]
        self.tape.share([names[p % len(names)] for p in range(PARTITIONS)])
        self.note("world", "calms")

    def be_unsafe(self):
        """All faults again, but for what is done from outside."""
        self.calm = False
        for process in self.processes:
            process.mortal = True

    def wait_for(self, satisfied, what):
        until_s = self.scheduler.now_s + LIVE_S
        if not self.scheduler.run(until_s, satisfied):
            have = self.oracle.positions, self.reference.ends()
            tails = [server.body and server.body.tail.position() for server in self.servers]
            require(False, f"in vain for {LIVE_S} s: {what}", *have, *tails)

    def _all_listen(self):
        return all(feed.alive and feed.body.listens for feed in self.feeds)

    def _rests(self):
        """Feeds know of nothing that is not on the tape, and the lake has the tape."""
        ends = self.reference.ends()
        return (
            self.oracle.positions == ends
            and self.degradation.rests
            and all(feed.alive and feed.body.idle for feed in self.feeds)
            and is_settled(self)
            and all(
                server.alive and server.body.tail.position().offsets == ends
                for server in self.servers
            )
        )

    def _is_swept(self):
        """On disk is what the table reaches, and nothing else."""
        here = {path for path in self.store.files if path.startswith(self._place)}
        return not self.oracle.snapshots or here == self.oracle.reachable()

    def _in_a_task(self, name, body):
        """Run something as a process to its end."""
        process = Process(self, name)
        process.mortal = False
        process.start(lambda: body(process))
        self.wait_for(lambda: process.task.done, name)

    def _audit(self, process):
        """Everything is there: by K2's own proof, by the venue, and in every answer."""
        report = self._verified(process)
        found = [one for one in report["problems"] if not self._may_be_either(one)]
        require(not found, "verify", report["message"], report["problems"])
        self.oracle.no_letter_is_undue()
        snapshots = SnapshotReader(Connection(process, self.metastore, self.store))
        for snapshot in snapshots.list():
            self.oracle.snapshot_reads_the_same(snapshot, snapshots.files(snapshot.snapshot_id))
        self._complete()
        process.sleep(SETTLED_S)
        self.settled = True
        for server in self.servers:
            server.body.exam += [
                TradesRequest(consistency=consistency, order=order)
                for consistency in (Consistency.UNION, Consistency.COMMITTED)
                for order in Order
            ]
        while any(server.body.exam for server in self.servers):
            process.sleep(0.1)

    def _may_be_either(self, problem):
        """Whether what is left of tape and lake shows a duplicate just as it would a lost row."""
        partition, offsets = problem["partition"], problem["offsets"]
        if problem["kind"] != "LOST" or problem["count"] > len(offsets):
            return False
        start, gone = (
            self.tape.logs[partition].start,
            self.oracle.gone(self.oracle.newest.snapshot_id),
        )
        shadows = self.reference.shadows(partition, start, gone)
        return all(offset in shadows for offset in offsets)

    def _complete(self):
        """Above the first promise that a feed made of a symbol no trade is missing."""
        promised = {}
        for of, document in self.tape.boards.get(topics.COVERAGE, []):
            key = of.rpartition("@")[0]
            promised[key] = min(document["trade_id"], promised.get(key, document["trade_id"]))
        for partition, judged in enumerate(self.reference.partitions):
            for instrument in {instrument for instrument, _ in judged.seen}:
                if instrument.symbol in self.venue.reset:
                    continue  # its ids do not tell what is missing
                lowest = min(self.reference.ids(partition, instrument))
                first = max(lowest, promised[instrument.key] + 1)
                last = self.venue.next_id[instrument.symbol] - 1
                missing = self.reference.lacks(instrument, first, last)
                require(not missing, "trades missing", instrument, missing[:5])

    def _verified(self, process):
        """The report of the real `k2 verify`."""
        catalog = Connection(process, self.metastore, self.store)
        board = Board(process, self.tape, topics.PARTITIONS)
        witnesses = VerifySources(
            snapshots=SnapshotReader(catalog),
            io=catalog.load_table(TRADES).io,
            identity=self._identity,
            facts=lambda: Admin(process, self.tape).facts("trades"),
            replay=lambda start: Reader(process, self.tape, start),
            decoder=Decoder(Registry(process, self.schemas)),
            placement=PartitionMap(board, self.tape.topic_id, 1),
            letters=Office(process, self.tape).read_all,
        )
        return verify(witnesses, process, lambda *_: None)

    @property
    def _identity(self):
        """The tape that there is."""
        return TapeIdentity(
            "trades", self.tape.topic_id, "fake", self.reference.epoch, len(self.tape.logs)
        )

    # --- disaster ---------------------------------------------------------------------------------

    def _refused(self):
        """Whether the writer of what was struck says why it does not go on; it must."""
        self.be_calm()
        self.scheduler.run(self.scheduler.now_s + LATE_S[1])  # commits that are under way
        position, log = self.oracle.positions[self.chaos.struck], self.tape.logs[self.chaos.struck]
        if self.swarm.disaster == "overtaken" and position >= log.start:
            self.chaos.struck, self.awaits_epoch = None, False
            return False  # the writer had read it all
        for process in self.writers:
            process.refusal = None
            if process.alive:
                self.scheduler.kill(process.task)
        owner = self.tape.owners[self.chaos.struck]
        victim = next(process for process in self.writers if process.name == owner)
        self.wait_for(lambda: victim.refusal is not None, "a refusal by name")
        return True
