"""What a feed counts beside its heartbeat."""

from servers.processes.feed_measures import measure_feed
from tests.support.scraped import scraped
from tests.unit.servers.processes.test_feed import World, frame


def test_trades_are_counted_by_symbol_and_backfill_beside_them(tmp_path):
    world = World(tmp_path)
    world.take(frame(100), frame(102), frame(102))
    world.take(frame(101, p="0", q="0", X="NA"))
    world.pump.frames_waiting = 7
    world.pump.gaps.counts |= {"filled_ids": 5, "requests": 3, "failures": 1}
    before = scraped(measure_feed(world.pump, world.intake))
    world.producer.poll()
    after = scraped(measure_feed(world.pump, world.intake))
    assert before["k2_feed_trades_total", "BTCUSDT"] == 2, "one came again, one is no trade"
    assert before["k2_feed_trades_acknowledged_total", "BTCUSDT"] == 0
    assert after["k2_feed_trades_acknowledged_total", "BTCUSDT"] == 2
    assert after["k2_feed_queue_frames",] == 7
    assert after["k2_backfill_trades_total",] == 5
    assert after["k2_backfill_requests_total",] == 3
    assert after["k2_backfill_failures_total",] == 1
