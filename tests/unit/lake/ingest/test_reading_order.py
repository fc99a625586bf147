"""Partitions that a level defers, that catch up, and that go before others."""

from dataclasses import replace

import numpy as np
import pytest

from k2 import limits
from k2.degrade.level import Level
from k2.degrade.platform import Levels
from k2.errors import Reason, Unavailable
from k2.lake.ingest.pausing import PauseReason
from k2.lake.ingest.reading_order import Orders
from k2.market.events import RECORD_TIME_MAX_US
from k2.market.instrument import Instrument, Tier
from k2.tape.consumer import RawBatch
from tests.support.lake_world import FaultyCatalog
from tests.support.writer_world import BTC

BNB, SHIB = Instrument("BINANCE", "BNBUSDT"), Instrument("BINANCE", "SHIBUSDT")


class Told:
    """The levels and dangers that a test sets."""

    def __init__(self):
        self.levels = Levels()
        self.endangered = frozenset()
        self.orders = Orders(lambda: self.levels, lambda: self.endangered)

    def level(self, level):
        self.levels = replace(self.levels, own=level)


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def world(world):
    for each in (BNB, SHIB):
        world.home[each] = world.placement.place(each)
    return world


def stepped(world, pump, times=3):
    """The writer looks and reads so often, a look apart, and commits."""
    for _ in range(times):
        world.clock.advance(limits.LAG_LOOK_S)
        pump.step()
    pump.commit()


def started(world, told, **lake):
    pump = world.pump(orders=told.orders, **lake)
    pump.step()
    return pump


def test_a_tier_that_a_level_sheds_stands_still_and_comes_later(world, told):
    world.put(1, symbol="SHIBUSDT")
    pump = started(world, told)
    told.level(Level.GRACEFUL)
    world.put(2, symbol="SHIBUSDT")
    world.put(1)
    stepped(world, pump)
    assert world.ids("SHIBUSDT") == [1], "what was judged before the pause is committed"
    assert world.ids() == [1]
    assert pump.stats.positions[world.home[SHIB]] == 1
    pump.step()
    counted = pump.backlog.counters(world.clock.monotonic_s())
    assert counted.deferred == {"critical": 0, "high": 0, "normal": 0, "low": 1}
    assert counted.partitions_paused == {"critical": 0, "high": 0, "normal": 0, "low": 2}
    assert counted.lag_seconds["low"] == 0
    told.level(Level.NORMAL)
    stepped(world, pump)
    assert world.ids("SHIBUSDT") == [1, 2]
    counted = pump.backlog.counters(world.clock.monotonic_s())
    assert (counted.deferred["low"], counted.catching_up) == (0, 0)
    assert world.verified()["ok"]


def test_what_is_deferred_is_no_lag_however_long(world, told):
    pump = started(world, told, rows_per_s_max=2)
    told.level(Level.AGGRESSIVE)
    pump.step()
    world.put(*range(1, 10), symbol="SHIBUSDT")
    world.put(*range(1, 10), symbol="BNBUSDT")
    stepped(world, pump, 100)
    assert pump.stats.lag_s(world.clock.monotonic_s()) == 0
    assert pump.backlog.deferred == {Tier.HIGH: 9, Tier.LOW: 9} | dict.fromkeys((Tier.NORMAL,), 0)
    told.level(Level.NORMAL)
    lags = []
    while len(world.ids("SHIBUSDT")) < 9:
        stepped(world, pump, 1)
        lags.append(pump.stats.lag_s(world.clock.monotonic_s()))
        assert len(lags) < 100
    assert max(lags) <= 2 * limits.LAG_LOOK_S, "catching up presses on nothing"
    assert len(world.ids("BNBUSDT")) == 9


def test_lag_is_counted_from_the_end_of_catching_up(world, told):
    pump = started(world, told, commit_interval_s=50)
    told.level(Level.GRACEFUL)
    pump.step()
    world.put(1, symbol="SHIBUSDT")
    stepped(world, pump, 30)
    told.level(Level.NORMAL)
    pump.step()
    pump.step()
    assert pump.backlog.catching_up == frozenset(), "all is read, and not yet committed"
    world.clock.advance(limits.LAG_LOOK_S)
    pump.step()
    assert pump.stats.lag_s(world.clock.monotonic_s()) <= limits.LAG_LOOK_S


