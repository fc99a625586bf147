"""What the ledger says of trades that a level defers."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from k2 import limits
from k2.degrade.level import Level
from k2.degrade.platform import Levels
from k2.errors import Reason, Unavailable
from k2.lake.ingest.deferral import DeferralLedger, DeferralSources, deferred_ids
from k2.lake.ingest.reading_order import Orders
from k2.market.coverage import Coverage
from k2.market.fold import FoldState, Seen
from k2.market.instrument import Instrument
from k2.market.ledger import LAKE, Cause, GapEvent, GapState, Ledger, fold_all
from tests.support.trades import NOW_US

SHIB = Instrument("BINANCE", "SHIBUSDT")


def seen_to(last):
    return FoldState({SHIB: Seen(np.array([[1, last]]), NOW_US)})


def known(*gaps):
    return fold_all(
        GapEvent(SHIB, first, last, NOW_US, Cause.SEQUENCE, state, NOW_US, "feed")
        for first, last, state in gaps
    )


@pytest.mark.parametrize(
    ("state", "top", "ledger", "runs"),
    [
        (seen_to(10), 20, Ledger(), [(11, 20)]),
        (seen_to(10), 10, Ledger(), []),
        (FoldState(), 20, Ledger(), [(5, 20)]),
        (seen_to(10), 20, known((12, 13, GapState.OPEN)), [(11, 11), (14, 20)]),
        (seen_to(10), 20, known((8, 12, GapState.FILLED), (20, 25, GapState.VOID)), [(13, 19)]),
        (seen_to(10), 20, known((9, 30, GapState.UNFILLABLE)), []),
        (seen_to(10), 10 + limits.SEQUENCE_JUMP_MAX + 1, Ledger(), []),
    ],
)
def test_what_is_deferred_is_what_feeds_cover_and_neither_lake_nor_ledger_has(
    state, top, ledger, runs
):
    assert list(deferred_ids(SHIB, state, Coverage(4, top), ledger)) == runs


class Stopping(threading.Event):
    """Is set after some turns, and remembers how long each wait was to be."""

    def __init__(self, turns=2):
        super().__init__()
        self.turns = turns
        self.waits = []

    def wait(self, timeout=None):
        self.waits.append(timeout)
        return len(self.waits) > self.turns


class DeferralWorld:
    """A writer under a level, a ledger, and what feeds cover."""

    def __init__(self, world):
        self.world = world
        self.levels = Levels()
        self.covered = {}
        world.home[SHIB] = world.placement.place(SHIB)
        self.begin()

    def begin(self, **lake):
        """The lake's process starts, perhaps again."""
        orders = Orders(lambda: self.levels, left=lambda: self.deferral.left)
        self.pump = self.world.pump(orders=orders, **lake)
        self.deferral = DeferralLedger(
            DeferralSources(
                lambda: self.pump.backlog,
                self.world.placement.known,
                lambda: {SHIB: Coverage(0, self.covered[SHIB])} if self.covered else {},
                self.world.tape.gap_log(),
            ),
            self.world.clock,
            f"{LAKE}run",
        )
        self.pump.step()

    def put(self, *ids):
        """Trades on the tape, covered."""
        self.world.put(*ids, symbol="SHIBUSDT")
        self.covered[SHIB] = ids[-1]

    def level(self, level):
        self.levels = replace(self.levels, own=level)

    def turn(self, times=1):
        for _ in range(times):
            self.world.clock.advance(limits.DEFERRAL_STEP_S)
            self.pump.step()
            self.pump.commit()
            self.pump.step()
            self.deferral.step()

    def gaps(self):
        ledger = fold_all(self.world.tape.gaps)
        return [(gap.first_id, gap.last_id, gap.state.value) for gap in ledger.gaps([SHIB])]


@pytest.fixture
def shed(world):
    made = DeferralWorld(world)
    made.put(1, 2, 3)
    made.turn()
    made.level(Level.GRACEFUL)
    made.turn()
    return made


