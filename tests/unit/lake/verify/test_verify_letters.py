"""The table of dead letters is held against the tape, at its own position."""

import dataclasses

import pyarrow as pa
import pytest

from k2.lake.commit.committer import PartitionBatch, TapeIdentity
from k2.lake.commit.event_files import OpsStore, view_of
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT
from k2.lake.ingest.epoch_transition import end_epoch
from k2.lake.ingest.event_rows import row_of
from k2.lake.verify.verify_letters import LetterSources, compare_letters
from k2.market.events import DAY_US
from k2.market.fold import FoldState
from k2.tape.dead_letter_topic import Posted, read_letter
from tests.support.ops_world import OpsWorld, letter
from tests.support.trades import NOW_US


@pytest.fixture
def world(tmp_path):
    made = OpsWorld(tmp_path)
    yield made
    made.close()


def posted(world):
    log = world.letters.logs[0]
    for number, (headers, value) in enumerate(zip(log.headers, log.values, strict=True)):
        if (found := read_letter(headers, value)) is not None:
            yield Posted(log.start + number, found)


def compared(world):
    return compare_letters(
        LetterSources(
            view=lambda: view_of(world.catalog, DEAD_LETTERS_LAYOUT), posted=lambda: posted(world)
        )
    )


def kinds(world):
    return {(one.kind, one.count, one.offsets) for one in compared(world).problems}


def meddled(world, end, *rows, start=0):
    """Commit these (letter, tape offset) as if the writer had."""
    facts = world.letters.admin().facts(world.letters.topic)
    identity = TapeIdentity(facts.topic, facts.topic_id, facts.cluster_id, 0, 1)
    committer = world.committer("bad", tape=identity, store=OpsStore(DEAD_LETTERS_LAYOUT))
    made = [
        row_of(one) | {"tape_epoch": 0, "tape_partition": 0, "tape_offset": offset}
        for one, offset in rows
    ]
    table = pa.Table.from_pylist(made, schema=DEAD_LETTERS_LAYOUT.columns)
    committer.commit([PartitionBatch(0, start, end, (table,), FoldState())])


def test_a_table_that_holds_each_letter_once_has_no_problem(world):
    world.post(letter(5), letter(6), letter(5))
    world.letters.append(0, b"no letter")
    world.commit(world.letter_writer())
    world.post(letter(7))
    found = compared(world)
    assert found.problems == ()
    assert (found.rows, found.waiting) == (3, 1)


def test_without_a_table_all_letters_wait(world):
    world.post(letter(5), letter(6))
    found = compared(world)
    assert (found.problems, found.rows, found.waiting) == ((), 0, 2)


def test_a_letter_that_the_table_lacks_is_found(world):
    world.post(letter(5), letter(6))
    meddled(world, 2, (letter(6), 1))
    assert kinds(world) == {("LETTER_ROW_MISSING", 1, (0,))}


def test_a_letter_that_is_there_twice_is_found(world):
    world.post(letter(5), letter(5))
    meddled(world, 2, (letter(5), 0), (letter(5), 1))
    assert kinds(world) == {("LETTER_ROW_DOUBLED", 1, (0,))}


def test_a_row_that_the_tape_does_not_have_is_found(world):
    world.post(letter(5))
    world.letters.append(0, b"no letter")
    meddled(world, 2, (letter(5), 0), (letter(8), 1), (letter(9), 7))
    assert kinds(world) == {("LETTER_ROW_UNDUE", 2, (1, 7))}


@pytest.mark.parametrize("change", [{"value": b"other"}, {"value": None}, {"schema_id": None}])
def test_a_row_that_was_changed_is_found(world, change):
    world.post(letter(5))
    meddled(world, 1, (dataclasses.replace(letter(5), **change), 0))
    assert kinds(world) == {("LETTER_ROW_CHANGED", 1, (0,))}


def test_what_retention_removed_from_the_tape_is_not_missed_there(world):
    world.post(letter(5), letter(6), letter(7), letter(5))
    world.commit(world.letter_writer())
    world.letters.remove_before(0, 2)
    assert compared(world).problems == ()
    world.letters.remove_before(0, 4)
    assert compared(world).problems == ()


def test_letters_are_missed_from_the_floor_of_the_table_on_alone(world):
    """Also where a copy of a letter was judged after it: the row was of the first."""
    old, later = letter(5), dataclasses.replace(letter(5), at_us=NOW_US + DAY_US)
    world.post(old, later, *(dataclasses.replace(later, offset=number) for number in (6, 7)))
    world.commit(world.letter_writer())
    world.remove_old_letters()
    assert (world.origins(), compared(world).problems) == ([6, 7], ())
    world.post(dataclasses.replace(later, offset=8))
    meddled(world, 5, start=4)
    assert kinds(world) == {("LETTER_ROW_MISSING", 1, (4,))}


def test_rows_of_earlier_epochs_are_only_checked_for_doubles(world):
    world.post(letter(5), letter(6))
    world.commit(world.letter_writer())
    store = OpsStore(DEAD_LETTERS_LAYOUT)
    end_epoch(world.catalog, world.clock, "CLUSTER_CHANGED", "end", store)
    world.letters.recreate()
    world.post(letter(6), letter(7))
    world.commit(world.letter_writer("w2"))
    assert (kinds(world), compared(world).rows) == (set(), 3)
    world.post(letter(8))
    assert compared(world).waiting == 1
