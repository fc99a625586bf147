"""A writer on a store that fails three times in ten, and on a catalog that another holds.

K2's store is a local file system (queries read no other); what an object store does wrong is done
here at the file access that every write and read of the lake goes through.
"""

import errno
import random  # noqa: TID251 the seed is in the test
import sqlite3
from contextlib import closing

import pytest

from k2 import limits
from k2.lake.iceberg import catalog
from k2.lake.iceberg.catalog import DurableFileIO, open_catalog
from k2.lake.iceberg.retrying_io import RetryingFileIO
from tests.support.writer_world import PumpWorld

WAVES = 5
SHARE = 0.3
SEED = 5  # one of those where a commit needs a second try
TRIES_MAX = 3  # of one commit
ERRORS = (
    OSError(errno.EIO, "AWS Error INTERNAL_FAILURE during PutObject: 500"),
    OSError(errno.EIO, "AWS Error SLOW_DOWN during PutObject: 503"),
    TimeoutError(errno.ETIMEDOUT, "the store did not answer in time"),
)

pytestmark = pytest.mark.integration


class FailingFileIO(DurableFileIO):
    """Fails before a file is opened, or after it was written: the answer is what is lost then.

    One chance serves all instances: a table makes its own each time it is loaded.
    """

    chance = random.Random(SEED)
    share = 0.0
    failures = 0

    def maybe_fail(self):
        if self.chance.random() < self.share:
            FailingFileIO.failures += 1
            raise self.chance.choice(ERRORS)

    def new_input(self, location):
        self.maybe_fail()
        return super().new_input(location)

    def new_output(self, location):
        self.maybe_fail()
        return AnswerLost(super().new_output(location), self.maybe_fail)

    def delete(self, location):
        self.maybe_fail()
        super().delete(location)


class AnswerLost:
    """A file whose close may fail though every byte is there."""

    def __init__(self, inner, maybe_fail):
        self._inner, self._maybe_fail = inner, maybe_fail

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def __len__(self):
        return len(self._inner)

    def create(self, overwrite=False):
        stream, maybe_fail = self._inner.create(overwrite), self._maybe_fail
        close = stream.close

        def close_and_maybe_fail():
            already = stream.closed
            close()
            if not already:
                maybe_fail()

        stream.close = close_and_maybe_fail
        return stream


class Store(RetryingFileIO, FailingFileIO):
    """K2's access to files; where it tries something once, the faults are met."""


@pytest.fixture
def failing(monkeypatch):
    monkeypatch.setattr(catalog, "_FILE_IO", f"{__name__}.Store")
    monkeypatch.setattr(FailingFileIO, "chance", random.Random(SEED))
    monkeypatch.setattr(FailingFileIO, "share", 0.0)
    monkeypatch.setattr(FailingFileIO, "failures", 0)
    return FailingFileIO


@pytest.fixture
def world(tmp_path, request):
    made = PumpWorld(tmp_path)
    yield made
    made.close()


def test_commits_survive_a_store_that_fails_three_times_in_ten(failing, world):
    pump, tries = world.pump(), []
    for wave in range(WAVES):
        world.put(*range(wave * 10, wave * 10 + 12))  # two of them are told again
        failing.share = SHARE
        tries.append(0)
        pump.step()
        while True:
            tries[-1] += 1
            if pump.commit():
                break
            world.clock.advance(limits.COMMIT_RETRY_MAX_S)
        failing.share = 0.0
    assert failing.failures > 5 * WAVES
    assert pump.stats.failures == sum(tries) - WAVES > 0
    assert max(tries) <= TRIES_MAX
    assert world.ids() == list(range(WAVES * 10 + 2))
    assert world.verified()["ok"]
    orphans = len(world.on_disk())
    for name in ("first", "second"):
        world.maintainer(name).sweep()
        world.clock.advance(world.settings.lake.sweep_grace_s)
    world.maintainer("last").sweep()
    assert len(world.on_disk()) < orphans  # what failed attempts left
    assert world.ids() == list(range(WAVES * 10 + 2))


def test_a_catalog_that_another_holds_too_long_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "CATALOG_BUSY_S", 0.2)
    world = PumpWorld(tmp_path)
    world.put(1, 2)
    pump = world.pump()
    pump.step()
    with closing(sqlite3.connect(tmp_path / "lake" / "catalog.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        for failures in (1, 2):
            assert not pump.commit()
            assert pump.stats.failures == failures
        with closing(open_catalog(world.settings, world.clock)) as reading:
            assert reading.list_tables("market")  # who reads is not kept waiting
    assert pump.commit()
    assert world.ids() == [1, 2]
    assert pump.stats.commits == 1
    world.close()


@pytest.mark.parametrize("skew_s", [-3600, 3600])
def test_a_writer_whose_clock_is_an_hour_off_commits_beside_one_whose_is_right(tmp_path, skew_s):
    right, wrong = PumpWorld(tmp_path), PumpWorld(tmp_path)
    wrong.tape, wrong.home, wrong.placement = right.tape, right.home, right.placement
    wrong.clock.advance(skew_s)
    made = []
    for turn in range(10):
        world = (right, wrong)[turn % 2]
        right.put(turn * 10, turn * 10 + 1)
        pump = world.pump(f"w{turn}")
        pump.step()
        assert pump.commit()
        made.append(right.snapshots.current())
        right.clock.advance(1)
        wrong.clock.advance(1)
    times = [one.committed_at_us for one in made]
    assert times == sorted(set(times))
    assert [right.snapshots.as_of(at).snapshot_id for at in times] == [m.snapshot_id for m in made]
    assert right.ids() == sorted(10 * turn + one for turn in range(10) for one in (0, 1))
    assert right.verified()["ok"]
    for world in (wrong, right):
        world.close()