def test_who_catches_up_waits_while_others_are_behind_and_goes_by_tier(world, told):
    pump = started(world, told, rows_per_s_max=4)
    told.level(Level.AGGRESSIVE)
    pump.step()
    world.put(*range(1, 9), symbol="SHIBUSDT")
    world.put(*range(1, 9), symbol="BNBUSDT")
    stepped(world, pump)
    world.put(*range(1, 21))
    told.level(Level.NORMAL)
    order = []
    while len(order) < 36:
        world.clock.advance(limits.LAG_LOOK_S)
        pump.step()
        pump.commit()
        for symbol in ("BTCUSDT", "BNBUSDT", "SHIBUSDT"):
            have = len(world.ids(symbol))
            order += [symbol] * (have - order.count(symbol))
        assert pump.stats.lag_s(world.clock.monotonic_s()) < 20
    last = {symbol: len(order) - order[::-1].index(symbol) for symbol in set(order)}
    assert last["BTCUSDT"] < order.index("SHIBUSDT") + 4, "only a batch before it was behind"
    assert last["BNBUSDT"] <= order.index("SHIBUSDT") + 4


def test_a_throttled_writer_reads_the_most_critical_tier_first(world, told):
    pump = started(world, told, rows_per_s_max=8)  # 4 at once
    world.put(*range(1, 41), symbol="SHIBUSDT")
    for trade_id in range(1, 40, 3):
        world.put(trade_id, trade_id + 1, trade_id + 2)
        stepped(world, pump, 1)
    assert len(world.ids()) >= 33, "it keeps up"
    pump.step()
    now_s = world.clock.monotonic_s()
    counted = pump.backlog.counters(now_s)
    assert counted.lag_seconds["low"] >= 10
    assert counted.lag_seconds["critical"] <= 3
    assert pump.stats.lag_s(now_s) >= 10, "the lag that raises the level is real"
    assert counted.lag_messages["low"] == 40 - len(world.ids("SHIBUSDT"))


def test_the_memory_bound_and_a_level_do_not_undo_each_other(world, told, monkeypatch):
    monkeypatch.setattr(limits, "COMMIT_ROWS_MAX", 2)
    catalog = FaultyCatalog(world.catalog)
    pump = world.pump(orders=told.orders, catalog=catalog)
    pump.step()
    told.level(Level.GRACEFUL)
    catalog.faults = ["busy"] * 100
    world.put(*range(1, 6))
    pump.step()
    pump.step()  # at the bound
    pauses, low = pump._reading.pauses, world.home[SHIB]
    assert pauses.of(low) == {PauseReason.LEVEL, PauseReason.MEMORY}
    catalog.faults = []
    world.clock.advance(limits.COMMIT_RETRY_MAX_S)
    pump.step()
    pump.step()
    assert pauses.of(low) == {PauseReason.LEVEL}
    assert low in pump._reading.reader._paused
    catalog.faults = ["busy"] * 100
    world.put(*range(6, 12))
    pump.step()
    told.level(Level.NORMAL)
    pump.step()
    assert pauses.of(low) == {PauseReason.MEMORY}
    assert low in pump._reading.reader._paused


def test_a_writer_that_starts_under_a_level_reads_nothing_of_what_it_sheds(world, told):
    world.put(1, symbol="SHIBUSDT")
    world.put(1)
    told.level(Level.GRACEFUL)
    pump = started(world, told)
    stepped(world, pump)
    assert (world.ids("SHIBUSDT"), world.ids()) == ([], [1])
    told.level(Level.NORMAL)
    stepped(world, pump)
    assert world.ids("SHIBUSDT") == [1]


def test_a_partition_whose_retention_is_near_is_read_in_spite_of_the_level(world, told, caplog):
    pump = started(world, told)
    told.level(Level.GRACEFUL)
    world.put(1, symbol="SHIBUSDT")
    stepped(world, pump)
    told.endangered = frozenset({world.home[SHIB]})
    stepped(world, pump)
    assert world.ids("SHIBUSDT") == [1]
    assert caplog.text.count("in spite of the level") == 1
    told.endangered = frozenset()
    world.put(2, symbol="SHIBUSDT")
    stepped(world, pump)
    assert world.ids("SHIBUSDT") == [1], "once it is safe the level holds again"


def test_a_partition_whose_retention_is_near_goes_first(world, told):
    pump = started(world, told, rows_per_s_max=8)  # 4 at once
    world.put(*range(1, 41))
    world.put(*range(1, 9), symbol="SHIBUSDT")
    told.endangered = frozenset({world.home[SHIB]})
    stepped(world, pump, 5)
    assert len(world.ids("SHIBUSDT")) == 8
    assert len(world.ids()) < 40


def test_while_the_tape_does_not_say_where_it_ends_reading_goes_on(world, told):
    def away():
        raise Unavailable(Reason.TAPE_UNAVAILABLE, "away")

    pump = world.pump(orders=told.orders)
    ends = pump._tape.ends
    object.__setattr__(pump._tape, "ends", away)
    world.put(1)
    stepped(world, pump)
    assert world.ids() == [1]
    told.level(Level.GRACEFUL)
    stepped(world, pump)
    told.level(Level.NORMAL)
    world.put(1, symbol="SHIBUSDT")
    stepped(world, pump)
    assert pump.backlog.deferring, "nothing has caught up with an unknown end"
    object.__setattr__(pump._tape, "ends", ends)
    stepped(world, pump)
    assert world.ids("SHIBUSDT") == [1]
    assert not pump.backlog.deferring


