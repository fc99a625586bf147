"""A lake writer's process: the real start, pump and committer, joined to a sharing group.

It ends as the real one ends (a refusal by name, a crash) and is started again by the world.
"""

from k2.feed.publish.coverage_topic import coverage_in
from k2.lake.ingest.deferral import DeferralSources
from k2.lake.ingest.reading_order import Orders
from k2.lake.ingest.tape_check import WriterTape
from k2.market.coverage import hull
from k2.market.instrument import Tier
from k2.market.ledger import LAKE
from k2.settings import LakeSettings
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder
from k2.tape.partition_map import PartitionMap
from tests.sim.backfill import GapLog
from tests.sim.catalog import Connection
from tests.sim.epoch import begun
from tests.sim.process import Flag
from tests.sim.tape import Admin, Board, Member, Registry


def pump_of(process, parts):
    """A writer's pump, ready to run, once there is a tape that it goes on with.

    Raises:
        Data: the tape does not fit the lake.
    """
    world, identity = process.world, begun(process, parts)
    catalog = Connection(process, world.metastore, world.store)
    placement = PartitionMap(Board(process, world.tape, topics.PARTITIONS), identity.topic_id, 1)
    promises = Board(process, world.tape, topics.COVERAGE)

    def placed():
        return placement.refresh_for(())

    def covered():
        by_feed = coverage_in(promises.current_to_end())
        return {instrument: hull(each.values()) for instrument, each in by_feed.items()}

    pump = parts.pump(
        tape=WriterTape(
            identity=identity,
            join=lambda assign, revoke: Member(process, world.tape, assign, revoke),
            facts=lambda: Admin(process, world.tape).facts("trades"),
            ends=lambda: Admin(process, world.tape).log_ends("trades", identity.partitions),
            tiers=lambda: tuple(Tier),  # one partition each
            decoder=Decoder(Registry(process, world.schemas)),
            placement=placement,
            letters=parts.office(process, world.tape),
        ),
        committer=parts.committer(
            catalog=catalog, clock=process, tape=identity, writer_id=process.identity
        ),
        settings=LakeSettings(
            commit_interval_s=world.swarm.commit_interval_s, rows_per_s_max=rows_per_s_max(world)
        ),
        clock=process,
        stopping=Flag(process),
        orders=Orders(world.degradation.levels_of(process), left=lambda: ledger.left),
    )
    ledger = parts.deferral(
        DeferralSources(lambda: pump.backlog, placed, covered, GapLog(process)),
        process,
        f"{LAKE}{process.identity}",
    )
    process.beside(lambda: ledger.run(Flag(process)))
    return pump


def rows_per_s_max(world):
    """How much a writer takes of what the world prints."""
    times = world.swarm.writer_rate
    return None if times is None else times * world.swarm.rate
