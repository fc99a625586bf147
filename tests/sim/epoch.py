"""A new epoch of the tape: the person who ends the last one, and what a writer's start asks for.

As with `k2 tape new-epoch` the stack is stopped meanwhile; only commits that are under way may
still arrive. Then everything starts at once, under faults: writers race for the first commit of the
epoch, and feeds send to the tape before there is one.
"""

from functools import partial
from itertools import count

from k2.errors import Data, K2Error, Overloaded, Reason, Unavailable
from k2.feed.publish.coverage_topic import read_coverage
from k2.lake.commit.committer import TradeStore
from k2.lake.ingest.epoch_transition import AvailableTape, end_epoch, lost_ids, newest
from k2.lake.ingest.tape_check import assert_fits, identity_of
from k2.market.coverage import hull
from k2.market.ledger import fold_all
from k2.tape import topics
from k2.tape.partition_map import PartitionMap
from k2.tape.truncation_check import read_marks
from tests.sim.catalog import Connection
from tests.sim.ops import GapTeller
from tests.sim.process import Process
from tests.sim.tape import Admin, Board, Reader
from tests.sim.violation import require

TRY_S = 0.5
BEGIN_S = 60.0  # under faults
AFTER_S = 10.0  # the same, in the next epoch


def begun(process, parts):
    """The tape in the epoch that goes on or begins with it: what a writer does first.

    Raises:
        Data: the tape does not fit the lake.
    """
    world, tries = process.world, count(1)
    catalog = Connection(process, world.metastore, world.store)
    admin = Admin(process, world.tape)
    facts = _patiently(process, lambda: admin.facts("trades"))
    there = AvailableTape(
        facts=lambda: admin.facts("trades"),
        marks=_marks(process),
        partition_of=PartitionMap(
            Board(process, world.tape, topics.PARTITIONS), facts.topic_id, 1
        ).place,
        on_carry_over=lambda states: _tell_lost(process, states),
    )

    def begin():
        return parts.begin(catalog, process, there, f"{process.identity}-epoch-{next(tries)}")

    return identity_of(facts, _patiently(process, begin).epoch)


def _marks(process):
    return partial(read_marks, lambda at: Reader(process, process.world.tape, at))


def _tell_lost(process, states):
    board = Board(process, process.world.tape, topics.COVERAGE)
    promised = {one: hull(of.values()) for one, of in read_coverage(board).items()}
    told = fold_all(GapTeller(process).read_all())
    lost = lost_ids(states, promised, told, process.now_us(), process.identity)
    if lost:
        GapTeller(process).publish(lost)


def _patiently(process, attempt):
    while True:
        try:
            return attempt()
        except (Unavailable, Overloaded):
            process.sleep(TRY_S)


def renew(world):
    """End the epoch that the tape has left, and let the world go on in the next one for a while."""
    world.stopped = True
    for process in world.processes:
        if process.alive:
            world.scheduler.kill(process.task)
    world.be_unsafe()
    person = Process(world, "person")
    person.mortal = False
    person.start(lambda: _end(person))
    epoch = world.reference.epoch
    world.wait_for(lambda: person.task.done, "a person to end the epoch")
    world.refusals.add(Reason.EPOCH_ENDED)
    world.stopped, world.chaos.struck, world.venue.open = False, None, True
    world.scheduler.spawn("venue", world.venue.run)
    world.scheduler.run(world.scheduler.now_s + BEGIN_S, lambda: world.reference.epoch > epoch)
    world.scheduler.run(world.scheduler.now_s + AFTER_S)


def _end(process):
    """What `k2 tape new-epoch --yes` does."""
    world, tries = process.world, count(1)
    catalog = Connection(process, world.metastore, world.store)
    while True:
        try:
            head = newest(catalog, TradeStore())
            if head is None or head.epochs.ended:
                return
            why = _what_is_wrong(process, head)
            require(why is not None, "nothing is wrong with the tape, and a writer refused it")
            end_epoch(catalog, process, why, f"{process.identity}-{next(tries)}")
        except K2Error as error:
            world.note(process.identity, f"{error.reason}")
            process.sleep(TRY_S)


def _what_is_wrong(process, head):
    facts = Admin(process, process.world.tape).facts("trades")
    try:
        assert_fits(head, facts, head.positions.epoch, _marks(process))
    except Data as error:
        return error.reason
    return None
