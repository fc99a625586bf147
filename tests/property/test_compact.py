"""Merging ends, within bounds: few files, few rewrites of a row; also over a simulated week."""

from hypothesis import given, settings
from hypothesis import strategies as st

from k2 import limits
from k2.lake.iceberg.file_stats import LiveFile
from k2.lake.iceberg.manifests import size_class
from k2.lake.maintenance.compaction import plan_compaction
from k2.market.events import DAY_US

DAY = 20_000
CLASSES = size_class(limits.COMPACT_ROWS_MAX, limits.COMPACT_FILES_TO_MERGE) + 1
START_US = DAY * DAY_US


class Table:
    """Files that come and are merged, and how often each row was written."""

    def __init__(self):
        self.files = {}
        self.rows = 0
        self.written = 0
        self._names = 0

    def add(self, day, rows):
        self._names += 1
        name = str(self._names)
        self.files[name] = LiveFile(name, "m", day, ("BINANCE",), 0, rows, rows * 9 + 4000)
        self.written += rows

    def commit(self, day, rows):
        self.rows += rows
        self.add(day, rows)

    def settle(self, now_us):
        """Merge until nothing is worth it."""
        while groups := plan_compaction(
            self.files.values(), now_us, limits.COMPACT_TARGET_BYTES, limits.COMPACT_ROWS_MAX
        ):
            taken = [file.location for group in groups for file in group]
            assert len(taken) == len(set(taken))
            for group in groups:
                assert len({file.partition for file in group}) == 1
                assert 2 <= len(group) <= limits.COMPACT_FILES_MAX
                rows = sum(file.rows for file in group)
                assert rows <= limits.COMPACT_ROWS_MAX
                for file in group:
                    del self.files[file.location]
                self.add(group[0].day, rows)
        assert sum(file.rows for file in self.files.values()) == self.rows

    def small(self, day):
        half = limits.COMPACT_ROWS_MAX // 2
        return [file for file in self.files.values() if file.day == day and file.rows < half]


@given(st.lists(st.integers(1, limits.COMPACT_ROWS_MAX // 4), min_size=1, max_size=200))
def test_files_are_few_and_rows_are_rewritten_once_a_class(commits):
    table = Table()
    for rows in commits:
        table.commit(DAY, rows)
        table.settle(START_US)
    few = limits.COMPACT_FILES_TO_MERGE - 1
    assert len(table.small(DAY)) <= few * CLASSES
    assert table.written <= table.rows * (CLASSES + 1)
    table.settle(START_US + 10 * DAY_US)
    assert len(table.small(DAY)) <= CLASSES + 1


@settings(max_examples=10)
@given(st.integers(0, 2**32), st.integers(1, 5000))
def test_a_week_of_commits(seed, rate):
    """A commit every ten seconds of a simulated week, some rows of them for the day before."""
    table, most = Table(), 0
    commits_a_day = 8640 // 40  # each stands for forty, or the examples would take minutes
    for number in range(7 * commits_a_day):
        now_us = START_US + number * DAY_US // commits_a_day
        day = now_us // DAY_US
        rows = 1 + (seed + number * 2_654_435_761) % (rate * 10)
        table.commit(day - (number % 97 == 0), rows)
        table.settle(now_us)
        most = max(most, len(table.small(day)))
    full = sum(file.rows >= limits.COMPACT_ROWS_MAX // 2 for file in table.files.values())
    assert most <= (limits.COMPACT_FILES_TO_MERGE - 1) * CLASSES
    assert full <= 2 * table.rows // limits.COMPACT_ROWS_MAX + 7
    assert table.written <= table.rows * (CLASSES + 2)
    for old in range(DAY, DAY + 4):
        assert len(table.small(old)) <= CLASSES + 1
