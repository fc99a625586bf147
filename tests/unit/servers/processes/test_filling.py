import io

from k2.clock import SystemClock
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.settings import FeedSettings, Settings
from k2.tape import topics
from servers.processes.filling import backfill_of, sender_of
from servers.runtime import Runtime
from tests.fakes.tape import FakeTape
from tests.support.fill_world import BTC


def test_a_feed_fills_what_it_listens_to_within_the_budget_that_was_set(tmp_path):
    feed = FeedSettings(venue_url="ws://127.0.0.1:1", rest_weight_per_minute=77)
    settings = Settings(data_dir=tmp_path, feed=feed)
    tape, runtime = FakeTape(), Runtime(SystemClock(), "1", out=io.StringIO())
    producer = tape.producer()
    sender = sender_of(producer, [InstrumentStream(BTC, 3, None)], lambda trade: b"", runtime)
    assert sender.instruments == {BTC}
    requests = tape.board(topics.BACKFILLS)
    backfill = backfill_of(settings, runtime, sender, tape.gap_log(), requests)
    assert backfill.counters()["weight_per_minute"] == 77
    runtime.stopping.set()
    backfill.start()
    backfill.close(5)
    assert backfill.failure is None
