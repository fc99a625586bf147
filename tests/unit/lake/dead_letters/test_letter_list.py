"""PartitionLetters are one list over table and tape, each once, newest first."""

from itertools import islice

import pytest

from k2 import limits
from k2.errors import Invalid, NotFound, Reason
from k2.lake.commit.event_files import view_of
from k2.lake.dead_letters.letter_list import LetterFilter, LetterReader
from k2.lake.dead_letters.superseded import SupersededLetters
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT
from k2.market.events import Fault
from k2.market.offsets import TimeRange
from tests.support.ops_world import OpsWorld, letter
from tests.support.trades import NOW_US
from tests.unit.lake.verify.test_verify_letters import posted

ALL = LetterFilter(TimeRange())


@pytest.fixture
def world(tmp_path):
    made = OpsWorld(tmp_path)
    yield made
    made.close()


def reader(world):
    return LetterReader(
        view=lambda: view_of(world.catalog, DEAD_LETTERS_LAYOUT),
        posted=lambda start: [one for one in posted(world) if one.offset >= start],
        superseded=SupersededLetters(world.catalog).among,
    )


def listed(world, wanted=ALL, below=None):
    return [(one.letter.offset, one.stored) for one in reader(world).newest(wanted, below)]


def test_a_letter_is_listed_before_the_table_has_it(world):
    world.post(letter(5), letter(6))
    assert listed(world) == [(6, False), (5, False)]
    world.commit(world.letter_writer())
    world.post(letter(7))
    assert listed(world) == [(7, False), (6, True), (5, True)]


def test_a_letter_that_was_published_again_is_listed_once(world):
    world.post(letter(5), letter(6))
    world.commit(world.letter_writer())
    world.post(letter(6), letter(7), letter(7), letter(6, partition=1))
    assert listed(world) == [(6, False), (7, False), (6, True), (5, True)]


def test_pages_go_on_below_an_offset(world):
    world.post(*(letter(each) for each in range(4)))
    world.commit(world.letter_writer())
    world.post(letter(10), letter(11))
    assert listed(world, below=5) == [(10, False), (3, True), (2, True), (1, True), (0, True)]
    assert listed(world, below=2) == [(1, True), (0, True)]


def test_a_list_has_no_values(world):
    world.post(letter(5))
    world.commit(world.letter_writer())
    world.post(letter(6))
    assert {one.letter.value for one in reader(world).newest(ALL, None)} == {None}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (LetterFilter(TimeRange(), fault=Fault.TRAILING), [6, 2]),
        (LetterFilter(TimeRange(), origin="feed:1"), [7, 3]),
        (LetterFilter(TimeRange(NOW_US, NOW_US + 1)), [7, 6, 5, 3, 2, 1]),
        (LetterFilter(TimeRange(NOW_US + 1, None)), []),
        (LetterFilter(TimeRange(None, NOW_US)), []),
    ],
)
def test_a_filter_is_the_same_for_table_and_tape(world, wanted, found):
    def some(first):
        world.post(letter(first), letter(first + 1, fault=Fault.TRAILING))
        world.post(letter(first + 2, "feed:1"))

    some(1)
    world.commit(world.letter_writer())
    some(5)
    assert [offset for offset, _ in listed(world, wanted)] == found


def test_only_the_newest_of_very_many_unstored_are_listed(world, monkeypatch):
    monkeypatch.setattr(limits, "LETTERS_UNSTORED_MAX", 3)
    world.post(*(letter(each) for each in range(10)))
    assert [offset for offset, _ in listed(world)] == [9, 8, 7]


def test_a_letter_is_found_by_its_name_with_its_value(world):
    world.post(letter(5, value=b"five"))
    world.commit(world.letter_writer())
    world.post(letter(6, "feed:a:b", value=None))
    found = reader(world).get("trades/0/0/5")
    assert (found.letter.value, found.stored, found.offset) == (b"five", True, 0)
    found = reader(world).get("feed:a:b/0/0/6")
    assert (found.letter.value, found.stored, found.offset) == (None, False, 1)


def test_a_letter_that_is_nowhere_is_not_found(world):
    world.post(letter(5))
    with pytest.raises(NotFound) as caught:
        reader(world).get("trades/0/1/5")
    assert caught.value.reason is Reason.UNKNOWN_DEAD_LETTER


@pytest.mark.parametrize("name", ["", "x", "t/0/0/x", "t/0/0/-1", "/0/0/1", f"t/{2**31}/0/1"])
def test_what_is_no_name_is_refused(world, name):
    with pytest.raises(Invalid):
        reader(world).get(name)


def test_a_page_reads_no_further_than_it_goes(world):
    world.post(letter(5))
    assert len(list(islice(reader(world).newest(ALL, None), 1))) == 1
