"""A query server's process: the real tail, view and executor, asked at random moments.

One task does what three threads do in the real one, in any order: step the tail, maintain the view,
plan, open and read. In the middle of planning and opening, between the view's looks at the tail and
at the lake, the tail may be stepped and the view maintained too: that is where its races are.
"""

from dataclasses import dataclass, replace

import pyarrow as pa

from k2 import limits
from k2.errors import Data, Internal, K2Error, NotFound, Reason, Unavailable
from k2.lake.iceberg.snapshot import SnapshotReader
from k2.market.offsets import OffsetVector, TimeRange
from k2.query.expected_ids import ExpectedIds
from k2.query.lake_snapshots import LakeSide
from k2.query.request import Consistency, Order, TradesRequest
from k2.query.view import PlannedQuery, QueryView
from k2.tail.tail import Tail
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder
from k2.tape.partition_map import PartitionMap
from tests.sim.backfill import GapLog
from tests.sim.catalog import Connection
from tests.sim.maintainer import STREAM_S, TICKET_S
from tests.sim.oracle import lacks_more_than_old_rows
from tests.sim.process import EPOCH_US
from tests.sim.reference import rows_of
from tests.sim.tape import Admin, Board, Reader, Registry
from tests.sim.violation import require

PENDING_MAX = 6
TRIES_MAX = 30
NESTED = 0.2  # of the view's looks, how many find that something else just happened


SLOW = 0.3  # of the answers, how many are read slowly


@dataclass(frozen=True)
class Ticket:
    """A question that was planned.

    Attributes:
        planned: what is answered.
        until_s: when it may be opened no more.
        kept: whether its snapshot was kept when it was planned: then so are its files meanwhile.
    """

    planned: PlannedQuery
    until_s: float
    kept: bool


class SteppedTail(Tail):
    """The real tail, stepped by its process instead of by a thread."""

    process = None
    meanwhile = None

    def start(self, positions, states):
        self.close()
        self._begin(positions, states)
        self._reader = self._open(dict(enumerate(positions.offsets)))

    def go_on(self):
        """What its thread does once."""
        if self.failure is None:
            try:
                self.step(0.0)
            except Unavailable:
                pass
            except K2Error as error:
                self._fail(error)

    def view(self, instruments, end=None):
        self.meanwhile()
        view = super().view(instruments, end)
        self.meanwhile()
        return view

    def released(self):
        self.meanwhile()
        return super().released()

    def wait_until(self, end, timeout_s, partitions=None):
        until_s = self.process.monotonic_s() + timeout_s
        while not super().wait_until(end, 0.0, partitions):
            if self.failure is not None or self.process.monotonic_s() >= until_s:
                return False
            self.go_on()
            self.process.sleep(0.05)
        return True


