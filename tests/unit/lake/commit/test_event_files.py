"""Rows of an ops table, written and read back page by page."""

from dataclasses import replace

import pytest

from k2 import limits
from k2.errors import Data, Reason
from k2.lake.commit.event_files import OpsStore, place, place_of, view_of
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT, GAPS_LAYOUT
from k2.lake.ingest.epoch_transition import end_epoch, newest
from k2.market.events import DAY_US
from tests.support.lake_world import FaultyCatalog
from tests.support.ops_world import OpsWorld, gap, letter
from tests.support.trades import NOW_US


@pytest.fixture
def world(tmp_path):
    made = OpsWorld(tmp_path)
    yield made
    made.close()


def test_a_table_without_a_snapshot_has_no_view(world):
    assert view_of(world.catalog, DEAD_LETTERS_LAYOUT) is None
    world.catalog.drop_table(DEAD_LETTERS_LAYOUT.identifier)
    assert view_of(world.catalog, DEAD_LETTERS_LAYOUT) is None


def test_a_row_keeps_everything(world):
    world.post(letter(5, value=None), letter(6, value=b"\x00" * 1000))
    world.commit(world.letter_writer())
    rows = world.stored()
    assert [row["value"] for row in rows] == [None, b"\x00" * 1000]
    assert {row["schema_id"] for row in rows} == {7}
    assert int(rows[0]["judged"].timestamp() * 1_000_000) == NOW_US


def test_pages_go_from_the_newest_back(world):
    writer = world.letter_writer()
    for first in range(0, 30, 10):
        world.post(*(letter(each) for each in range(first, first + 10)))
        world.commit(writer)
    view = view_of(world.catalog, DEAD_LETTERS_LAYOUT)
    assert view.position == 30
    assert [row["tape_offset"] for row in view.newest([])] == [*range(29, -1, -1)]
    assert next(view.newest(["origin"], below=12))["tape_offset"] == 11
    assert [*view.newest([], below=0)] == []


def test_only_the_files_of_a_page_are_read(world, monkeypatch):
    writer = world.letter_writer()
    for each in range(3):
        world.post(letter(each))
        world.commit(writer)
    view = view_of(world.catalog, DEAD_LETTERS_LAYOUT)
    read = []
    original = type(view)._read

    def counted(self, location, *rest):
        read.append(location)
        return original(self, location, *rest)

    monkeypatch.setattr(type(view), "_read", counted)
    assert next(view.newest([]))["tape_offset"] == 2
    assert len(read) == 1


def test_rows_of_several_days_come_in_the_order_of_the_tape(world):
    days = [gap(each, each).__class__(**{**vars(gap(each, each)),
            "recorded_us": NOW_US + (each % 3) * DAY_US}) for each in range(9)]  # fmt: skip
    world.tell(*days)
    world.commit(world.gap_writer())
    view = view_of(world.catalog, GAPS_LAYOUT)
    assert [row["first_id"] for row in view.newest(["first_id"])] == [*range(8, -1, -1)]
    assert len(view._files([])) == 3


def test_conditions_choose_rows(world):
    world.post(letter(5), letter(6, "feed:1"), letter(7), letter(5, partition=3))
    world.commit(world.letter_writer())
    chosen = world.stored(
        DEAD_LETTERS_LAYOUT,
        "origin_offset",
        conditions=[("origin", "==", "trades"), ("origin_offset", "in", [5, 6])],
    )
    assert [row["tape_offset"] for row in chosen] == [0, 3]


def test_a_file_that_is_damaged_is_named(world):
    world.post(letter(5))
    world.commit(world.letter_writer())
    view = view_of(world.catalog, DEAD_LETTERS_LAYOUT)
    (file,) = view._files([])
    path = file.location.removeprefix("file://")
    with open(path, "r+b") as file:
        file.write(b"nonsense")
        file.seek(-8, 2)
        file.write(b"nonsense")
    with pytest.raises(Data) as caught:
        [*view.newest([])]
    assert caught.value.reason is Reason.LAKE_CORRUPT


# --- maintenance ---------------------------------------------------------------------------------


@pytest.fixture
def eight(world):
    """A table of eight files of a letter each, and its writer."""
    world.writer = world.letter_writer()
    for number in range(8):
        world.post(letter(number, value=bytes(number)))
        world.commit(world.writer)
    return world


def facts(world):
    """What the newest snapshot says of the table but for its own name."""
    head = newest(world.catalog, OpsStore(DEAD_LETTERS_LAYOUT))
    told = ("positions", "counters", "state_path", "epochs", "topic", "topic_id", "cluster_id")
    return [getattr(head, name) for name in (*told, "rows_total")]


