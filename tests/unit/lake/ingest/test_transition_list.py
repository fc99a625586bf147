"""The changes of the level are one list of the table and the tape, newest first."""

import json

import pytest

from k2.degrade.level import Level
from k2.degrade.transition import Transition, TransitionCause
from k2.errors import Data
from k2.lake.commit.event_files import view_of
from k2.lake.iceberg.tables import TRANSITIONS_LAYOUT
from k2.lake.ingest import transition_list
from k2.lake.ingest.transition_list import TransitionReader
from k2.tape.transition_topic import read_transition
from tests.support.ops_world import OpsWorld
from tests.support.trades import NOW_US


def transition(number):
    return Transition(
        NOW_US + number,
        Level.NORMAL,
        Level.SOFT,
        TransitionCause.PRESSURE,
        process="lake",
        signal="writer_lag_s",
        reading=None if number % 2 else 0.5 + number,
        pressure=0.6,
        threshold=0.5,
        injected=number == 2,
        reason="é",
    )


@pytest.fixture
def world(tmp_path):
    made = OpsWorld(tmp_path)
    yield made
    made.close()


def reader(world):
    def posted(start):
        log = world.transitions.logs[0]
        for offset, value in enumerate(log.values[start:], start):
            yield offset, read_transition(value)

    return TransitionReader(lambda: view_of(world.catalog, TRANSITIONS_LAYOUT), posted)


def numbers(world, below=None):
    return [each.transition.at_us - NOW_US for each in reader(world).newest(below)]


def change(world, *made):
    world.transitions.append(0, *(json.dumps(each.values()).encode() for each in made))


def test_rows_are_those_of_the_tape(world):
    made = [transition(number) for number in range(4)]
    change(world, *made)
    assert numbers(world) == [3, 2, 1, 0], "on the tape alone"
    writer = world.transition_writer()
    world.commit(writer)
    assert [each.transition for each in reader(world).newest(None)] == made[::-1]
    assert writer.stats.rows == 4
    change(world, transition(4), transition(5))
    assert numbers(world) == [5, 4, 3, 2, 1, 0]
    (_, second, *_) = reader(world).newest(None)
    assert numbers(world, second.place) == [3, 2, 1, 0]
    assert numbers(world, 2) == [1, 0]


def test_a_record_that_is_none_becomes_a_dead_letter(world):
    world.transitions.append(0, b"what?")
    change(world, transition(1))
    world.commit(world.transition_writer())
    assert numbers(world) == [1]
    world.commit(world.letter_writer())
    assert [row["origin"] for row in world.stored()] == ["k2.transitions"]


def test_a_row_of_another_writer_is_refused(world):
    change(world, transition(1))
    world.commit(world.transition_writer())
    row = next(view_of(world.catalog, TRANSITIONS_LAYOUT).newest(transition_list._COLUMNS))
    with pytest.raises(Data):
        transition_list._stored(row | {"cause": "MOOD"})