def test_what_waits_for_a_part_holds_up_nobody_and_is_no_lag(world, told):
    def schema(schema_id):
        raise Unavailable(Reason.REGISTRY_UNAVAILABLE, "away")

    pump = started(world, told, rows_per_s_max=100)
    known = world.schemas.schema
    world.tape.append(world.home[BTC], b"\x00\x00\x00\x00\x63")
    world.put(1, symbol="SHIBUSDT")
    world.schemas.schema = lambda each: schema(each) if each == 99 else known(each)
    stepped(world, pump, 1)
    assert pump.stats.waiting
    assert world.ids("SHIBUSDT") == [1]
    world.put(2, symbol="SHIBUSDT")
    world.clock.advance(30)
    pump.step()
    pump.commit()
    assert world.ids("SHIBUSDT") == [1, 2]


def test_a_long_lag_keeps_when_it_began(world, told, monkeypatch):
    monkeypatch.setattr(limits, "LAG_LOOKS_KEPT", 4)
    pump = started(world, told, commit_interval_s=1000)
    world.clock.advance(limits.LAG_LOOK_S)
    for trade_id in range(1, 30):
        world.put(trade_id)
        pump.step()
        world.clock.advance(limits.LAG_LOOK_S)
    assert pump.stats.lag_s(world.clock.monotonic_s()) == pytest.approx(29)
    assert len(pump._order._courses[world.home[BTC]].ends) <= 5


def test_commits_are_larger_under_pressure(world, told):
    pump = started(world, told)
    told.levels = Levels(pressure=0.5)
    world.put(1)
    pump.step()
    world.clock.advance(14.9)
    pump.step()
    assert world.ids() == []
    world.clock.advance(0.2)
    pump.step()
    assert world.ids() == [1]
    told.levels = Levels(own=Level.SOFT)
    world.put(2)
    pump.step()
    world.clock.advance(19.9)
    pump.step()
    assert world.ids() == [1]
    told.levels = Levels(own=Level.SOFT, pressure=1.0, shadow=True)
    pump.step()
    assert world.ids() == [1, 2], "a shadow level changes nothing"


def ages(world, pump):
    """In seconds: of the backlog, as it is counted, and as it presses without a bound."""
    now_s = world.clock.monotonic_s()
    backlog = pump.backlog
    return (
        round(backlog.found_age_s(now_s)),
        round(max(backlog.counters(now_s).lag_seconds.values())),
        round(pump.stats.lag_s(now_s)),
    )


def test_what_lay_on_the_tape_at_the_start_has_its_true_age(world, told):
    world.put(*range(1, 9))
    world.clock.advance(1800)
    world.put(*range(9, 17))
    world.clock.advance(1800)
    pump = world.pump(orders=told.orders, rows_per_s_max=8, commit_interval_s=10**6)
    pump.step()
    pump.step()
    assert ages(world, pump) == (3600, 3600, 0)
    found = []
    while len(world.ids()) < 16:
        stepped(world, pump, 1)
        found.append(ages(world, pump)[0])
    assert found == [3601, 1802, 0], "what was read later is younger"
    world.put(17)
    world.clock.advance(60)
    pump.step()
    assert ages(world, pump)[0] == 0, "it was seen as it came"


def test_the_age_of_what_a_level_defers_is_not_counted(world, told):
    world.put(1, symbol="SHIBUSDT")
    world.clock.advance(3600)
    told.level(Level.GRACEFUL)
    pump = started(world, told)
    stepped(world, pump)
    told.level(Level.NORMAL)
    pump.step()
    pump.step()
    assert world.ids("SHIBUSDT") == []
    assert ages(world, pump)[0] == 0


def test_a_record_of_the_future_and_one_without_an_append_time_have_no_age(world, told):
    for stamp in (world.clock.now_us() + 10**9, RECORD_TIME_MAX_US):
        home = world.put(1)
        world.tape.logs[home].stamps[-1] = stamp
    pump = started(world, told, commit_interval_s=10**6)
    pump.step()
    assert ages(world, pump)[0] == 0


def test_records_that_are_read_again_keep_their_age(world, told):
    order = started(world, told)._order
    home = world.home[BTC]

    def read(offset, age_s):
        appended = np.array([world.clock.now_us() - age_s * 10**6])
        order.took(RawBatch(home, np.array([offset]), [b""], offset + 1, None, appended))

    order._courses[home].found_to = 9
    for offset, age_s in ((0, 50), (1, 40), (0, 50)):
        read(offset, age_s)
    assert list(order._courses[home].found) == [(world.clock.monotonic_s() - 50, 1)]
    read(9, 0)
    assert order._courses[home].found_since_s(1) == world.clock.monotonic_s() - 50
    assert order._courses[home].found_since_s(9) is None