def test_merged_letters_are_as_before_and_the_table_stands_where_it_stood(eight):
    rows, stood = eight.stored(), facts(eight)
    assert eight.keeper().compact() == 1
    assert eight.files() == 1
    assert eight.stored() == rows
    assert facts(eight) == stood
    assert [row["tape_offset"] for row in eight.stored(below=3)] == [0, 1, 2]


def test_merged_gap_events_are_as_before_day_by_day(world):
    writer = world.gap_writer()
    for number in range(8):
        later = replace(gap(number, number + 1), recorded_us=NOW_US + DAY_US)
        world.tell(later, gap(number, number))
        world.commit(writer)
    rows = world.stored(GAPS_LAYOUT)
    assert world.keeper(GAPS_LAYOUT).compact() == 2
    assert world.files(GAPS_LAYOUT) == 2
    assert world.stored(GAPS_LAYOUT) == rows


def test_the_writer_of_the_same_process_goes_on_without_a_conflict(eight):
    catalog = FaultyCatalog(eight.catalog)
    writer = eight.letter_writer("same", catalog)
    eight.post(letter(8))
    eight.commit(writer)
    assert eight.keeper(excluding=writer.excluded).compact() == 1
    before = catalog.commits
    eight.post(letter(8), letter(9))
    eight.commit(writer)
    assert catalog.commits == before + 1
    assert eight.origins() == [*range(10)]


def test_a_merge_that_a_commit_overtakes_is_made_on_top_of_it(eight):
    def commit():
        eight.post(letter(8))
        eight.commit(eight.letter_writer("other"))

    keeper = eight.keeper(catalog=FaultyCatalog(eight.catalog, before=commit))
    assert keeper.compact() == 2  # the day is long over, so the ninth file is merged too
    assert keeper.stats.abandoned == 0
    assert (eight.files(), eight.origins()) == (1, [*range(9)])


def test_a_commit_that_a_merge_overtakes_is_made_on_top_of_it(eight):
    catalog = FaultyCatalog(eight.catalog, before=eight.keeper().compact)
    writer = eight.letter_writer("late", catalog)
    eight.post(letter(7), letter(8))
    eight.commit(writer)
    assert (writer.stats.rows, writer.stats.failures, catalog.commits) == (1, 0, 2)
    assert (eight.files(), eight.origins()) == (2, [*range(9)])


def test_a_writer_that_slept_through_a_sweep_looks_at_what_there_is_now(eight, monkeypatch):
    """The files that it looks letters up in are gone: it lets go, and reads again."""
    monkeypatch.setattr(limits, "LETTER_INTERVALS_MAX", 4)
    eight.writer = eight.letter_writer("sleeper")
    eight.post(*(letter(each) for each in range(10, 40, 2)))
    eight.commit(eight.writer)
    eight.keeper(name="one").compact()
    eight.keeper(name="two").expire(eight.clock.now_us() + 10**9)
    eight.keeper(name="three").sweep()
    eight.clock.advance(eight.settings.lake.sweep_grace_s)
    assert eight.keeper(name="four").sweep().removed > 8
    held = eight.origins()
    eight.post(letter(1), letter(10), letter(41))  # two of them it does not remember
    eight.commit(eight.writer)
    eight.clock.advance(limits.COMMIT_RETRY_MAX_S)
    eight.commit(eight.writer)
    assert eight.writer.stats.failures == 1
    assert eight.origins() == [*held, 41]


def test_a_merged_file_is_no_larger_than_a_commit_may_be(eight):
    small = OpsStore(replace(DEAD_LETTERS_LAYOUT, merged_rows_max=6))
    assert eight.maintainer("m", store=small).compact() == 2
    assert eight.files() == 2  # of six rows, and of two
    assert eight.origins() == [*range(8)]


def test_files_of_several_epochs_become_one_and_are_listed_by_epoch(eight):
    end_epoch(eight.catalog, eight.clock, "TOPIC_RECREATED", "end", OpsStore(DEAD_LETTERS_LAYOUT))
    eight.letters.recreate()
    writer = eight.letter_writer("w2")
    for number in range(20, 24):
        eight.post(letter(number))
        eight.commit(writer)
    rows, stood = eight.stored(), facts(eight)
    assert eight.keeper().compact() == 1
    assert eight.stored() == rows
    assert facts(eight) == stood
    assert [place_of(row) for row in rows] == [*range(8), *(place(1, each) for each in range(4))]
    assert [row["tape_offset"] for row in eight.stored(below=place(1, 2))] == [*range(8), 0, 1]
    assert view_of(eight.catalog, DEAD_LETTERS_LAYOUT).position == 4
