import threading

from k2.errors import Data, Reason
from k2.feed.gaps.backfill_thread import Backfill
from tests.support.eventually import eventually
from tests.support.fill_world import BTC, FillWorld

ALL = {BTC: range(1, 1001)}


class Running:
    """A backfill in its thread."""

    def __init__(self, world):
        self.stopping = threading.Event()
        self.backfill = Backfill(
            recorder=world.keeper,
            filler=world.filler,
            instruments=[BTC],
            stopping=self.stopping,
        )

    def __enter__(self):
        self.backfill.start()
        return self.backfill

    def __exit__(self, *_):
        self.stopping.set()
        self.backfill.close(10)


def test_gaps_are_kept_and_filled_beside_the_loop():
    world = FillWorld(ALL)
    with Running(world) as backfill:
        world.hear(10, 14)
        backfill.exchange(world.lines, 0.0)
        backfill.exchange(world.lines, 1.0)
        eventually(lambda: world.ids() == [11, 12, 13])
        eventually(lambda: backfill.counters()["filled_ids"] == 3)
        backfill.exchange(world.lines, 1.1)
        assert world.lines[0].covered_through == 14


def test_an_absent_broker_is_waited_for():
    world = FillWorld(ALL)
    world.log.refusing = True
    with Running(world) as backfill:
        world.hear(10, 14)
        backfill.exchange(world.lines, 0.0)
        backfill.exchange(world.lines, 1.0)
        world.log.refusing = False
        eventually(lambda: world.ids() == [11, 12, 13])
        assert backfill.failure is None


def test_what_no_retry_mends_is_said():
    world = FillWorld(ALL)

    def broken():
        raise Data(Reason.SCHEMA_CONFLICT, "the ledger is of another age")

    world.log.advance = broken
    with Running(world) as backfill:
        eventually(lambda: backfill.failure)
    assert backfill.failure.reason is Reason.SCHEMA_CONFLICT
