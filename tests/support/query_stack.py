"""A query server's inside on a tape in memory and real files, with a writer that commits on demand.

Tail, codec, placement, view and executor are the real ones; the writer folds and writes files as
the lake's does, without Iceberg.
"""

from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import pyarrow as pa

from k2.clock import ManualClock
from k2.errors import Unavailable
from k2.lake.commit.committer import PartitionBatch
from k2.lake.iceberg.epochs import EpochHistory
from k2.lake.iceberg.snapshot import SnapshotReader
from k2.market import schema
from k2.market.coverage import Coverage
from k2.market.events import DAY_US, Fault, Label, Trade, to_arrow
from k2.market.fold import RULES, FoldState
from k2.market.instrument import Instrument, split_symbol
from k2.market.offsets import FileStat, OffsetVector
from k2.query.execute import Executor
from k2.query.expected_ids import ExpectedIds
from k2.query.lake_snapshots import LakeSide
from k2.query.request import TradesRequest
from k2.query.view import QueryView
from k2.tail.tail import Tail
from k2.tape import topics
from k2.tape.acceptance import Acceptance
from k2.tape.avro.trade_codec import Decoder, encode_trade
from k2.tape.partition_map import PartitionMap
from tests.fakes.lake import FakeSnapshots, lake_snapshot
from tests.fakes.tape import FakeTape
from tests.support.lake_files import read_table, write_table
from tests.support.lake_world import TAPE
from tests.support.messages import SCHEMA_ID, Schemas
from tests.support.trades import NOW_US

PARTITIONS = 4
_writers = count()


class FollowedCoverage(ExpectedIds):
    """`ExpectedIds` that is up to date whenever it is asked, as is the tail where it matters."""

    tail = None

    def at(self, end, partitions, *, now=False):
        with suppress(Unavailable):
            self.follow()
            if now:
                self.tail.wait_until(OffsetVector(end.epoch, self.ends()), 0.2, partitions)
                end = self.tail.position()
        return super().at(end, partitions, now=now)


