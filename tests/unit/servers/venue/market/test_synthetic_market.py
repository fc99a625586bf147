import numpy as np
import pytest

from servers.venue.market.activity_clock import BLOCK_US, Activity
from servers.venue.market.instruments import LISTED
from servers.venue.market.synthetic_market import (
    ORIGIN_US,
    Market,
    Segment,
    continued,
    opened,
    rates,
)

NOW = 1_795_000_000_000_000
SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
COLUMNS = ("id", "time_us", "price", "quantity", "buyer_is_maker")


def market(rate=1000.0, symbols=SYMBOLS, seed=7):
    return Market(seed, opened(symbols, rate))


def rows(trades):
    return list(zip(*(getattr(trades, column).tolist() for column in COLUMNS), strict=True))


@pytest.fixture(scope="module")
def minute():
    """Ten minutes of BTCUSDT and ETHUSDT at 2,000 trades a second."""
    busy = market(2000.0)
    return {symbol: busy.between(symbol, NOW, NOW + 600_000_000) for symbol in SYMBOLS[:2]}


def test_a_trade_is_what_it_is_for_ever():
    """These rows are the contract with data already recorded: a change of them is a new market."""
    trades = market(50.0).trades("BTCUSDT", 1_000_000_000, 1_000_000_004)
    assert rows(trades) == PINNED


def test_a_restarted_market_agrees_however_it_is_asked():
    one, other = market(), market()
    whole = rows(one.between("ETHUSDT", NOW, NOW + 10_000_000))
    assert len(whole) > 1000
    pieces = []
    for start in range(NOW, NOW + 10_000_000, 700_001):
        pieces += rows(other.between("ETHUSDT", start, min(start + 700_001, NOW + 10_000_000)))
    assert pieces == whole
    some = whole[123][0]
    assert rows(other.trades("ETHUSDT", some, some + 1)) == [whole[123]]


def test_ids_are_contiguous_and_times_never_descend(minute):
    for trades in minute.values():
        assert (np.diff(trades.id) == 1).all()
        assert (np.diff(trades.time_us) >= 0).all()
        assert trades.time_us[0] > NOW
        assert trades.time_us[-1] <= NOW + 600_000_000


def test_a_time_knows_the_ids_printed_until_then():
    busy = market()
    for time in range(NOW, NOW + 3_000_000, 333_333):
        newest = busy.emitted("BTCUSDT", time)
        times = busy.trades("BTCUSDT", newest, newest + 2).time_us
        assert times[0] <= time < times[1]


