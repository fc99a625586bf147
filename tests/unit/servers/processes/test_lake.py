from k2.clock import ManualClock
from k2.degrade.signals import Signal, pressures
from k2.lake.ingest.trade_writer import WriterStats
from k2.lake.maintenance.maintainer import MaintainStats
from k2.market.offsets import OffsetVector
from k2.settings import LakeSettings, Settings
from servers.processes.lake import maintenance_counters, sampler


def sample(tmp_path, stats, interval_s=10.0):
    settings = Settings(data_dir=tmp_path, lake=LakeSettings(commit_interval_s=interval_s))
    return sampler(
        settings, ManualClock(100_000_000), lambda: stats, lambda: {"ops.gaps.rows": 3}
    )()


def test_the_heart_says_what_the_writer_has_done(tmp_path):
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
    told = sample(tmp_path, stats)
    assert told.signals[Signal.WRITER_LAG_S] == 5.0
    assert told.signals[Signal.COMMIT_LATENCY_S] == 0.04
    assert told.signals[Signal.RSS_BYTES] > 0
    assert told.signals[Signal.DISK_FREE_BYTES] > 0
    assert told.counters["positions"] == "0:3,4"
    assert told.counters["snapshot_id"] == str(2**62)
    assert (told.counters["commits"], told.counters["rows"]) == (2, 10)
    assert told.counters["ops.gaps.rows"] == 3
    assert told.counters["alerts"] == ["partition 3 waits: the registry is away"]


def test_the_heart_says_what_maintenance_has_done():
    told = maintenance_counters(MaintainStats(compactions=3, files_removed=40))
    assert told["maintain_compactions"] == 3
    assert told["maintain_files_removed"] == 40


def test_a_writer_that_has_done_nothing_yet_has_a_sample(tmp_path):
    told = sample(tmp_path, WriterStats())
    assert told.signals[Signal.WRITER_LAG_S] == 0.0
    assert told.counters["positions"] == ""


def test_a_longer_commit_interval_is_not_lag(tmp_path):
    default = sample(tmp_path, WriterStats()).scales[Signal.WRITER_LAG_S].full
    longer = sample(tmp_path, WriterStats(), interval_s=60.0).scales[Signal.WRITER_LAG_S].full
    assert (default, longer) == (300.0, 1800.0)


def test_ordinary_operation_at_a_commit_a_minute_presses_on_nothing(tmp_path):
    stats = WriterStats(oldest_pending_s=35.0, commit_latency_s=5.0)  # 65 s ago
    told = sample(tmp_path, stats, interval_s=60.0)
    pressed = pressures(told.signals, told.scales)
    assert pressed[Signal.WRITER_LAG_S] == pressed[Signal.COMMIT_LATENCY_S] == 0
