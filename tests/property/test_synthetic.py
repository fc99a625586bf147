"""Whatever the seed, the rates and the moments: ids and times are one map, in both directions."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from servers.venue.market.activity_clock import BLOCK_US, MASS_BITS, Activity
from servers.venue.market.synthetic_market import ORIGIN_US, Market, continued, opened

NOW = 1_795_000_000_000_000
seeds = st.integers(0, 2**31)
all_rates = st.floats(0.01, 100_000)
times = st.integers(ORIGIN_US, ORIGIN_US + 20 * 365 * 86_400_000_000)
symbols = st.sampled_from(["BTCUSDT", "SHIBUSDT", "PEPEUSDT"])


def rows(trades):
    columns = (trades.id, trades.time_us, trades.price, trades.quantity, trades.buyer_is_maker)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@settings(max_examples=60, deadline=None)
@given(seeds, all_rates, symbols, times)
def test_a_time_has_printed_exactly_the_ids_up_to_it(seed, rate, symbol, time):
    market = Market(seed, opened((symbol,), rate))
    newest = market.emitted(symbol, time)
    found = market.trades(symbol, newest - 40, newest + 40)
    printed = found.time_us <= time
    assert found.id[printed].tolist() == [i for i in found.id.tolist() if i <= newest]
    assert (np.diff(found.time_us) >= 0).all()


@settings(max_examples=40, deadline=None)
@given(seeds, all_rates, symbols, times, st.lists(st.integers(1, 3_000_000), max_size=6))
def test_pieces_make_the_whole(seed, rate, symbol, start, widths):
    rate = min(rate, 500.0)
    market, edges = Market(seed, opened((symbol,), rate)), [start]
    for width in widths:
        edges.append(edges[-1] + width)
    whole = rows(market.between(symbol, edges[0], edges[-1]))
    pieces = []
    for after, until in pairwise(edges):
        pieces += rows(Market(seed, market.segments).between(symbol, after, until))
    assert pieces == whole


@settings(max_examples=20, deadline=None)
@given(
    seeds,
    st.lists(st.tuples(all_rates, st.integers(-5_000_000, 90_000_000)), min_size=1, max_size=5),
)
def test_changes_of_rate_keep_ids_contiguous_and_the_past_as_it_was(seed, changes):
    segments, now = opened(("BTCUSDT",), 10.0), NOW
    past: dict[int, tuple[int, ...]] = {}
    for rate, later in changes:
        before = Market(seed, segments)
        newest = before.emitted("BTCUSDT", now)
        past |= {row[0]: row for row in rows(before.trades("BTCUSDT", newest - 3, newest + 1))}
        segments = continued(before, ("BTCUSDT",), rate, now)
        after = Market(seed, segments)
        assert after.emitted("BTCUSDT", now) == before.emitted("BTCUSDT", now)
        # A clock that was set back: what was printed after the change is printed anew.
        past = {one: row for one, row in past.items() if row[1] <= segments[-1].from_time_us}
        now += later
    last = Market(seed, segments)
    for trade_id, row in past.items():
        assert rows(last.trades("BTCUSDT", trade_id, trade_id + 1)) == [row]
    for segment in segments[1:]:
        first = segment.from_id["BTCUSDT"]
        around = last.trades("BTCUSDT", first - 3, first + 3).time_us
        assert (np.diff(around) >= 0).all()
        assert around[2] <= segment.from_time_us < around[3]


@settings(max_examples=100, deadline=None)
@given(seeds, times, st.integers(0, (1 << MASS_BITS) - 1))
def test_the_activity_clock_runs_back(seed, time, mass):
    activity = Activity(seed, "BTCUSDT")
    position = ((time // BLOCK_US) << MASS_BITS) + mass
    reached = int(activity.times(np.array([position]))[0])
    assert activity.position(reached) <= position <= activity.position(reached + 1)
