"""A record is a row or a dead letter: where both exist, the committed row stands."""

import numpy as np
import pytest

from k2.clock import SystemClock
from k2.lake.dead_letters.superseded import (
    PartitionLetters,
    SupersededLetters,
    apply_recorded_faults,
)
from k2.lake.iceberg.catalog import open_catalog
from k2.lake.iceberg.tables import ensure_tables
from k2.market.events import Fault
from k2.market.instrument import Instrument, first_partition
from k2.market.schema import TRADE, avro_schema
from k2.settings import Settings
from k2.tape.dead_letter_topic import DeadLetter
from tests.support.trades import columns
from tests.support.writer_world import BTC, message
from tests.unit.lake.test_verify_floor import retained

SOL = Instrument("BINANCE", "SOLUSDT")
NEW_ID = 9


def letter(partition, offset, fault, *, topic="trades", epoch=0):
    return DeadLetter(topic, epoch, partition, offset, 7, fault, "", 0, b"x")


class Unplaced:
    """A record whose symbol has no partition."""

    def __init__(self, world):
        self.world = world
        self.symbol = "SOLUSDT"
        self.partition = first_partition(SOL, 2)
        world.tape.append(self.partition, message(1, "SOLUSDT"))

    def becomes_good(self):
        self.world.home[SOL] = self.world.placement.place(SOL)
        assert self.world.home[SOL] == self.partition


class Unregistered:
    """A record whose schema is not registered."""

    def __init__(self, world):
        self.world = world
        self.symbol = "BTCUSDT"
        self.partition = world.home[BTC]
        world.tape.append(self.partition, b"\x00\x00\x00\x00\x09" + message(1)[5:])

    def becomes_good(self):
        self.world.schemas.known[NEW_ID] = avro_schema(TRADE)


@pytest.fixture(params=[Unplaced, Unregistered])
def record(request, world):
    return request.param(world)


def overruled(world):
    return SupersededLetters(world.catalog).among(world.tape.letters)


def pumped(world, writer_id):
    pump = world.pump(writer_id)
    pump.step()
    assert pump.commit()


def test_a_letter_whose_writer_was_killed_before_its_commit_is_overruled(world, record):
    world.pump("killed").step()
    (letter,) = world.tape.letters
    record.becomes_good()
    world.put(2, symbol=record.symbol)
    pumped(world, "next")
    assert world.ids(record.symbol) == [1, 2]
    assert overruled(world) == {letter.name}
    report = world.verified()
    assert report["problems"] == []
    assert (report["accepted"], report["dead"], report["letters_overruled"]) == (2, 0, 1)


def test_a_letter_that_a_zombie_publishes_late_is_overruled(world, record):
    """It has judged before the record was good, and is slow; the next is assigned meanwhile."""
    held = []

    class Slow:
        def publish(self, letters, wait_s):
            held.extend(letters)

    zombie = world.pump("zombie", instance="z", letters=Slow())
    zombie.step()
    record.becomes_good()
    zombie._reading.reader.close()
    pumped(world, "next")
    world.tape.office().publish(held, 1.0)
    zombie.commit()
    assert (zombie.stats.rows, zombie.stats.dead) == (0, 0)
    assert world.ids(record.symbol) == [1]
    assert overruled(world) == {held[0].name}
    assert world.verified()["problems"] == []


def test_a_letter_whose_commit_landed_stands(world, record):
    pumped(world, "w1")
    record.becomes_good()
    world.put(1, symbol=record.symbol)  # as a replay puts it back
    pumped(world, "w2")
    assert world.ids(record.symbol) == [1]
    assert overruled(world) == frozenset()
    report = world.verified()
    assert report["problems"] == []
    assert (report["accepted"], report["dead"], report["letters_overruled"]) == (1, 1, 0)


def test_a_letter_of_what_was_a_duplicate_to_the_next_writer_is_no_fault(world, record):
    world.tape.append(record.partition, *world.tape.logs[record.partition].values)
    world.pump("killed").step()
    record.becomes_good()
    pumped(world, "next")
    first, _ = world.tape.letters
    assert overruled(world) == {first.name}
    report = world.verified()
    assert report["problems"] == []
    assert (report["accepted"], report["duplicate"], report["letters_overruled"]) == (1, 1, 1)


def test_a_row_that_overruled_a_letter_may_be_removed_by_retention(world, record):
    world.pump("killed").step()
    record.becomes_good()
    pumped(world, "next")
    world.put(9, symbol=record.symbol, at=world.clock.now_us())
    pumped(world, "later")
    retained(world)
    assert world.ids(record.symbol) == [9], "the row is of long ago"
    assert world.verified()["problems"] == []


def test_a_lost_row_is_found_though_a_letter_names_its_place(world, record):
    """A letter alone excuses nothing: the lake says that it accepted the record."""
    world.pump("killed").step()
    record.becomes_good()
    pumped(world, "next")

    class Emptied:
        def __getattr__(self, name):
            return getattr(world.snapshots, name)

        def files(self, snapshot_id):
            return ()

    kinds = {one["kind"] for one in world.verified(snapshots=Emptied())["problems"]}
    assert kinds == {"STATE", "COUNTERS"}


def test_a_letter_of_another_fault_or_place_is_never_overruled(world):
    partition = world.put(1)
    pumped(world, "w1")
    world.tape.office().publish(
        [
            letter(partition, 0, Fault.TRUNCATED),
            letter(partition, 0, Fault.UNKNOWN_SCHEMA, topic="others"),
            letter(partition, 0, Fault.UNKNOWN_SCHEMA, epoch=1),
            letter(partition, 1, Fault.UNKNOWN_SCHEMA),
            letter(partition + 1, 0, Fault.UNKNOWN_SCHEMA),
        ],
        1.0,
    )
    assert overruled(world) == frozenset()
    assert {one["kind"] for one in world.verified()["problems"]} == {"LETTER_UNDUE"}


def test_a_lake_that_is_not_there_overrules_nothing(tmp_path):
    settings = Settings(data_dir=tmp_path)
    catalog = open_catalog(settings, SystemClock())
    told = [letter(0, 0, Fault.UNKNOWN_SCHEMA)]
    assert SupersededLetters(catalog).among(told) == frozenset()
    ensure_tables(catalog)
    assert SupersededLetters(catalog).among(told) == frozenset()
    catalog.close()


def test_records_get_the_faults_of_their_timely_letters_alone():
    found = columns([1, 2, 3, 4], first_offset=10, faults=[0, 0, Fault.UNKNOWN_SCHEMA, 0])
    told = {
        9: Fault.UNKNOWN_SCHEMA,
        11: Fault.WRONG_PARTITION,
        12: Fault.UNKNOWN_SCHEMA,
        13: Fault.TRUNCATED,
        14: Fault.UNKNOWN_SCHEMA,
    }
    given = PartitionLetters(np.array([*told]), np.array([*told.values()], dtype=np.uint8))
    then, doubtful = apply_recorded_faults(found, given)
    assert then.fault.tolist() == [0, Fault.WRONG_PARTITION, Fault.UNKNOWN_SCHEMA, 0]
    assert found.fault.tolist() == [0, 0, Fault.UNKNOWN_SCHEMA, 0]
    assert doubtful == 1
