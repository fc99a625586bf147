import json
from collections import defaultdict
from itertools import pairwise

import pytest

from k2 import limits
from k2.clock import ManualClock
from k2.errors import Invalid, K2Error, Reason
from servers.venue.archive import SyntheticArchive
from servers.venue.faults import Faults
from servers.venue.hub import Hub
from servers.venue.market.synthetic_market import Market, opened
from servers.venue.state_files import read_segments
from servers.venue.stream_list import parse_path
from servers.venue.synthetic_source import MarketRate, SyntheticSource
from tests.fakes.venue import FakeConnection

NOW = 1_795_000_000_000_000
SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
ALL = "/stream?timeUnit=MICROSECOND&streams=" + "/".join(
    f"{name.lower()}@trade" for name in SYMBOLS
)


class World:
    def __init__(self, rate=2000.0):
        self.clock = ManualClock(NOW)
        self.hub = Hub()
        self.market = Market(7, opened(SYMBOLS, rate))
        self.programme = SyntheticSource(
            market=Market(7, self.market.segments), hub=self.hub, clock=self.clock
        )

    def join(self, path=ALL):
        return self.hub.add(FakeConnection(), parse_path(path))

    def run(self, seconds, step_s=0.0173):
        end = self.clock.now_us() + round(seconds * 1e6)
        while self.clock.now_us() < end:
            self.clock.advance(step_s)
            while self.programme.tick() == 0:
                pass

    def expected(self, symbol, after, until):
        return self.market.between(symbol, after, until).id.tolist()


def ids(listener):
    found = defaultdict(list)
    for text in listener.connection.texts:
        event = json.loads(text)
        event = event.get("data", event)
        found[event["s"]].append(event["t"])
    return dict(found)


@pytest.fixture
def world():
    return World()


def test_a_connection_gets_what_is_printed_from_then_on(world):
    world.run(1)
    since = world.programme.until_us
    listener = world.join()
    world.run(2)
    until = world.programme.until_us
    assert ids(listener) == {symbol: world.expected(symbol, since, until) for symbol in SYMBOLS}
    assert listener.sent == sum(len(found) for found in ids(listener).values()) > 2000


def test_nothing_is_sent_before_its_time(world):
    listener = world.join()
    for _ in range(200):
        world.clock.advance(0.005)
        world.programme.tick()
        now = world.clock.now_us()
        assert all(json.loads(text)["data"]["T"] <= now for text in listener.connection.texts[-9:])


def test_a_restarted_venue_goes_on_where_the_time_is(world):
    listener = world.join()
    world.run(1)
    down = world.programme.until_us
    world.clock.advance(3)
    again = SyntheticSource(
        market=Market(7, world.market.segments), hub=world.hub, clock=world.clock
    )
    back = world.clock.now_us()
    world.programme = again
    world.run(1)
    until = again.until_us
    for symbol in SYMBOLS:
        assert ids(listener)[symbol] == (
            world.expected(symbol, NOW, down) + world.expected(symbol, back, until)
        )


def test_a_change_of_subscription_leaves_no_hole_in_what_stays(world):
    listener = world.join("/ws/btcusdt@trade?timeUnit=MICROSECOND")
    world.run(0.5)
    joined = world.programme.until_us
    listener.subscription.answer('{"method":"SUBSCRIBE","params":["ethusdt@trade"],"id":1}')
    world.run(0.5)
    left = world.programme.until_us
    listener.subscription.answer('{"method":"UNSUBSCRIBE","params":["ethusdt@trade"],"id":1}')
    world.run(0.5)
    found = ids(listener)
    assert found["BTCUSDT"] == world.expected("BTCUSDT", NOW, world.programme.until_us)
    assert found["ETHUSDT"] == world.expected("ETHUSDT", joined, left)


def test_connections_of_one_kind_share_frames_and_others_have_their_own(world):
    one, same = world.join(), world.join()
    other = world.join("/ws/ethusdt@trade")
    nothing = world.join("/ws/nosuch@trade/btcusdt@depth")
    world.run(1)
    assert one.connection.transport.data == same.connection.transport.data
    assert list(ids(other)) == ["ETHUSDT"]
    assert ids(other)["ETHUSDT"] == ids(one)["ETHUSDT"]
    assert json.loads(other.connection.texts[0])["T"] < 10**14
    assert nothing.connection.texts == []


def test_streams_nobody_listens_to_are_forgotten(world):
    listener = world.join()
    world.run(0.1)
    world.hub.remove(listener)
    world.run(0.1)
    assert world.programme._streams == {}


def test_a_late_tick_is_caught_up_in_steps(world):
    listener = world.join()
    world.programme.tick()
    world.clock.advance(5)
    assert world.programme.tick() == 0
    assert world.programme.until_us < world.clock.now_us()
    while world.programme.tick() == 0:
        pass
    assert ids(listener)["BTCUSDT"] == world.expected("BTCUSDT", NOW, NOW + 5_000_000)


