"""A hundred commits of the ops tables, merged, thinned and swept on the way: no row is other."""

from dataclasses import replace

import pytest

from k2 import limits
from k2.lake.commit.event_files import view_of
from k2.lake.dead_letters.letter_list import LetterFilter
from k2.lake.iceberg.reachability import Reach
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT, GAPS_LAYOUT
from k2.market.events import DAY_US, Fault
from k2.market.ledger import GapState, fold_all
from k2.market.offsets import TimeRange
from k2.tape.dead_letter_topic import DeadLetter
from tests.support.letter_desk import Desk
from tests.support.ops_world import gap
from tests.support.writer_world import message
from tests.unit.lake.verify.test_verify_letters import compared

COMMITS, ROUND = 50, 10  # of each table
KEPT, NEWEST = 8, 4  # snapshots
PAUSE_S = 1200.0  # a grace is over in nine commits
LETTERS = LetterFilter(TimeRange())
FILES_MAX = 2 * 7 + 2  # of a day: seven of either class, and what was merged of them

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


class Site(Desk):
    """A desk, the writers and maintainers of both tables, and what they were told."""

    def __init__(self, folder):
        super().__init__(folder)
        self.clock.advance((DAY_US - self.clock.now_us() % DAY_US) / 1e6)  # midnight
        self.writers = {DEAD_LETTERS_LAYOUT: self.letter_writer(), GAPS_LAYOUT: self.gap_writer()}
        self.keepers = {
            layout: self.keeper(layout, excluding=writer.excluded)
            for layout, writer in self.writers.items()
        }
        self.events = []

    def letter(self, offset):
        fault, at_us = Fault.WRONG_PARTITION, self.clock.now_us()
        one = DeadLetter("trades", 0, self.home, offset, 7, fault, "-", at_us, message(offset))
        self.post(one)
        return one.name

    def event(self, number):
        told = replace(gap(10 * number, 10 * number + 8), recorded_us=self.clock.now_us())
        some = {"last_id": told.first_id + 2, "filled_at_us": told.recorded_us}
        filled = replace(told, state=GapState.FILLED, **some)
        self.events += [told] if number % 3 else [told, filled]
        self.tell(*self.events[-1 if number % 3 else -2 :])

    def maintain(self):
        """Each table, whose rows are the same before and after."""
        for layout, keeper in self.keepers.items():
            before = self.stored(layout)
            keeper.compact()
            keeper.sweep()
            assert self.stored(layout) == before

    def table_of(self, layout):
        return self.catalog.load_table(layout.identifier)


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "SNAPSHOTS_KEPT_MAX", KEPT)
    monkeypatch.setattr(limits, "SNAPSHOTS_NEWEST_KEPT", NEWEST)
    made = Site(tmp_path)
    yield made
    made.close()


def test_ops_tables_stay_small_and_whole(site):
    names, on_disk = [], []
    for number in range(COMMITS):
        names.append(site.letter(number))
        if number % 5 == 0:
            site.letter(number)  # again, and an old one
            site.letter(number // 2)
        site.event(number)
        for writer in site.writers.values():
            site.commit(writer)
        site.clock.advance(PAUSE_S)
        if number % ROUND == ROUND - 1:
            site.maintain()
            on_disk.append(max(len(site.on_disk(one.identifier)) for one in site.writers))
    site.maintain()
    site.clock.advance(site.settings.lake.sweep_grace_s)
    for keeper in site.keepers.values():
        assert keeper.sweep().waiting == 0
    for layout, writer in site.writers.items():
        assert (writer.stats.failures, writer.stats.commits) == (0, COMMITS)
        table = site.table_of(layout)
        assert site.on_disk(layout.identifier) == Reach().of(table)
        assert site.files(layout) <= FILES_MAX
        assert len(table.current_snapshot().manifests(table.io)) <= limits.MANIFESTS_TO_MERGE
        assert len(table.metadata.snapshots) <= KEPT + NEWEST
    assert_same(site, names)
    assert max(on_disk[2:]) < 1.2 * on_disk[1], on_disk  # what died in the last grace, not in all


def assert_same(site, names):
    """Lists, the ledger, verification and replay say what was told."""
    assert site.origins() == [*range(COMMITS)]
    listed = [one.letter.name for one in site.reader.newest(LETTERS, None)]
    assert listed == names[::-1]
    middle = next(one for one in site.reader.newest(LETTERS, None) if one.letter.name == names[20])
    page = [one.letter.name for one in site.reader.newest(LETTERS, middle.place)]
    assert page == names[19::-1]
    assert site.reader.get(names[3]).letter.value == message(3)
    assert compared(site).problems == ()
    assert compared(site).rows == COMMITS
    assert site.replayer.replay(names[3], None, again=False).state == "SENT"
    columns = ("first_id", "last_id", "state")
    told = [(one.first_id, one.last_id, one.state.value) for one in site.events]
    stored = site.stored(GAPS_LAYOUT, *columns)
    assert [tuple(row[name] for name in columns) for row in stored] == told
    assert view_of(site.catalog, GAPS_LAYOUT).position == len(site.events)
    assert len([*fold_all(site.events).gaps()]) == COMMITS + (COMMITS + 2) // 3
