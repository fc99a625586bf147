"""A lake writer's process: the real start, pump and committer, joined to a sharing group.

It ends as the real one ends (a refusal by name, a crash) and is started again by the world.
"""

from k2.lake.ingest.tape_check import WriterTape
from k2.market.instrument import Tier
from k2.settings import LakeSettings
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder
from k2.tape.partition_map import PartitionMap
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
    return parts.pump(
        tape=WriterTape(
            identity=identity,
            join=lambda assign, revoke: Member(process, world.tape, assign, revoke),
            facts=lambda: Admin(process, world.tape).facts("trades"),
            ends=lambda: Admin(process, world.tape).log_ends("trades", identity.partitions),
            tiers=lambda: tuple(Tier),  # one partition each
            decoder=Decoder(Registry(process, world.schemas)),
            placement=PartitionMap(
                Board(process, world.tape, topics.PARTITIONS), identity.topic_id, 1
            ),
            letters=parts.office(process, world.tape),
        ),
        committer=parts.committer(
            catalog=catalog, clock=process, tape=identity, writer_id=process.identity
        ),
        settings=LakeSettings(commit_interval_s=world.swarm.commit_interval_s),
        clock=process,
        stopping=Flag(process),
    )