def test_after_a_long_sleep_the_market_went_on(world):
    listener = world.join()
    world.run(0.5)
    slept = world.programme.until_us
    world.clock.advance(limits.VENUE_STALL_S + 1)
    back = world.clock.now_us()
    world.programme.tick()
    world.run(0.5)
    until = world.programme.until_us
    assert ids(listener)["BTCUSDT"] == (
        world.expected("BTCUSDT", NOW, slept) + world.expected("BTCUSDT", back, until)
    )


def test_a_clock_that_went_back_repeats_nothing(world):
    listener = world.join()
    world.run(0.5)
    until = world.programme.until_us
    world.clock.advance(-0.3)
    world.run(0.2)
    assert world.programme.until_us == until
    world.run(1)
    assert ids(listener)["ETHUSDT"] == world.expected("ETHUSDT", NOW, world.programme.until_us)


def test_a_quiet_market_ticks_seldom():
    world = World(rate=1.0)
    world.join()
    world.run(1)
    pauses = [world.programme.tick() for _ in range(50) if world.clock.advance(0.05) is None]
    assert pauses.count(0.05) > 40


def test_held_frames_go_out_though_none_follow():
    world = World(rate=3.0)
    listener = world.join()
    listener.line.change(Faults(delay=1, delay_ms=100))
    world.run(20)
    held_until = world.programme.until_us
    world.run(1)
    assert set(world.expected("BTCUSDT", NOW, held_until)) <= set(ids(listener)["BTCUSDT"])
    assert listener.line.counts["delay"] == 1


STREAM = "/stream?timeUnit=MICROSECOND&streams=btcusdt@trade"


class RatedWorld:
    """A synthetic market that is listened to and asked, on a clock set by hand."""

    def __init__(self, folder, symbols=("BTCUSDT",)):
        self.clock = ManualClock(NOW)
        self.kept = folder / "segments.json"
        self.segments = opened(symbols, 200.0)
        self.hub = Hub()
        self.source = SyntheticSource(
            market=Market(7, self.segments), hub=self.hub, clock=self.clock
        )
        self.archive = SyntheticArchive(Market(7, self.segments), self.clock)
        self.rate = MarketRate(
            symbols=symbols,
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
def rated(tmp_path):
    return RatedWorld(tmp_path)


def test_some_symbols_change_alone(tmp_path):
    rated = RatedWorld(tmp_path, ("BTCUSDT", "SOLUSDT"))
    before = rated.source.market.segments[-1].quota
    rated.rate.change(5000.0, ["SOLUSDT"])
    after = rated.source.market.segments[-1].quota
    assert {symbol for symbol in after if after[symbol] != before[symbol]} == {"SOLUSDT"}
    assert rated.rate.trades_per_s == pytest.approx(5150, abs=2)  # BTC has three quarters of 200
    with pytest.raises(Invalid, match="does not trade NOPE"):
        rated.rate.change(5.0, ["NOPE"])


def test_another_rate_goes_on_with_the_next_id_and_a_later_time(rated):
    rated.run(3)
    slow = len(rated.sent())
    rated.rate.change(3000.0)
    rated.run(3)
    sent = rated.sent()
    assert len(sent) - slow > 3 * slow
    rated.rate.change(100.0)
    before = len(sent)
    rated.run(3)
    assert len(rated.sent()) - before < before / 3
    ids, times = ([each[name] for each in rated.sent()] for name in ("t", "T"))
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert all(one <= two for one, two in pairwise(times))
    assert rated.rate.trades_per_s == 100.0
    assert rated.rate.shown.emitted("BTCUSDT", rated.source.until_us) == ids[-1]


def test_what_rest_answers_agrees_with_what_was_sent(rated):
    for rate in (200.0, 2000.0, 50.0):
        rated.rate.change(rate)
        rated.run(2)
    sent = {each["t"]: (each["T"], each["p"], each["q"]) for each in rated.sent()}
    past = rated.archive.trades("BTCUSDT", min(sent), 1000)
    assert len(past) == 1000
    assert all(sent[one.id] == (one.time_us, one.price, one.quantity) for one in past)


def test_the_segments_are_kept_for_the_next_run(rated):
    rated.rate.change(900.0)
    assert read_segments(rated.kept, 7) == rated.source.market.segments
    assert len(rated.source.market.segments) == 2


def test_the_same_rate_begins_no_segment(rated):
    rated.rate.change(200.0)
    assert rated.source.market.segments == rated.segments
    assert not rated.kept.exists()


@pytest.mark.parametrize("rate", [0.0, -1.0, limits.VENUE_RATE_MAX + 1])
def test_rates_that_no_market_has_are_refused(rated, rate):
    with pytest.raises(Invalid, match="at most 100,000") as caught:
        rated.rate.change(rate)
    assert caught.value.reason is Reason.BAD_REQUEST
    assert rated.rate.trades_per_s == 200.0


def test_a_segment_that_cannot_be_kept_changes_nothing(rated):
    rated.kept.with_suffix(".new").mkdir()
    with pytest.raises(K2Error, match="cannot be written"):
        rated.rate.change(900.0)
    assert (rated.rate.trades_per_s, rated.source.market.segments) == (200.0, rated.segments)
