"""Rows of an ops table, written and read back page by page."""

import pytest

from k2.errors import Data, Reason
from k2.lake.ops import view_of
from k2.lake.tables import DEAD_LETTERS_LAYOUT, GAPS_LAYOUT
from k2.market.events import DAY_US
from tests.ops_world import OpsWorld, gap, letter
from tests.trades import NOW_US


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
