"""Ops events become rows once, whatever is killed, doubled, refused or away."""

import dataclasses
import threading

import pytest

from k2 import limits
from k2.errors import NotFound, Reason, Unavailable
from k2.lake.commit.event_files import OpsStore, place
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT, GAPS_LAYOUT
from k2.lake.ingest.epoch_transition import end_epoch
from k2.lake.ingest.event_writer import run_ops
from k2.market.events import Fault
from tests.support.eventually import eventually
from tests.support.lake_world import Crash, FaultyCatalog
from tests.support.ops_world import INTERVAL_S, OpsWorld, gap, letter


@pytest.fixture
def world(tmp_path):
    made = OpsWorld(tmp_path)
    yield made
    made.close()


def test_a_letter_becomes_a_row_when_the_interval_is_over(world):
    writer = world.letter_writer()
    world.post(letter(5))
    writer.step()
    world.clock.advance(INTERVAL_S / 2)
    writer.step()
    assert world.origins() == []
    world.clock.advance(INTERVAL_S / 2)
    writer.step()
    assert world.origins() == [5]
    assert (writer.stats.rows, writer.stats.commits) == (1, 1)


def test_nothing_to_write_is_no_commit(world):
    writer = world.letter_writer()
    world.commit(writer)
    world.clock.advance(INTERVAL_S)
    world.commit(writer)
    assert writer.stats.commits == 0


