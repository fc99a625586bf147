"""Partitions that wait for a dependency, and the reasons for which they are paused."""

from k2 import limits
from k2.errors import Reason, Unavailable
from k2.lake.ingest.pausing import PauseReason
from k2.market.events import Fault
from tests.support.lake_world import FaultyCatalog
from tests.support.writer_world import BTC, ETH, Schemas


def unknown(schema_id=99):
    return b"\x00" + schema_id.to_bytes(4, "big") + b"whatever"


def away(world):
    """The registry cannot be asked for what is not known yet."""

    def remembers(schema_id):
        return schema_id in world.schemas.known

    def schema(schema_id):
        if schema_id in world.schemas.known:
            return world.schemas.known[schema_id]
        raise Unavailable(Reason.REGISTRY_UNAVAILABLE, "away")

    world.schemas.remembers, world.schemas.schema = remembers, schema


def test_a_partition_whose_schema_cannot_be_looked_up_waits_alone(world):
    away(world)
    world.tape.append(world.home[BTC], unknown())
    world.put(1)
    world.put(1, 2, symbol="ETHUSDT")
    pump = world.pump()
    pump.step()
    assert pump.commit()
    assert (world.ids(), world.ids("ETHUSDT")) == ([], [1, 2])
    world.put(3, symbol="ETHUSDT")
    pump.step()
    assert pump.commit()
    assert world.ids("ETHUSDT") == [1, 2, 3], "the others go on being read and committed"
    assert world.tape.letters == []
    assert pump.stats.waiting == {world.home[BTC]: "away"}
    world.clock.advance(limits.UNASKED_AFTER_S)
    for _ in range(2):  # the record itself, and what follows
        pump.step()
    assert pump.stats.waiting == {}
    assert pump.commit()
    assert world.ids() == [1]
    assert [letter.fault for letter in world.tape.letters] == [Fault.UNKNOWN_SCHEMA]
    world.schemas = Schemas()
    assert world.verified()["ok"]


def test_a_flood_of_schema_ids_holds_up_no_other_partition(world):
    asked, ask = [], world.schemas.schema

    def schema(schema_id):
        asked.append(schema_id)
        return ask(schema_id)

    world.schemas.schema = schema
    flood = 3 * limits.SCHEMA_LOOKUPS_PER_BATCH
    partition = world.put(1)
    world.tape.append(partition, *(unknown(100 + number) for number in range(flood)))
    world.put(2)
    world.put(1, symbol="ETHUSDT")
    pump = world.pump()
    pump.step()
    assert len(asked) <= limits.SCHEMA_LOOKUPS_PER_BATCH + 1
    assert partition in pump._reading.reader._paused, "what is held of it stays bounded"
    world.put(2, symbol="ETHUSDT")
    pump.step()
    assert pump.commit()
    assert (world.ids(), world.ids("ETHUSDT")) == ([1], [1, 2])
    while pump._reading.may_judge():
        pump.step()
    assert pump.commit()
    assert (world.ids(), len(world.tape.letters)) == ([1, 2], flood)
    assert partition not in pump._reading.reader._paused
    assert world.verified()["ok"]


def test_a_partition_that_waited_is_read_when_it_comes_back(world):
    away(world)
    partition = world.put(1)
    world.tape.append(partition, unknown())
    world.put(2)
    one = world.pump("one", instance="b")
    one.step()
    one.step()
    group = world.tape.groups["lake"]
    two = world.pump("two", instance="a")  # gets the partition
    one.step()
    two.step()
    assert two.commit()
    del group.members["a"]
    group.members["b"]._rebalance = True
    world.schemas = Schemas()
    one._tape.decoder._schemas = world.schemas
    for _ in range(3):
        one.step()
    assert one.commit()
    assert world.ids() == [1, 2]
    assert [letter.offset for letter in world.tape.letters] == [1]
    assert world.verified()["ok"]


def test_reasons_of_a_pause_are_independent(world, monkeypatch):
    away(world)
    monkeypatch.setattr(limits, "COMMIT_ROWS_MAX", 2)
    catalog = FaultyCatalog(world.catalog)
    pump = world.pump(catalog=catalog)
    pump.step()
    world.tape.append(world.home[BTC], unknown())
    pump.step()
    world.put(7)
    catalog.away = True
    world.put(*range(1, 6), symbol="ETHUSDT")
    pump.step()  # at the bound
    catalog.away = False
    world.clock.advance(limits.UNASKED_AFTER_S / 2)
    pump.commit()
    pump.step()
    waits = pump._reading.pauses.of(world.home[BTC])
    assert waits == {PauseReason.WAITING}, "memory is free again, and that alone resumes nothing"
    assert world.home[BTC] in pump._reading.reader._paused
    assert world.home[ETH] not in pump._reading.reader._paused
