from k2.clock import ManualClock
from k2.degrade.signals import Signal, pressures
from k2.lake.ingest.trade_writer import WriterStats
from k2.market.offsets import OffsetVector
from k2.settings import LakeSettings, Settings
from servers.processes.lake import writer_counters, writer_scales, writer_signals


def signals(stats):
    return writer_signals(stats, ManualClock(100_000_000))


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
    read = signals(stats)
    assert read == {Signal.WRITER_LAG_S: 5.0, Signal.COMMIT_LATENCY_S: 0.04}
    counted = writer_counters(stats, ["the tape is short"])
    assert counted.positions == "0:3,4"
    assert counted.snapshot_id == str(2**62)
    assert (counted.commits, counted.rows) == (2, 10)
    assert counted.alerts == ["partition 3 waits: the registry is away", "the tape is short"]


def test_a_writer_that_has_done_nothing_yet_is_counted():
    assert signals(WriterStats())[Signal.WRITER_LAG_S] == 0.0
    assert writer_counters(WriterStats(), ()).positions == ""


def test_a_longer_commit_interval_is_not_lag():
    full = [scaled(interval_s)[Signal.WRITER_LAG_S].full for interval_s in (10.0, 60.0)]
    assert full == [300.0, 1800.0]


def test_ordinary_operation_at_a_commit_a_minute_presses_on_nothing():
    stats = WriterStats(oldest_pending_s=35.0, commit_latency_s=5.0)  # 65 s ago
    pressed = pressures(signals(stats), scaled(60.0))
    assert pressed[Signal.WRITER_LAG_S] == pressed[Signal.COMMIT_LATENCY_S] == 0