class QueryStack:
    """One partition a tier: BTC, ETH are in 0, BNB, SOL in 1, ADA in 2, all others in 3.

    Attributes:
        listened: what feeds hear now; None: all that there is.
    """

    def __init__(self, folder, *, clock=None, tape=None, snapshots=None, schemas=None, **tail):
        self.folder = folder
        self.listened = None
        self.clock = clock or ManualClock(NOW_US)
        self.tape = tape or FakeTape(partitions=PARTITIONS, clock=self.clock)
        self.placement = PartitionMap(self.tape.board("k2.partitions"), 0, 1)
        self.snapshots = snapshots or FakeSnapshots()
        self.committed = OffsetVector.zero(0, PARTITIONS)
        self.states = {partition: FoldState() for partition in range(PARTITIONS)}
        self.files = []
        self.commits = 0
        self.floor_us = None
        self.epochs = EpochHistory(rules=RULES)
        self.schemas = schemas
        self.tail_options = tail
        self._open_view()
        self.executor = Executor(
            clock=self.clock, warehouse=f"file://{folder}", temp_dir=folder / "tmp"
        )
        self.homes = PartitionMap(self.tape.board("k2.partitions"), 0, 1)
        self.decoder = Decoder(Schemas(schemas))
        self.acceptance = Acceptance(self.decoder, self.homes, self.clock)

    def _open_view(self):
        self.lake = LakeSide(self.snapshots, PARTITIONS, self.tape.topic_id)
        self.tail = Tail(
            reader_factory=self.tape.reader,
            decoder=Decoder(Schemas(self.schemas)),
            placement=PartitionMap(self.tape.board("k2.partitions"), 0, 1),
            clock=self.clock,
            **self.tail_options,
        )
        self.gap_log = self.tape.gap_log()
        self.coverage = FollowedCoverage(
            promises=self.tape.board(topics.COVERAGE),
            gaps=self.gap_log,
            listened=self._heard,
            ends=lambda: self.tape.admin().log_ends("trades", PARTITIONS),
            clock=self.clock,
        )
        self.coverage.tail = self.tail
        self.view = QueryView(
            lake=self.lake,
            tail=self.tail,
            coverage=self.coverage,
            placement=self.placement,
            clock=self.clock,
            source="simulated",
        )

    def _heard(self):
        if self.listened is not None:
            return self.listened
        return {*self.tail.instruments(), *self.homes.known()}

    def begin_epoch(self):
        """The topic is made again, the writer adopts it, the query process is started again."""
        self.view.close()
        topics = (*self.epochs.past_topics, self.tape.topic_id)
        self.tape.recreate()
        past = (*self.epochs.past, self.committed)
        self.epochs = EpochHistory(past=past, past_topics=topics, rules=RULES)
        self.committed = OffsetVector.zero(self.committed.epoch + 1, PARTITIONS)
        self.states = {partition: FoldState(of.seen) for partition, of in self.states.items()}
        self.commit()
        self._open_view()
        self.view.start(maintain=False)

    def __enter__(self):
        self.view.start(maintain=False)
        return self

    def __exit__(self, *_):
        self.view.close()
        self.executor.close()

    def send(self, symbol, ids, *, exchange="BINANCE", step_us=1000, start_us=NOW_US, **changes):
        """Trades of one symbol, acknowledged when this returns."""
        instrument = Instrument(exchange, symbol)
        partition = self.homes.place(instrument)
        label = Label(exchange, symbol, *split_symbol(symbol), "crypto", "simulated")
        for trade_id in ids:
            event_us = start_us + trade_id * step_us
            trade = Trade(label, trade_id, event_us, event_us + 500, 100, 5, 0, {})
            self.tape.append(partition, encode_trade(trade._replace(**changes), SCHEMA_ID))

    def promise(self, symbol, began_after, trade_id, feed="feed"):
        """What a feed publishes of a symbol."""
        key = f"{Instrument('BINANCE', symbol).key}@{feed}"
        document = {**Coverage(began_after, trade_id).values(), "feed": feed}
        self.tape.board(topics.COVERAGE).put(key, document)

    def commit(self):
        """What the writer does: fold from O(S) to the end, files, positions and state together."""
        self.commits += 1
        epoch = self.committed.epoch
        rows = [to_arrow(piece.accepted[0], epoch, piece.partition) for piece in self.judged()]
        self._write(pa.Table.from_batches(rows) if rows else None)
        self._publish()

    def judged(self):
        """The next records of each partition, folded; they count as committed from here on."""
        pieces = []
        for partition, log in enumerate(self.tape.logs):
            start = self.committed[partition]
            batch = self.tape.batch(partition, start, log.end - start)
            if batch is None:
                continue
            judged = self.acceptance.judge(batch, self.states[partition])
            assert judged.rest is None
            accepted, state = (judged.accepted(),), judged.state
            pieces.append(PartitionBatch(partition, start, log.end, accepted, state))
            self.states[partition] = state
            self.committed = self.committed.advanced(partition, log.end)
        return pieces

    def rewrite(self):
        """What compaction does: all files as one a exchange, under a snapshot of the same rows."""
        self.commits += 1
        stats, self.files = self.files, []
        tables = [read_table(stat.path.removeprefix("file://")) for stat in stats]
        self._write(pa.concat_tables(tables) if tables else None)
        self._publish()
        return [Path(stat.path.removeprefix("file://")) for stat in stats]

    def _publish(self):
        at_us = NOW_US + self.commits * 1_000_000
        topic_id, epochs = self.tape.topic_id, self.epochs
        snapshot = lake_snapshot(self.commits, self.committed, at_us, self.floor_us, topic_id)
        counters = {p: (of.accepted, of.duplicate, of.dead) for p, of in self.states.items()}
        snapshot = replace(snapshot, epochs=epochs, counters=counters)
        self.snapshots.commit(snapshot, self.files, self.states)

    def restarted(self, **tail):
        """Another server on the same tape and lake, as after a restart; enter it to start it."""
        return QueryStack(
            self.folder, clock=self.clock, tape=self.tape, snapshots=self.snapshots, **tail
        )

    def plan(self, **fields):
        """A question, planned."""
        return self.view.plan(TradesRequest(**fields))

    def ask(self, **fields):
        """Plan, open and read to the end; the rows as a table, and the answer."""
        return self.read(self.plan(**fields))

    def read(self, planned):
        """Open and read what was planned."""
        opened = self.view.open(planned.request, planned.snapshot_id, planned.end)
        answer = self.executor.run(opened)
        return pa.Table.from_batches(list(answer), schema=answer.schema), answer

    def ids(self, **fields):
        """The trade ids of an answer, in its order."""
        return self.ask(**fields)[0].column("trade_id").to_pylist()

    def _write(self, table):
        if table is None or not len(table):
            return
        keys = [(name, "ascending") for name in ("symbol", "event_time", "trade_id")]
        table = table.sort_by(keys)
        for exchange in sorted(set(table.column("exchange").to_pylist())):
            some = table.filter(pa.compute.equal(table.column("exchange"), exchange))
            path = self.folder / f"{self.commits}-{exchange}.parquet"
            fits = pa.compute.max(some["quantity"]).as_py() < schema.NARROW_END
            narrow = fits and self.commits % 2 == 1  # the others as an earlier K2 wrote them
            write_table(path, some, narrow=narrow)
            times = some.column("event_time").cast("int64").to_pylist()
            symbols = some.column("symbol").to_pylist()
            size = path.stat().st_size
            self.files.append(
                FileStat(
                    f"file://{path}", size, len(some), exchange, min(symbols), max(symbols),
                    min(times), max(times), narrow=narrow,
                )
            )  # fmt: skip


class LakeStack(QueryStack):
    """The same on a real lake: commits are Iceberg's.

    Args:
        lake: a `LakeWorld`.
    """

    def __init__(self, lake, *, tape=None, **more):
        clock = more.pop("clock", None) or ManualClock(NOW_US)
        tape = tape or FakeTape(partitions=PARTITIONS, clock=clock)
        tape.topic_id = TAPE.topic_id
        self.world = lake
        self.writer = lake.committer(f"stack-{next(_writers)}")
        folder = Path(lake.settings.warehouse.removeprefix("file://"))
        snapshots = SnapshotReader(lake.catalog)
        super().__init__(folder, clock=clock, tape=tape, snapshots=snapshots, **more)

    def commit(self):
        """What the writer does."""
        self.world.clock.advance(10)
        assert not self.writer.commit(self.judged()).fenced

    def restarted(self, **more):
        """Another server and another writer on the same tape and lake."""
        other = LakeStack(self.world, tape=self.tape, clock=self.clock, **more)
        other.committed, other.states = self.committed, dict(self.states)
        return other


__all__ = ["DAY_US", "PARTITIONS", "Fault", "LakeStack", "QueryStack"]