@pytest.mark.parametrize("rate", [0.001, 60.0, 100_000.0])
def test_to_know_the_ids_printed_needs_the_activity_of_that_time_alone(rate, monkeypatch):
    computed = []
    cascade = Activity._cascade
    monkeypatch.setattr(
        Activity, "_cascade", lambda clock, block: computed.append(block) or cascade(clock, block)
    )
    market(rate).emitted("BTCUSDT", NOW)
    assert set(computed) <= {ORIGIN_US // BLOCK_US, NOW // BLOCK_US}


def test_before_the_first_trade_there_is_none():
    quiet = market(50.0)
    assert quiet.emitted("BTCUSDT", ORIGIN_US - 1) == 0
    assert quiet.emitted("BTCUSDT", ORIGIN_US) == 0
    assert quiet.emitted("BTCUSDT", ORIGIN_US + 60_000_000) > 1000
    assert quiet.first_id("BTCUSDT") == 1
    assert quiet.trades("BTCUSDT", -5, 3).id.tolist() == [1, 2]
    assert len(quiet.trades("BTCUSDT", 9, 9).id) == 0
    assert quiet.trades("BTCUSDT", 1, 2).time_us[0] > ORIGIN_US


@pytest.mark.parametrize("rate", [3.0, 50.0, 2000.0, 100_000.0])
def test_the_rate_is_that_of_all_subscribed_symbols(rate):
    busy = market(rate)
    window_s = max(1000.0, 3000 / rate)
    printed = sum(
        busy.emitted(symbol, NOW + int(window_s * 1e6)) - busy.emitted(symbol, NOW)
        for symbol in SYMBOLS
    )
    assert printed == pytest.approx(rate * window_s, rel=0.06)


def test_symbols_trade_by_their_weights_whether_subscribed_or_not():
    quotas = rates(SYMBOLS, 1000.0)
    assert set(quotas) == set(LISTED)
    assert quotas["BTCUSDT"] / quotas["SOLUSDT"] == pytest.approx(3.0, rel=0.01)
    assert "WIFUSDT" in rates(("WIFUSDT",), 1.0)


def test_a_new_rate_goes_on_with_the_next_id_and_leaves_the_past_alone():
    before = market(200.0)
    segments = continued(before, SYMBOLS, 5000.0, NOW)
    after = Market(7, segments)
    assert len(segments) == 2
    for symbol in SYMBOLS:
        newest = before.emitted(symbol, NOW)
        assert after.emitted(symbol, NOW) == newest
        around = after.trades(symbol, newest - 50, newest + 50)
        assert (np.diff(around.time_us) >= 0).all()
        assert around.time_us[50] <= NOW < around.time_us[51]
        assert rows(after.trades(symbol, newest - 50, newest + 1)) == rows(
            before.trades(symbol, newest - 50, newest + 1)
        )
    faster = after.emitted("BTCUSDT", NOW + 600_000_000) - after.emitted("BTCUSDT", NOW)
    assert faster / 600 == pytest.approx(5000 * 30 / 58, rel=0.06)


def test_many_changes_leave_every_past_as_it_was():
    segments, time = opened(SYMBOLS, 100.0), NOW
    known = {}
    for rate, symbols in (
        (20.0, SYMBOLS),
        (90.0, ("WIFUSDT", *SYMBOLS)),
        (30.0, SYMBOLS),
        (30.0, SYMBOLS),
    ):
        past = Market(7, segments)
        newest = past.emitted("BTCUSDT", time)
        known |= {row[0]: row for row in rows(past.trades("BTCUSDT", newest - 20, newest + 1))}
        segments = continued(past, symbols, rate, time)
        time += 77_777_777
    assert len(segments) == 4, "an unchanged rate adds none"
    last = Market(7, segments)
    assert all(rows(last.trades("BTCUSDT", key, key + 1)) == [row] for key, row in known.items())
    whole = last.trades("BTCUSDT", min(known), last.emitted("BTCUSDT", time) + 1)
    assert (np.diff(whole.time_us) >= 0).all()
    assert last.first_id("WIFUSDT") == 1
    assert last.trades("WIFUSDT", 1, 2).time_us[0] > NOW + 77_777_777 - 1


def test_the_same_rate_changes_nothing():
    before = market()
    assert continued(before, SYMBOLS, 1000.0, NOW) is before.segments


def test_a_clock_that_went_back_does_not_bring_ids_back():
    first = Market(7, continued(market(), SYMBOLS, 10.0, NOW))
    segments = continued(first, SYMBOLS, 20.0, NOW - 3_600_000_000)
    assert segments[-1].from_time_us == NOW + 1
    assert segments[-1].from_id["BTCUSDT"] == first.emitted("BTCUSDT", NOW + 1) + 1


def test_only_so_many_changes_are_remembered():
    segments = tuple(
        Segment(NOW + i, {"BTCUSDT": 1 + i}, {"BTCUSDT": 1000 + i}) for i in range(1000)
    )
    grown = continued(Market(7, segments[-3:]), SYMBOLS, 10.0, NOW + 5_000_000_000)
    assert len(grown) == 4
    assert len(continued(Market(7, segments), SYMBOLS, 10.0, NOW + 5_000_000_000)) == 1000


def test_another_seed_is_another_market():
    one, other = market(seed=7), market(seed=8)
    assert rows(one.trades("BTCUSDT", 5, 50)) != rows(other.trades("BTCUSDT", 5, 50))


def test_prices_stand_on_ticks_and_quantities_on_lots():
    busy = market(symbols=tuple(LISTED))
    for symbol, listing in LISTED.items():
        trades = busy.between(symbol, NOW, NOW + 60_000_000)
        assert (trades.price > 0).all()
        assert (trades.price % listing.tick == 0).all()
        assert (trades.quantity > 0).all()
        assert (trades.quantity % listing.lot == 0).all()
        assert 0.3 < trades.price.mean() / listing.tick / listing.price_ticks < 3


def test_sizes_have_a_heavy_tail(minute):
    sizes = np.sort(minute["BTCUSDT"].quantity)[::-1].astype(float)
    top = sizes[: len(sizes) // 100]
    hill = 1 / np.mean(np.log(top / top[-1]))
    assert 1.2 < hill < 2.2, "real trades: about 1.6"
    assert sizes[0] / np.median(sizes) > 500


def test_arrivals_burst(minute):
    """Variance over mean of the count in 100 ms; 1 for independent arrivals."""
    offsets = (minute["BTCUSDT"].time_us - NOW) // 100_000
    counts = np.bincount(offsets, minlength=6000)
    assert counts.var() / counts.mean() > 10
    quietest, busiest = np.percentile(counts, [5, 99])
    assert busiest > 4 * quietest


def test_takers_sweep_several_orders_at_one_moment(minute):
    trades = minute["BTCUSDT"]
    together = np.diff(trades.time_us) == 0
    assert 0.2 < together.mean() < 0.6
    same_side = trades.buyer_is_maker[1:] == trades.buyer_is_maker[:-1]
    assert same_side[together].all()
    assert 0.4 < trades.buyer_is_maker.mean() < 0.6


def test_prices_walk_and_walk_together():
    busy = market(30.0, SYMBOLS)
    returns = {}
    for symbol in SYMBOLS:
        first = busy.emitted(symbol, NOW)
        a_minute = busy.emitted(symbol, NOW + 3_600_000_000) // 60 - first // 60
        ids = range(first, first + 240 * a_minute, a_minute)
        prices = np.array([busy.trades(symbol, i, i + 1).price[0] for i in ids], float)
        returns[symbol] = np.diff(np.log(prices))
    deviations = np.array([series.std() for series in returns.values()])
    assert ((deviations > 3e-4) & (deviations < 3e-3)).all(), "some 0.1 % a minute"
    correlation = np.corrcoef(list(returns.values()))
    assert 0.5 < correlation[0, 1] < 0.95
    assert 0.5 < correlation[0, 2] < 0.95
    longer = [series[:230].reshape(-1, 10).sum(axis=1).std() for series in returns.values()]
    assert (np.array(longer) / deviations > 2).all(), "ten minutes go further than one: it walks"


PINNED = [
    (1000000000, 1616503466642113, 7197684000000, 129000, False),
    (1000000001, 1616503466686431, 7197581000000, 81000, True),
    (1000000002, 1616503466686431, 7197581000000, 66000, True),
    (1000000003, 1616503466686431, 7197580000000, 108000, True),
]
