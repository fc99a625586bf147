"""The real SQL catalog, in memory, behind a process's faulty connection to it.

What goes wrong around the swing of the head is what a commit must survive: a conflict that is none,
a commit that landed and was answered otherwise, no answer at all, and a commit that lands some time
*after* its client gave up and looked. Others run between a process's read of the head and its own
swing, so real conflicts happen as well.
"""

import numpy as np
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from sqlalchemy import StaticPool, create_engine
from sqlalchemy.exc import OperationalError

from k2.lake.iceberg.tables import TRADES
from tests.sim.store import Files

LATE_S = (0.01, 15.0)
SILENT_S = 2.0
STORE = "tests.sim.store"


class Metastore(SqlCatalog):
    """The catalog itself; a request that reached it is answered without faults."""

    def __init__(self, store, warehouse):
        super().__init__(
            "k2",
            uri="sqlite://",
            warehouse=warehouse,
            schema_version="v1",
            **{"py-io-impl": f"{__name__}.CalmFiles", STORE: store},
        )
        self.engine.dispose()
        self.engine = create_engine(  # one connection for all threads: the database is its own
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        self._init_catalog()


class CalmFiles(Files):
    """The catalog's own way to the store, as pyiceberg makes it."""

    def __init__(self, properties):
        super().__init__(properties[STORE])


def unavailable(what):
    return OperationalError(what, {}, Exception("simulated"))


class Connection:
    """What a process holds of the catalog: the parts of `SqlCatalog` that K2 uses."""

    def __init__(self, process, metastore, store):
        self.process = process
        self.name = metastore.name
        self.engine = Engine(self, metastore.engine)
        self.files = Files(store, process)
        self._metastore = metastore
        self._silent_until_s = 0.0

    def load_table(self, identifier):
        self.ask("load the table")
        return self._mine(self._metastore.load_table(identifier))

    def commit_table(self, table, requirements, updates):
        process, world = self.process, self.process.world
        self.ask("commit")
        if world.happens("catalog.refused"):
            raise CommitFailedException("refused, and not landed")
        if world.happens("catalog.late"):
            self._later(table, requirements, updates)
            self._silent(0.5)
            raise unavailable("no answer")
        reply = self._swing(table, requirements, updates)
        process.after("commit")
        if world.happens("catalog.reply_lost"):
            world.note(process.identity, "the reply is lost")
            self._silent(0.5)
            raise unavailable("the reply was lost")
        if world.happens("catalog.landed_refused"):
            world.note(process.identity, "refused though it landed")
            raise CommitFailedException("a retried request found its own commit")
        return reply

    def ask(self, what):
        """A request that may not come through."""
        self.process.before(what)
        silent = self.process.monotonic_s() < self._silent_until_s
        if silent or self.process.world.catalog_away or self.process.world.happens("catalog.busy"):
            self.process.world.note(self.process.identity, f"{what}: the catalog is away")
            raise unavailable("the database is locked")

    def _silent(self, often):
        """The connection is gone for a while, more or less often."""
        chance = self.process.world.chance
        if chance.random() < often:
            self._silent_until_s = self.process.monotonic_s() + chance.exponential(SILENT_S)

    def _swing(self, table, requirements, updates):
        reply = self._metastore.commit_table(table, requirements, updates)
        if table.name() == TRADES:
            self.process.world.oracle.landed(reply.metadata, reply.metadata_location)
        else:
            self.process.world.ops.landed(table.name(), reply.metadata)
        return reply

    def _later(self, table, requirements, updates):
        """The request is under way somewhere; whether it lands is seen by nobody who asked."""
        world = self.process.world
        name = f"late commit of {self.process.identity}"

        def land():
            world.note(name, "arrives")
            try:
                self._swing(table, requirements, updates)
            except CommitFailedException:
                world.note(name, "is refused")

        low, high = np.log(LATE_S)
        world.scheduler.spawn(name, land, float(np.exp(world.chance.uniform(low, high))))

    def _mine(self, table):
        return Table(table.name(), table.metadata, table.metadata_location, self.files, self)


class Engine:
    """The part of SQLAlchemy's engine that a poll of the metadata location uses."""

    def __init__(self, connection, engine):
        self._connection = connection
        self._engine = engine

    def connect(self):
        self._connection.ask("poll the catalog")
        return self._engine.connect()
