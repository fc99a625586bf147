import pytest

from k2 import limits
from k2.lake.maintenance.compaction import LiveFile, plan_compaction, size_class
from k2.market.events import DAY_US

DAY = 20_000
NOW = (DAY * 86_400 + 43_200) * 1_000_000
LATER = NOW + 3 * DAY_US
TARGET = limits.COMPACT_TARGET_BYTES


def files(*rows, day=DAY, exchange="BINANCE", size=1000):
    return [
        LiveFile(f"{day}-{exchange}-{number}", "m", day, (exchange,), count, size)
        for number, count in enumerate(rows)
    ]


def chosen(found, now=NOW):
    return [
        [file.rows for file in group]
        for group in plan_compaction(found, now, TARGET, limits.COMPACT_ROWS_MAX)
    ]


def test_classes_are_eight_times_the_one_below():
    assert [size_class(rows) for rows in (1, 7, 8, 63, 64, 512, 2**18)] == [0, 0, 1, 1, 2, 3, 6]


def test_eight_of_a_class_become_one():
    assert chosen(files(*[5] * 7)) == []
    assert chosen(files(*[5] * 8)) == [[5] * 8]
    assert chosen(files(*[5] * 7, 8)) == []


def test_partitions_are_not_mixed():
    assert chosen(files(*[5] * 7) + files(*[5] * 7, day=DAY - 1)) == []
    assert chosen(files(*[5] * 7) + files(*[5] * 7, exchange="KRAKEN")) == []


def test_full_files_are_left_alone():
    assert chosen(files(*[limits.COMPACT_ROWS_MAX // 2] * 8)) == []
    assert chosen(files(*[5] * 8, size=TARGET // 2)) == []


def test_a_pass_is_bounded_in_files_and_rows():
    (group,) = chosen(files(*[1] * 200))
    assert len(group) == limits.COMPACT_FILES_MAX
    (group,) = chosen(files(*[400_000] * 8))
    assert sum(group) <= limits.COMPACT_ROWS_MAX
    assert len(group) == 2


def test_the_group_with_the_most_files_comes_first():
    found = files(*[100] * 9) + files(*[1] * 30, day=DAY - 1)
    assert [len(group) for group in chosen(found)] == [30, 9]


@pytest.mark.parametrize(
    ("rows", "merged"),
    [
        ([1, 2, 3], [[1, 2, 3]]),
        ([1, 100], []),  # a late trade does not cause a large file to be rewritten
        ([10, 50, 5000], [[10, 50]]),
        ([60, 400, 3000], [[60, 400, 3000]]),
        ([7], []),
        ([], []),
    ],
)
def test_a_day_that_is_over_is_merged_further(rows, merged):
    assert chosen(files(*rows), LATER) == merged
    assert chosen(files(*rows)) == []
