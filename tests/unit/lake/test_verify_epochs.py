"""Verification of a lake whose rows are of several epochs of the tape."""

import numpy as np
import pytest

from k2.errors import Data, Reason
from k2.lake.commit.committer import PartitionBatch
from k2.lake.ingest.epoch_transition import end_epoch
from tests.support.trades import NOW_US
from tests.support.writer_world import pumped


def test_a_lake_that_waits_for_its_next_epoch_cannot_be_verified(world):
    world.put(1)
    pumped(world)
    end_epoch(world.catalog, world.clock, Reason.TOPIC_RECREATED, "end")
    with pytest.raises(Data) as caught:
        world.verified()
    assert caught.value.reason is Reason.EPOCH_ENDED


def test_a_row_that_an_earlier_epoch_holds_as_well_is_found(world):
    world.put(1, 2)
    pumped(world)
    world.begin_epoch()
    partition = world.put(2, 3)
    pump = world.pump("w2")
    pump.step()
    (one,) = (held for held in pump._reading.slices.values() if held.end > held.start)
    (taken,) = one.pieces
    twice = taken.accepted.take(np.array([0, 0]))
    twice.offset[0], twice.trade_id[0] = 0, 2
    writer = world.committer("bad", tape=world.identity)
    writer.commit([PartitionBatch(partition, 0, 2, (twice,), one.state)])
    report = world.verified()
    assert not report["ok"]
    assert {(p["kind"], p["offsets"]) for p in report["problems"]} == {("UNDUE", (0,))}


def test_what_is_missing_or_doubled_in_an_earlier_epoch_is_found(world):
    world.put(1, 2)
    pumped(world)
    world.begin_epoch()
    with world.table.transaction() as transaction:
        transaction.delete("trade_id == 2")
    assert {(p["kind"], p["count"]) for p in world.verified()["problems"]} == {("STATE", 1)}
    with world.table.transaction() as transaction:
        transaction.append(world.table.scan().to_arrow())
    assert {p["kind"] for p in world.verified()["problems"]} == {"STATE", "DOUBLED"}


def test_ids_used_again_in_an_earlier_epoch_are_carried_and_no_problem(world):
    world.put(1, 2)
    world.put(1, at=NOW_US + 7_200_000_000)
    pumped(world)
    world.begin_epoch()
    world.put(3)
    world.put(2, at=NOW_US + 7_300_000_000)
    pumped(world, "w2")
    report = world.verified()
    assert report["ok"], report["problems"]
    assert (report["accepted"], report["dead"]) == (1, 1)
