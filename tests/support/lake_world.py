"""A real lake in a folder, and faults for its catalog, for the tests of `k2/lake`."""

from itertools import count
from pathlib import Path

from pyiceberg.exceptions import CommitFailedException
from sqlalchemy.exc import OperationalError

from k2.clock import ManualClock, SystemClock
from k2.lake.commit.committer import Committer, PartitionBatch, TapeIdentity
from k2.lake.iceberg.catalog import local_path, open_catalog
from k2.lake.iceberg.snapshot import SnapshotReader
from k2.lake.iceberg.tables import TRADES, ensure_tables
from k2.lake.maintenance.maintainer import Maintainer
from k2.lake.maintenance.maintenance_commit import MaintenanceCommitter
from k2.market.events import DAY_US
from k2.market.fold import FoldState, Verdict, fold
from k2.settings import Settings
from tests.support.trades import columns

TAPE = TapeIdentity("trades", "topic-1", "cluster-1", 0, 4)
_names = count()


class LakeWorld:
    """A catalog, its table, and writers of it."""

    def __init__(self, folder: Path, **settings):
        self.settings = Settings(data_dir=folder, **settings)
        # The library stamps some things by the machine's clock: this one starts after it, always
        # at midnight, so that nothing depends on the time of day.
        self.clock = ManualClock(((SystemClock().now_us() + 60_000_000) // DAY_US + 1) * DAY_US)
        self.catalog = open_catalog(self.settings, self.clock)
        ensure_tables(self.catalog)
        self.snapshots = SnapshotReader(self.catalog)

    def committer(self, writer_id="w1", catalog=None, tape=TAPE, **given):
        return Committer(
            catalog=catalog or self.catalog,
            clock=self.clock,
            tape=tape,
            writer_id=writer_id,
            **given,
        )

    def replacer(self, maintainer_id="m", catalog=None, **given):
        return MaintenanceCommitter(
            catalog=catalog or self.catalog, clock=self.clock, maintainer_id=maintainer_id, **given
        )

    def maintainer(self, maintainer_id="m", catalog=None, paused=lambda: False, **given):
        return Maintainer(
            replacer=self.replacer(maintainer_id, catalog, **given),
            clock=self.clock,
            settings=self.settings.lake,
            paused=paused,
        )

    def commit_each(self, numbers, writer=None, **given):
        """A commit of one row for each id, printed now, after what the lake has."""
        writer = writer or self.committer(f"w{next(_names)}")
        for number in numbers:
            positions, states, _ = writer.base()
            start = positions[0]
            now = {"times": [self.clock.now_us()]} | given
            writer.commit([piece(0, [number], start=start, state=states.get(0), **now)])

    def on_disk(self, identifier=TRADES):
        """Every file of a table."""
        root = Path(local_path(self.catalog.load_table(identifier).location()))
        return {str(path) for path in root.rglob("*") if path.is_file()}

    @property
    def table(self):
        return self.catalog.load_table(TRADES)

    def rows(self, *names):
        """Rows of the newest snapshot as tuples, in order."""
        names = names or ("tape_partition", "tape_offset", "symbol", "trade_id")
        rows = self.table.scan().to_arrow().select(names).to_pylist()
        return sorted(tuple(row[n] for n in names) for row in rows)

    def close(self):
        self.catalog.close()


def piece(partition, ids, *, start=0, state=None, symbol="BTCUSDT", dead=0, **given):
    """The next records of a partition: these ids, then so many dead ones, folded."""
    batch = columns(ids, symbols=symbol, first_offset=start, **given)
    after, verdicts, *_ = fold(state or FoldState(), batch)
    after = FoldState(after.seen, after.accepted, after.duplicate, after.dead + dead)
    accepted = batch.take(verdicts == Verdict.ACCEPTED)
    rows = (accepted,) if len(accepted) else ()
    return PartitionBatch(partition, start, start + len(batch) + dead, rows, after)


class Crash(BaseException):
    """The process dies here."""


class FaultyCatalog:
    """A catalog whose next commits go wrong; each fault is used once, in order.

    `before` runs before a commit reaches the catalog: there, another writer may be faster.
    """

    def __init__(self, inner, *faults, before=None):
        self.inner = inner
        self.faults = list(faults)
        self.before = before
        self.commits = 0
        self.away = False

    def load_table(self, identifier):
        if self.away:
            raise locked()
        return self.inner.load_table(identifier)

    def commit_table(self, table, requirements, updates):
        self.commits += 1
        if self.before is not None:
            before, self.before = self.before, None
            before()
        fault = self.faults.pop(0) if self.faults else "none"
        if fault == "refused":
            raise CommitFailedException("refused, and not landed")
        if fault == "busy":
            raise locked()
        if fault == "crash before":
            raise Crash
        if fault == "disk full":
            raise OSError(28, "No space left on device")
        reply = self.inner.commit_table(table, requirements, updates)
        if fault == "reply lost":
            raise locked()
        if fault == "landed and refused":
            raise CommitFailedException("a retried request found its own commit")
        if fault == "crash after":
            raise Crash
        if fault == "away after":
            self.away = True
            raise locked()
        assert fault == "none", fault
        return reply


def locked():
    return OperationalError("UPDATE", {}, Exception("database is locked"))


def facts_of(lake, commit_id):
    """What a commit that changes no row says of itself."""
    return lake.snapshots.current().carry_over(writer_id="m", commit_id=commit_id)