def test_what_is_paused_is_open_while_it_lasts_and_filled_after(shed):
    assert shed.gaps() == []
    shed.put(4, 5)
    shed.turn()
    assert shed.gaps() == [(4, 5, "OPEN")]
    shed.put(6)
    shed.turn()
    assert shed.gaps() == [(4, 6, "OPEN")], "one gap that grows"
    (gap,) = fold_all(shed.world.tape.gaps).open(SHIB)
    assert (gap.cause, gap.detected_us) == (Cause.SHED, shed.world.tape.gaps[0].detected_us)
    shed.turn()
    assert len(shed.world.tape.gaps) == 2, "nothing is said twice"
    shed.level(Level.NORMAL)
    shed.turn(3)
    assert shed.gaps() == [(4, 6, "FILLED")]
    assert shed.world.ids("SHIBUSDT") == [1, 2, 3, 4, 5, 6]


def test_it_is_open_until_the_lake_has_what_was_there(shed):
    shed.put(4)
    shed.turn()
    shed.level(Level.NORMAL)
    shed.world.clock.advance(limits.LAG_LOOK_S)
    shed.pump.step()
    shed.pump.step()
    assert not shed.pump.backlog.deferring
    shed.deferral.step()
    assert shed.gaps() == [(4, 4, "OPEN")], "it is read, and not committed"
    shed.turn(2)
    assert shed.gaps() == [(4, 4, "FILLED")]


def test_a_writer_that_starts_closes_what_the_one_before_left_open(shed):
    shed.put(4)
    shed.turn()
    shed.level(Level.NORMAL)
    shed.begin()
    shed.turn(2)
    assert shed.gaps() == [(4, 4, "FILLED")]


def test_what_was_left_by_the_writer_before_catches_up_and_is_no_lag(shed):
    shed.put(*range(4, 24))
    shed.turn()
    shed.level(Level.NORMAL)
    shed.begin(rows_per_s_max=4)
    shed.deferral.step()
    assert shed.deferral.left == {shed.world.home[SHIB]}
    lags = []
    for _ in range(12):
        shed.turn()
        lags.append(shed.pump.stats.lag_s(shed.world.clock.monotonic_s()))
    assert max(lags[1:]) == 0, "once the ledger was read"
    assert shed.gaps() == [(4, 23, "FILLED")]


def test_gaps_of_feeds_are_left_alone(shed):
    feed = GapEvent(SHIB, 5, 6, NOW_US, Cause.SEQUENCE, GapState.OPEN, NOW_US, "feed")
    shed.world.tape.gaps.append(feed)
    shed.put(4, 7, 8)
    shed.turn()
    assert shed.gaps() == [(4, 4, "OPEN"), (5, 6, "OPEN"), (7, 8, "OPEN")]
    shed.level(Level.NORMAL)
    shed.turn(3)
    assert shed.gaps() == [(4, 4, "FILLED"), (5, 6, "OPEN"), (7, 8, "FILLED")]


def test_an_instrument_without_coverage_or_a_writer_without_its_partition_says_nothing(shed):
    shed.put(4)
    covered, shed.covered = shed.covered, {}
    shed.turn()
    assert shed.gaps() == []
    shed.covered = covered
    shed.turn()
    shed.pump._reading.drop([shed.world.home[SHIB]])
    shed.level(Level.NORMAL)
    shed.turn(2)
    assert shed.gaps() == [(4, 4, "OPEN")], "its next writer closes it"


def test_nothing_is_closed_before_the_end_of_the_tape_was_seen_since(shed):
    shed.put(4)
    shed.turn()
    backlog = shed.pump.backlog
    stale = replace(backlog, deferring=frozenset(), looked_s=shed.deferral._opened_s)
    shed.deferral._sources = replace(shed.deferral._sources, backlog=lambda: stale)
    shed.deferral.step()
    assert shed.gaps() == [(4, 4, "OPEN")]


def test_its_loop_goes_on_when_the_ledger_is_away_and_slows_with_what_it_says(shed):
    shed.put(4)
    log, stopping = shed.deferral._sources.log, Stopping()
    advance, failures = log.advance, [Unavailable(Reason.TAPE_UNAVAILABLE, "away")]

    def once_away():
        if failures:
            raise failures.pop()
        return advance()

    log.advance = once_away
    shed.deferral.run(stopping)
    step_s = limits.DEFERRAL_STEP_S
    assert stopping.waits == [step_s, step_s, step_s + limits.DEFERRAL_EVENT_S]
    assert shed.gaps() == [(4, 4, "OPEN")]