def test_much_is_committed_at_once(world):
    writer = world.letter_writer()
    world.post(*(letter(each, value=bytes(limits.OPS_BYTES_MAX // 4)) for each in range(5)))
    writer.step()
    assert world.origins() == [0, 1, 2, 3, 4]


def test_a_letter_that_was_published_twice_is_one_row(world):
    writer = world.letter_writer()
    world.post(letter(5), letter(7), letter(5))
    world.commit(writer)
    world.post(letter(7), letter(9), letter(5, partition=1))
    world.commit(writer)
    assert world.origins() == [5, 7, 9, 5]
    world.post(letter(9))
    world.commit(world.letter_writer("next"))
    assert world.origins() == [5, 7, 9, 5]
    assert world.letter_writer()._ends.view().position == 7


def test_older_letters_than_are_remembered_are_looked_up(world, monkeypatch):
    monkeypatch.setattr(limits, "LETTER_INTERVALS_MAX", 4)
    monkeypatch.setattr(limits, "LETTER_ORIGINS_MAX", 2)
    writer = world.letter_writer()
    world.post(*(letter(each) for each in range(0, 30, 2)))
    world.commit(writer)
    for run in range(4):
        world.post(letter(1, f"feed:{run}"))
        world.commit(writer)
    world.post(letter(2), letter(3), letter(28), letter(1, "feed:0"), letter(2, "feed:0"))
    world.commit(world.letter_writer("next"))
    assert world.origins() == [*range(0, 30, 2), 1, 1, 1, 1, 3, 2]


def test_each_gap_event_is_a_row_as_published(world):
    writer = world.gap_writer()
    world.tell(gap(5, 9), gap(5, 9), gap(1, 1, "ETHUSDT"))
    world.commit(writer)
    rows = world.stored(GAPS_LAYOUT, "symbol", "first_id", "last_id", "state", "filled_at")
    assert [(row["symbol"], row["first_id"], row["tape_offset"]) for row in rows] == [
        ("BTCUSDT", 5, 0), ("BTCUSDT", 5, 1), ("ETHUSDT", 1, 2),
    ]  # fmt: skip
    assert {row["filled_at"] for row in rows} == {None}


def test_what_is_no_gap_event_is_a_dead_letter_of_its_topic(world):
    gaps, letters = world.gap_writer(), world.letter_writer()
    world.tell(gap(5, 9))
    world.gaps.append(0, b"what?", None, world.codec.encode(gap(5, 9).values(), 1)[:-1])
    world.tell(gap(10, 11))
    world.commit(gaps)
    world.commit(letters)
    assert [row["first_id"] for row in world.stored(GAPS_LAYOUT, "first_id")] == [5, 10]
    rows = world.stored()
    assert [(row["origin"], row["origin_offset"], row["fault"]) for row in rows] == [
        ("k2.gaps", 1, "BAD_MAGIC"), ("k2.gaps", 2, "NULL_VALUE"), ("k2.gaps", 3, "TRUNCATED"),
    ]  # fmt: skip
    assert [row["value"] for row in rows][:2] == [b"what?", None]


def test_letters_of_bad_gap_events_are_acknowledged_before_a_commit_passes_them(world):
    writer = world.gap_writer()
    world.gaps.append(0, b"what?")
    world.letters.away = True
    world.commit(writer)
    assert world.stored(GAPS_LAYOUT) == []
    assert writer.stats.commits == 0
    world.letters.away = False
    world.clock.advance(limits.COMMIT_RETRY_MAX_S)
    world.commit(writer)
    assert writer.stats.commits == 1
    assert world.letters.logs[0].values == [b"what?"]


def test_a_record_among_the_letters_that_is_none_is_a_row_too(world):
    world.letters.append(0, b"hello", headers=[("topic", b"trades"), ("offset", b"x")])
    world.letters.append(0, b"again")
    world.post(letter(5))
    world.commit(world.letter_writer())
    rows = world.stored()
    assert [(row["origin"], row["origin_offset"], row["fault"]) for row in rows] == [
        ("k2.dead-letters", 0, Fault.BAD_VALUE.name),
        ("k2.dead-letters", 1, Fault.BAD_VALUE.name),
        ("trades", 5, Fault.TRUNCATED.name),
    ]
    assert rows[0]["value"] == b"hello"


@pytest.mark.parametrize(("fault", "held"), [("crash before", []), ("crash after", [5, 6])])
def test_a_writer_that_dies_around_the_swing_leaves_all_or_nothing(world, fault, held):
    world.post(letter(5), letter(6))
    with pytest.raises(Crash):
        world.commit(world.letter_writer("w1", FaultyCatalog(world.catalog, "none", fault)))
    assert world.origins() == held
    world.commit(world.letter_writer("w2"))
    assert world.origins() == [5, 6]


@pytest.mark.parametrize("at", [(), ("none",)], ids=["its beginning", "its rows"])
@pytest.mark.parametrize("fault", ["busy", "disk full", "reply lost", "landed and refused"])
def test_what_the_catalog_does_not_take_is_read_again(world, fault, at):
    writer = world.letter_writer("w1", FaultyCatalog(world.catalog, *at, fault))
    world.post(letter(5), letter(6))
    world.commit(writer)
    world.clock.advance(limits.COMMIT_RETRY_MAX_S)
    world.commit(writer)
    world.post(letter(7))
    world.commit(writer)
    assert world.origins() == [5, 6, 7]


def test_a_commit_in_doubt_is_not_repeated_when_the_catalog_is_back(world):
    catalog = FaultyCatalog(world.catalog, "none", "away after")
    writer = world.letter_writer("w1", catalog)
    world.post(letter(5))
    world.commit(writer)
    catalog.away = False
    world.post(letter(6))
    world.clock.advance(limits.COMMIT_RETRY_MAX_S)
    world.commit(writer)
    assert world.origins() == [5, 6]


def test_two_writers_that_race_write_each_event_once(world):
    one, two = world.gap_writer("one"), world.gap_writer("two")
    world.tell(gap(1, 1), gap(2, 2))
    one.step()
    two.step()
    world.tell(gap(3, 3))
    two.step()
    one.close()
    world.clock.advance(INTERVAL_S)
    two.step()  # fenced: lets go
    assert two.stats.failures == 1
    world.clock.advance(limits.COMMIT_RETRY_MAX_S)
    world.commit(two)
    world.commit(one)
    rows = world.stored(GAPS_LAYOUT, "first_id")
    assert [(row["tape_offset"], row["first_id"]) for row in rows] == [(0, 1), (1, 2), (2, 3)]


def test_losing_the_race_inside_the_commit_is_losing_it(world):
    def before():
        world.post(letter(6))
        world.commit(world.letter_writer("other"))

    world.commit(world.letter_writer("first"))
    writer = world.letter_writer("w1", FaultyCatalog(world.catalog, before=before))
    world.post(letter(5))
    world.commit(writer)
    assert (writer.stats.failures, writer.stats.rows) == (1, 0)
    world.clock.advance(limits.COMMIT_RETRY_MAX_S)
    world.post(letter(5), letter(7))
    world.commit(writer)
    assert world.origins() == [5, 6, 7]


def test_the_tape_may_be_away_for_long(world):
    writer = world.letter_writer()
    world.letters.away = True
    for _ in range(10):
        world.clock.advance(limits.COMMIT_RETRY_MAX_S)
        writer.step()
    world.letters.away = False
    world.post(letter(5))
    world.clock.advance(limits.COMMIT_RETRY_MAX_S)
    world.commit(writer)
    assert world.origins() == [5]
    assert writer.stats.halted == ""


def test_a_topic_that_is_not_there_yet_is_waited_for(world):
    writer = world.letter_writer()
    ends, there = writer._ends, []

    def facts():
        if not there:
            raise NotFound(Reason.UNKNOWN_TOPIC, "no such topic")
        return ends.facts()

    writer._ends = dataclasses.replace(ends, facts=facts)
    writer.step()
    there.append(True)
    world.post(letter(5))
    world.clock.advance(limits.COMMIT_RETRY_MAX_S)
    world.commit(writer)
    assert world.origins() == [5]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda tape: tape.recreate(), Reason.TOPIC_RECREATED),
        (lambda tape: setattr(tape, "cluster_id", "other"), Reason.CLUSTER_CHANGED),
        (lambda tape: tape.truncate(0, 0), Reason.TAPE_TRUNCATED),
        (lambda tape: (tape.append(0, b"x", b"y"), tape.remove_before(0, 2)),
         Reason.RETENTION_OVERTOOK),
    ],
)  # fmt: skip
def test_a_tape_that_does_not_fit_halts_the_table_by_name(world, harm, reason):
    world.post(letter(5))
    world.commit(world.letter_writer())
    harm(world.letters)
    writer = world.letter_writer("w2")
    writer.step()
    assert writer.stats.halted.startswith(reason.value)
    assert writer.step() == 0


def test_a_new_table_begins_where_the_topic_does(world):
    world.post(letter(5), letter(6), letter(7))
    world.letters.remove_before(0, 2)
    world.commit(world.letter_writer())
    assert world.origins() == [7]
    assert world.letter_writer()._ends.view().position == 3


def test_what_is_pending_is_committed_at_the_stop(world):
    stopping = threading.Event()
    gaps, letters = world.gap_writer(), world.letter_writer()
    thread = threading.Thread(target=run_ops, args=([gaps, letters], stopping))
    thread.start()
    world.tell(gap(1, 1))
    world.post(letter(5))
    eventually(lambda: gaps._slice and letters._slice and gaps._slice.end + letters._slice.end == 2)
    stopping.set()
    thread.join(30)
    assert not thread.is_alive()
    assert world.origins() == [5]
    assert len(world.stored(GAPS_LAYOUT)) == 1


def test_a_stop_while_the_lake_is_away_loses_nothing(world):
    catalog = FaultyCatalog(world.catalog, "none", "busy")
    writer = world.letter_writer("w1", catalog)
    world.post(letter(5))
    writer.step()
    writer.close()
    assert world.origins() == []
    world.commit(world.letter_writer("w2"))
    assert world.origins() == [5]


def test_an_intake_that_must_wait_waits(world):
    writer = world.gap_writer()
    world.codec._schemas = Away()
    world.gaps.append(0, b"\x00\x00\x00\x00\x09abc")
    writer.step()
    assert writer.stats.failures == 1
    assert writer.stats.halted == ""


class Away:
    def schema(self, schema_id):
        raise Unavailable(Reason.REGISTRY_UNAVAILABLE, "away")


def ended(world, layout):
    commit_id = f"end-{layout.name}"
    return end_epoch(world.catalog, world.clock, "CLUSTER_CHANGED", commit_id, OpsStore(layout))


def test_once_its_epoch_has_ended_a_table_goes_on_with_the_topic_that_is_there(world):
    world.post(letter(5), letter(6), letter(7))
    world.commit(world.letter_writer())
    world.letters.recreate()
    world.post(letter(6), letter(8))
    writer = world.letter_writer("w2")
    world.commit(writer)
    assert writer.stats.halted.startswith("TOPIC_RECREATED")
    ended(world, DEAD_LETTERS_LAYOUT)
    writer = world.letter_writer("w3")
    world.commit(writer)
    assert (writer.stats.halted, writer.stats.rows) == ("", 1)
    assert world.origins() == [5, 6, 7, 8]
    places = [(row["tape_epoch"], row["tape_offset"]) for row in world.stored()]
    assert places == [(0, 0), (0, 1), (0, 2), (1, 1)]


def test_rows_of_the_epochs_come_in_their_order_page_by_page(world):
    world.tell(*(gap(each, each) for each in range(5)))
    world.commit(world.gap_writer())
    ended(world, GAPS_LAYOUT)
    world.gaps.recreate()
    world.tell(*(gap(each, each) for each in range(5, 8)))
    world.commit(world.gap_writer("w2"))
    view = world.gap_writer()._ends.view()
    assert (view.epoch, view.position) == (1, 3)
    for below, newest in ((None, 7), (place(1, 1), 5), (2, 1)):
        page = [row["first_id"] for row in view.newest(["first_id"], below=below)]
        assert page == [*range(newest, -1, -1)]
