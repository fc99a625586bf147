from dataclasses import replace

import pytest

from k2.clock import ManualClock
from k2.degrade.signals import Signal, pressures
from k2.errors import Reason, Unavailable
from k2.lake.iceberg.tables import GAPS_LAYOUT
from k2.lake.ingest.reading_order import Backlog
from k2.lake.ingest.trade_writer import WriterStats
from k2.lake.maintenance.retention import Retention
from k2.market.instrument import Tier
from k2.market.offsets import OffsetVector
from k2.settings import LakeSettings, Settings, TapeSettings
from k2.tape.retention_watch import TapeWatch
from k2.tape.tape_clients import TapeClients
from k2.tape.topics import TopicDescription
from k2.telemetry import Counters
from servers.processes.lake import (
    count_retained,
    retainers_of,
    retention_runs,
    writer_counters,
    writer_scales,
    writer_signals,
)
from servers.processes.lake_maintenance import beside
from servers.processes.ops_tables import OpsTables
from servers.runtime import Runtime
from tests.support.eventually import eventually
from tests.support.lake_world import LakeWorld
from tests.support.ops_world import OpsWorld, gap, letter


def signals(stats, backlog=None):
    return writer_signals(stats, backlog or Backlog(), ManualClock(100_000_000))


def scaled(interval_s):
    return writer_scales(Settings(lake=LakeSettings(commit_interval_s=interval_s)))


def test_the_heartbeat_says_what_the_writer_has_done():
    stats = WriterStats(
        commits=2,
        rows=10,
        oldest_pending_s=95.0,
        commit_latency_s=0.04,
        positions=OffsetVector(0, (3, 4)),
        snapshot_id=2**62,
        committed_at_us=5,
        waiting={3: "the registry is away"},
    )
    read = signals(stats, Backlog(found_since_s={Tier.LOW: 60.0}))
    assert read == {
        Signal.WRITER_LAG_S: 5.0,
        Signal.BACKLOG_AGE_S: 40.0,
        Signal.COMMIT_LATENCY_S: 0.04,
    }
    counted = writer_counters(stats, ["the tape is short"])
    assert counted.positions == "0:3,4"
    assert counted.snapshot_id == str(2**62)
    assert (counted.commits, counted.rows) == (2, 10)
    assert counted.alerts == ["partition 3 waits: the registry is away", "the tape is short"]


def test_skipped_placements_are_an_alert():
    alert = "k2.partitions: 2 records are no placements and are skipped"
    assert writer_counters(WriterStats(), ["another"], 2).alerts == ["another", alert]
    assert writer_counters(WriterStats(), ["another"], 0).alerts == ["another"]


def test_a_writer_that_has_done_nothing_yet_is_counted():
    assert set(signals(WriterStats()).values()) == {0.0}
    assert writer_counters(WriterStats(), ()).positions == ""


def test_a_longer_commit_interval_is_not_lag():
    full = [scaled(interval_s)[Signal.WRITER_LAG_S].full for interval_s in (10.0, 60.0)]
    assert full == [300.0, 1800.0]


def test_ordinary_operation_at_a_commit_a_minute_presses_on_nothing():
    stats = WriterStats(oldest_pending_s=35.0, commit_latency_s=5.0)  # 65 s ago
    pressed = pressures(signals(stats), scaled(60.0))
    assert pressed[Signal.WRITER_LAG_S] == pressed[Signal.COMMIT_LATENCY_S] == 0


@pytest.fixture
def lake(tmp_path):
    world = LakeWorld(tmp_path)
    yield world
    world.close()


def unreachable():
    raise Unavailable(Reason.TAPE_UNAVAILABLE, "away")


def watch(lake, facts=unreachable):
    return TapeWatch(
        facts=facts,
        offsets_since=lambda time_us: (9,),
        positions=lambda: OffsetVector(0, (3,)),
        clock=lake.clock,
        settings=TapeSettings(),
    )


def retainer_of(lake, settings):
    return Retention(
        replacer=lake.replacer("r"),
        clock=lake.clock,
        settings=settings,
        bytes_max=settings.bytes_max,
    )


def test_both_run_and_are_counted(lake):
    lake.commit_each([0], times=[lake.clock.now_us() - 5 * 86_400_000_000])
    lake.commit_each([1])
    retainer = retainer_of(lake, LakeSettings(retention_hours=1, retain_interval_s=0.01))
    one = watch(lake, lambda: TopicDescription("c", "t", "id", 1, (0,), (10,)))
    one.look()
    counters = Counters()
    count_retained({"": retainer}, counters)
    with beside(retention_runs({"": retainer}, one)):
        eventually(lambda: counters.values()["retain_rows"] == 1)
    assert counters.values()["retain_files"] == 1
    assert "partition 0: 7 records" in one.alerts[0]


def test_it_ends_while_the_tape_is_away(lake):
    one = watch(lake)
    with beside(retention_runs({"": retainer_of(lake, LakeSettings())}, one)):
        pass
    assert not one.alerts


def test_trades_and_dead_letters_are_each_held_to_their_own_budget(tmp_path):
    """Neither touches the other, and their counters have names of their own."""
    world = OpsWorld(tmp_path)
    day_us = 86_400_000_000
    for number in range(3):
        at_us = world.clock.now_us() - (2 - number) * day_us
        world.commit_each([number], times=[at_us])
        world.post(replace(letter(number), at_us=at_us))
    world.tell(gap(1, 1))
    for writer in (world.letter_writer(), world.gap_writer()):
        world.commit(writer)
    lake = LakeSettings().model_copy(update={"letters_bytes_max": 1})
    settings = world.settings.model_copy(update={"lake": lake})
    runtime, committer = Runtime(world.clock, "r"), world.committer("w")
    ops = OpsTables(settings, runtime, world.catalog, TapeClients(settings, world.clock))
    retainers = retainers_of(settings, runtime, world.catalog, committer, ops)
    assert [one.table for one in retainers.values()] == ["market.trades", "ops.dead_letters"]
    assert [one.step() for one in retainers.values()] == [False, True]
    assert (len(world.rows()), world.origins(), len(world.stored(GAPS_LAYOUT))) == (3, [2], 1)
    counters = Counters()
    count_retained(retainers, counters)
    counted = counters.values()
    assert (counted["retain_rows"], counted["ops.dead_letters.retain_rows"]) == (0, 2)
    world.close()
