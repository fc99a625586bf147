"""Runs worlds one after the other, with what they share."""

import itertools
import logging
import shutil
import uuid
from collections import Counter

import numpy as np

from k2 import limits
from k2.clock import ManualClock
from k2.query.execute import Executor
from tests.sim.violation import Violation
from tests.sim.world import World

LOG = logging.getLogger("k2")
IDS = "uuid4"

# So small that a short history meets them: snapshots leave the metadata, files and manifests are
# merged, file lists and manifests are forgotten, a writer stops reading while its commits fail. Of
# what verification finds, all is listed.
SMALL = {
    "COMMIT_ROWS_MAX": 100,
    "SNAPSHOTS_KEPT_MAX": 7,
    "VERIFY_OFFSETS_LISTED": 1_000,
    "SNAPSHOTS_NEWEST_KEPT": 3,
    "COMPACT_FILES_TO_MERGE": 3,
    "COMPACT_QUIET_S": 5.0,
    "SCHEMA_LOOKUPS_PER_BATCH": 4,
    "UNASKED_MAX": 6,
    "OPS_READ_RECORDS": 20,
    "OPS_ROWS_MAX": 15,
    "LETTER_ORIGINS_MAX": 3,
    "LETTER_INTERVALS_MAX": 6,
    "OPS_PACE_S": 1.0,
    "MANIFESTS_TO_MERGE": 3,
    "FILE_LISTS_KEPT": 3,
    "MANIFESTS_KEPT": 4,
    "FEED_TICK_S": 0.1,
    "BACKFILL_STEP_S": 0.5,
    "BACKFILL_ACK_S": 4.0,
    "BACKFILL_QUEUE_RECORDS_MAX": 20,
    "FEED_REST_BACKOFF_MAX_S": 8.0,
}


class Said(logging.Handler):
    """Counts what K2 logs: it names the hard paths, so the counts tell which were taken.

    Attributes:
        times: how often each message came.
        defect: what a loop of K2 caught, did not know, and lived through; it is a finding.
    """

    def __init__(self):
        super().__init__()
        self.times = Counter()
        self.defect = None

    def emit(self, record):
        self.times[record.msg] += 1
        if record.levelno >= logging.ERROR and record.exc_info:
            self.defect = self.defect or record.exc_info[1]


class Runs:
    """See the module; limits are small while one is open, and one query executor serves all.

    Args:
        folder: for the files that a query reads.

    Attributes:
        said: how often K2 logged each message.
    """

    def __init__(self, folder):
        self._folder = folder
        # Its clock stands still: no query of the simulation takes too long.
        self._executor = Executor(
            clock=ManualClock(), warehouse=f"file://{folder}", temp_dir=folder / "tmp", threads=1
        )
        self._worlds = itertools.count()
        self._before = [(limits, name, getattr(limits, name)) for name in SMALL]
        self._before.append((uuid, IDS, getattr(uuid, IDS)))
        self._said = Said()
        self.said = self._said.times

    def __enter__(self):
        for name, value in SMALL.items():
            setattr(limits, name, value)
        LOG.addHandler(self._said)
        LOG.setLevel(logging.WARNING)
        LOG.propagate = False  # every fault that K2 meets is logged: they are many
        return self

    def __exit__(self, *_):
        for owner, name, value in self._before:
            setattr(owner, name, value)
        LOG.removeHandler(self._said)
        LOG.setLevel(logging.NOTSET)
        LOG.propagate = True
        self._executor.close()

    def run(self, seed, parts=None, **fields):
        """One world (see there); it, and what went wrong."""
        setattr(uuid, IDS, _ids(seed))  # what is done in the order of names is the seed's, too
        folder = self._folder / str(next(self._worlds))  # no library remembers another's files
        self._said.defect = None
        world = World(seed, self._executor, folder, parts, **fields)
        try:
            world.run()
        except (Exception, Violation) as error:  # noqa: BLE001 whatever it is, it is the finding
            return world, world.oracle.found or error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return world, self._said.defect


def _ids(seed):
    """What pyiceberg makes names and snapshot ids of, drawn from the seed."""
    chance = np.random.default_rng([seed, 1])
    return lambda: uuid.UUID(bytes=chance.bytes(16), version=4)
