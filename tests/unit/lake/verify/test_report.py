import json

from k2 import limits
from k2.lake.verify.report import Problem, empty_report
from k2.tape.topics import TopicDescription

FACTS = TopicDescription("c", "t", "i", 2, (3, 0), (5, 4))


def test_an_empty_lake_is_ok_and_says_what_waits():
    document = empty_report(FACTS)
    assert document["ok"]
    assert document["uncommitted"] == 6
    assert "6 records" in document["message"]


def test_a_report_is_a_json_document_with_ids_that_keep_their_digits(world):
    world.put(1, 2, 5)
    pump = world.pump()
    pump.step()
    pump.commit()
    document = json.loads(json.dumps(world.verified()))
    assert document["snapshot_id"] == str(world.snapshots.current().snapshot_id)
    assert document["positions"] == world.snapshots.current().positions.encode()
    assert [one["partition"] for one in document["partitions"]] == list(range(8))


def test_holes_are_counted_beyond_those_that_are_listed(world, monkeypatch):
    monkeypatch.setattr(limits, "VERIFY_HOLES_LISTED", 2)
    world.put(1, 3, 5, 7)
    pump = world.pump()
    pump.step()
    pump.commit()
    document = world.verified()
    assert (len(document["holes"]), document["holes_total"]) == (2, 3)
    assert document["ok"]


def test_a_problem_is_a_value():
    assert Problem("LOST", 0, 1, (5,), "m") == Problem("LOST", 0, 1, (5,), "m")