class Asker:
    """One life of a query server.

    Args:
        process: whose life.
        tail: the class of tail to use.

    Attributes:
        exam: requests that must be answered, now that nothing is in the way.
    """

    def __init__(self, process, tail):
        world = process.world
        self.process = process
        self.world = world
        self.exam = []
        self._failed = 0
        self._nesting = self._maintaining = False
        self._snapshots = SnapshotReader(Connection(process, world.metastore, world.store))
        schemas = Registry(process, world.schemas)
        self.tail = tail(
            reader_factory=lambda start: Reader(process, world.tape, start),
            decoder=Decoder(schemas),
            placement=self._placement(),
            clock=process,
            bytes_max=world.swarm.tail_bytes_max,
            recent_s=world.swarm.tail_recent_s,
        )
        self.tail.process, self.tail.meanwhile = process, self._meanwhile
        self._lake = LakeSide(self._snapshots, len(world.tape.logs), world.tape.topic_id)
        self._coverage = ExpectedIds(
            promises=Board(process, world.tape, topics.COVERAGE),
            gaps=GapLog(process),
            listened=self._listened,
            ends=self._ends,
            clock=process,
        )
        self.view = QueryView(
            lake=self._lake,
            tail=self.tail,
            coverage=self._coverage,
            placement=self._placement(),
            clock=process,
            source="simulated",
        )

    def run(self):
        """Serve, until the lake is in another epoch of the tape."""
        while not self._tried(lambda: self.view.start(maintain=False)):
            self.process.sleep(0.5)
        chance = self.world.chance
        quiet = [self._read, self._maintain, self._follow]
        actions = [*quiet, self._read, self._plan, self._answer, self._look]
        while self._lake.failure is None:
            self.process.before("serve")
            self._sit()
            chosen = quiet if self.world.calm else actions
            chosen[int(chance.integers(len(chosen)))]()
            if self.world.happens("tail.restart"):
                self._tried(lambda: self.view.start(maintain=False))
            self.process.sleep(chance.exponential(0.15))

    # --- what it does -----------------------------------------------------------------------------

    def _read(self):
        self.tail.go_on()
        failure = self.tail.failure
        require(failure is None or failure.reason in self.world.refusals, "the tail", failure)

    def _maintain(self):
        self._maintaining = True
        self._tried(self.view.maintain)
        self._maintaining = False

    def _follow(self):
        self._tried(self._coverage.follow)

    def _listened(self):
        world = self.world
        fresh = world.scheduler.now_s - limits.HEARTBEAT_STALE_S
        return {one for at_s, listened in world.beats.values() if at_s >= fresh for one in listened}

    def _sit(self):
        """Answer the next question of the exam; what fails in a passing way is tried again."""
        if self.exam:
            if self.ask(self.exam[0]):
                del self.exam[0]
                self._failed = 0
            else:
                self._failed += 1
                require(self._failed < TRIES_MAX, "no answer though all is calm", self.exam[0])

    def _plan(self):
        if len(self.world.planned) >= PENDING_MAX:
            return
        request = self._request()
        promised = self._promised(request)
        planned = self._tried(lambda: self.view.plan(request))
        if planned:
            self._judge_end(request, planned, promised)
            self.world.planned.append(self._ticket(planned))

    def _ticket(self, planned):
        until_s = self.process.monotonic_s() + TICKET_S
        self.world.oracle.may_be_read(planned.snapshot_id, until_s + STREAM_S)
        return Ticket(planned, until_s, self.world.oracle.keeps(planned.snapshot_id))

    def _promised(self, request):
        """Where the tape must reach for an answer to hold all that was acknowledged before."""
        reference = self.world.reference
        if request.consistency is not Consistency.UNION:
            return OffsetVector(reference.epoch, self.world.oracle.positions)
        if not self.world.awaits_epoch:
            return OffsetVector(reference.epoch, reference.ends())
        return self.tail.position()  # the tape lost the rest: nobody knows how much

    def _judge_end(self, request, planned, promised):
        """E covers all that the question promises."""
        snapshots = {one.snapshot_id: one for one in self.world.oracle.snapshots}
        if request.consistency is Consistency.AS_OF:
            known = snapshots[planned.snapshot_id]
            asked, found = request.as_of_snapshot, known.snapshot_id
            time_us = request.as_of_time_us
            right = asked == found or self.world.oracle.may_be_as_of(time_us or 0, found)
            require(right, "as of", asked, time_us, found, known.committed_at_us)
            require(planned.end == known.positions, "as of", planned.end, known.positions)
            return
        if lacks_more_than_old_rows(planned.provenance.missing):
            return
        require(planned.end.covers(promised), "E lies too low", request, planned.end, promised)

    def _answer(self):
        """Execute what any server has planned: whoever holds its ticket may ask any."""
        planned = self.world.planned
        if planned:
            ticket = planned.pop(int(self.world.chance.integers(len(planned))))
            if self.process.monotonic_s() <= ticket.until_s:
                self.execute(ticket)

    def _look(self):
        """Read an old snapshot again."""
        snapshots = self._tried(self._snapshots.list)
        if snapshots:
            chosen = snapshots[int(self.world.chance.integers(len(snapshots)))]
            files = self._tried(lambda: self._snapshots.files(chosen.snapshot_id))
            if files is not None and self.world.oracle.keeps(chosen.snapshot_id):
                self.world.oracle.snapshot_reads_the_same(chosen, files)

    def execute(self, ticket):
        """Open and read what was planned, and have the answer judged; whether there was one."""
        planned = ticket.planned
        request = planned.request
        opened = self._tried(lambda: self.view.open(request, planned.snapshot_id, planned.end))
        if not opened:
            return False
        if not self._is_there(opened, ticket):
            return False
        answer = self.world.executor.run(opened)
        table = pa.Table.from_batches(list(answer), schema=answer.schema)
        rows = rows_of(table)
        self.world.note(self.process.identity, f"answers {len(rows)} rows below {planned.end}")
        self.world.oracle.answered(request, planned.end, rows, opened.provenance)
        return True

    def _is_there(self, opened, ticket):
        """Whether the files are, a while later: they must be, if they were kept."""
        source, now_s = opened.provenance.snapshot_id, self.process.monotonic_s()
        same = source == ticket.planned.snapshot_id and now_s <= ticket.until_s
        kept = self.world.oracle.keeps(source) or (same and ticket.kept)
        self.world.oracle.may_be_read(source, now_s + STREAM_S)
        if self.world.chance.random() < SLOW:
            self.process.sleep(self.world.chance.uniform(0, STREAM_S))
        gone = [one for one in opened.plan.files.paths if not self.world.store.holds(one)]
        require(not (gone and kept), "a file that a query reads is gone", *gone)
        if gone:
            self.world.note(self.process.identity, "comes too late for its files")
        return not gone

    def ask(self, request):
        """Plan and execute; whether there was an answer."""
        planned = self._tried(lambda: self.view.plan(request))
        return bool(planned) and self.execute(self._ticket(planned))

    # --- how --------------------------------------------------------------------------------------

    def _tried(self, attempt):
        """What `attempt` gives; None when it failed in a way that passes, or was to be expected."""
        try:
            given = attempt()
            return True if given is None else given
        except NotFound as error:
            went = [Reason.OUT_OF_RANGE] if self.world.retainers else []
            self._unexpected(error, Reason.UNKNOWN_SYMBOL, Reason.UNKNOWN_SNAPSHOT, *went)
        except Data as error:
            self._unexpected(error, *self.world.refusals)
        except Internal:
            raise
        except K2Error as error:
            self.world.note(self.process.identity, f"{error.reason}")
        return None

    def _unexpected(self, error, *expected):
        require(error.reason in expected, "refused", error.reason, error.message)
        self.world.note(self.process.identity, f"{error.reason}")

    def _meanwhile(self):
        """Between two looks of the view, the tail's thread and the maintainer may have run."""
        if not self._nesting and self.world.chance.random() < NESTED:
            self._nesting = True
            try:
                self._read()
                if not self._maintaining and self.world.chance.random() < 0.5:
                    self._maintain()
            finally:
                self._nesting = False

    def _ends(self):
        self._meanwhile()
        return Admin(self.process, self.world.tape).log_ends("trades", len(self.world.tape.logs))

    def _request(self):
        chance, world = self.world.chance, self.world
        symbols = world.venue.symbols
        chosen = tuple(symbol for symbol in symbols if chance.random() < 0.6)
        request = TradesRequest(
            symbols=chosen,
            range=self._range(),
            limit=int(chance.integers(1, 50)) if chance.random() < 0.4 else None,
            order=Order.DESC if chance.random() < 0.5 else Order.ASC,
            allow_partial=bool(chance.random() < 0.2),
        )
        return self._pinned(request) if chance.random() < 0.25 else request

    def _pinned(self, request):
        """The same of the lake alone."""
        snapshots = self.world.oracle.snapshots
        if not snapshots or self.world.chance.random() < 0.5:
            return replace(request, consistency=Consistency.COMMITTED)
        chosen = snapshots[int(self.world.chance.integers(len(snapshots)))]
        by_time = {"as_of_time_us": chosen.committed_at_us}
        by_id = {"as_of_snapshot": chosen.snapshot_id}
        named = by_time if self.world.chance.random() < 0.5 else by_id
        return replace(request, consistency=Consistency.AS_OF, **named)

    def _range(self):
        chance, now_s = self.world.chance, self.process.monotonic_s()
        latest_s = now_s + 2 + max(self.world.venue.ahead_us.values()) / 1e6
        start, end = sorted(EPOCH_US + int(s * 1e6) for s in chance.uniform(-2, latest_s, 2))
        return TimeRange(
            start if chance.random() < 0.5 else None, end if chance.random() < 0.3 else None
        )

    def _placement(self):
        board = Board(self.process, self.world.tape, topics.PARTITIONS)
        return PartitionMap(board, self.world.tape.topic_id, 1)
