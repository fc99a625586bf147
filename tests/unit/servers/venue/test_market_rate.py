import json
from itertools import pairwise

import pytest

from k2 import limits
from k2.clock import ManualClock
from k2.errors import Invalid, K2Error, Reason
from servers.venue.archive import SyntheticArchive
from servers.venue.hub import Hub
from servers.venue.market.synthetic_market import Market, opened
from servers.venue.market_rate import MarketRate
from servers.venue.state_files import read_segments
from servers.venue.stream_list import parse_path
from servers.venue.synthetic_source import SyntheticSource
from tests.fakes.venue import FakeConnection

NOW = 1_795_000_000_000_000
STREAM = "/stream?timeUnit=MICROSECOND&streams=btcusdt@trade"


class World:
    """A synthetic market that is listened to and asked, on a clock set by hand."""

    def __init__(self, folder):
        self.clock = ManualClock(NOW)
        self.kept = folder / "segments.json"
        self.segments = opened(("BTCUSDT",), 200.0)
        self.hub = Hub()
        self.source = SyntheticSource(
            market=Market(7, self.segments), hub=self.hub, clock=self.clock
        )
        self.archive = SyntheticArchive(Market(7, self.segments), self.clock)
        self.rate = MarketRate(
            symbols=("BTCUSDT",),
            trades_per_s=200.0,
            kept=self.kept,
            source=self.source,
            archive=self.archive,
            clock=self.clock,
        )
        self.listener = self.hub.add(FakeConnection(), parse_path(STREAM))

    def run(self, seconds):
        end = self.clock.now_us() + round(seconds * 1e6)
        while self.clock.now_us() < end:
            self.clock.advance(0.0173)
            while self.source.tick() == 0:
                pass

    def sent(self):
        return [json.loads(text)["data"] for text in self.listener.connection.texts]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_another_rate_goes_on_with_the_next_id_and_a_later_time(world):
    world.run(3)
    slow = len(world.sent())
    world.rate.change(3000.0)
    world.run(3)
    sent = world.sent()
    assert len(sent) - slow > 3 * slow
    world.rate.change(100.0)
    before = len(sent)
    world.run(3)
    assert len(world.sent()) - before < before / 3
    ids, times = ([each[name] for each in world.sent()] for name in ("t", "T"))
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert all(one <= two for one, two in pairwise(times))
    assert world.rate.trades_per_s == 100.0
    assert world.rate.shown.emitted("BTCUSDT", world.source.until_us) == ids[-1]


def test_what_rest_answers_agrees_with_what_was_sent(world):
    for rate in (200.0, 2000.0, 50.0):
        world.rate.change(rate)
        world.run(2)
    sent = {each["t"]: (each["T"], each["p"], each["q"]) for each in world.sent()}
    past = world.archive.trades("BTCUSDT", min(sent), 1000)
    assert len(past) == 1000
    assert all(sent[one.id] == (one.time_us, one.price, one.quantity) for one in past)


def test_the_segments_are_kept_for_the_next_run(world):
    world.rate.change(900.0)
    assert read_segments(world.kept, 7) == world.source.market.segments
    assert len(world.source.market.segments) == 2


def test_the_same_rate_begins_no_segment(world):
    world.rate.change(200.0)
    assert world.source.market.segments == world.segments
    assert not world.kept.exists()


@pytest.mark.parametrize("rate", [0.0, -1.0, limits.VENUE_RATE_MAX + 1])
def test_rates_that_no_market_has_are_refused(world, rate):
    with pytest.raises(Invalid, match="at most 100,000") as caught:
        world.rate.change(rate)
    assert caught.value.reason is Reason.BAD_REQUEST
    assert world.rate.trades_per_s == 200.0


def test_a_segment_that_cannot_be_kept_changes_nothing(world):
    world.kept.with_suffix(".new").mkdir()
    with pytest.raises(K2Error, match="cannot be written"):
        world.rate.change(900.0)
    assert (world.rate.trades_per_s, world.source.market.segments) == (200.0, world.segments)
