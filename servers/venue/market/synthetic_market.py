"""A seeded synthetic market: each trade is a pure function of (seed, symbol, id).

Ids and times map onto each other, so a market needs no memory: every request for a range, at any
time, gives the same trades, and at wall time t exactly the ids with time <= t have been printed.
Rates alone are chosen from outside. They are kept as *segments*: from a time and an id on, so many
trades a block. A new segment starts where the last one stood, so ids stay contiguous and earlier
trades stay what they were.

What makes it resemble a market: bursts within bursts (`activity`), takers that sweep several orders
at one moment, prices that walk with a common factor, sizes with a Pareto tail of exponent 1.6.
Floating point appears only in +, -, x, / and the square root, which are exact everywhere.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from k2 import limits
from servers.venue.market import hash_random
from servers.venue.market.activity_clock import BLOCK_BITS, BLOCK_US, MASS_BITS, Activity
from servers.venue.market.hash_random import Floats, Int64s
from servers.venue.market.instruments import LISTED, listing_of

ORIGIN_US = 1_577_836_800_000_000  # 2020-01-01: the first trade of every synthetic market
_QUOTA_BLOCKS = 1024  # a quota is the trades of so many blocks: a rate as an integer
_QUOTA_MAX = 1 << 33  # 120,000 trades a second: positions stay within 63 bits
_ORDER_BITS = 4  # orders are cut out of runs of 16 ids
_PATTERNS = 64
_KNOT_BITS = 17  # of microseconds: prices turn every 0.13 s and are straight between
_KNOTS = BLOCK_US >> _KNOT_BITS
_OCTAVES = 26  # the slowest swing takes 50 days: prices stay around where they are listed
_KNOT_S = (1 << _KNOT_BITS) / 1e6
_MARKET_VOLATILITY = 0.9e-4  # a square root of a second; 50 % a year
_TAIL_MAX = 4096.0


@dataclass(frozen=True)
class Segment:
    """From when, and from which id of each symbol, the market trades at which rates.

    Attributes:
        from_time_us: first microsecond after it belongs to the segment.
        from_id: first id of each symbol.
        quota: trades of each symbol in 1024 blocks.
    """

    from_time_us: int
    from_id: Mapping[str, int]
    quota: Mapping[str, int]


@dataclass(frozen=True)
class SyntheticTrades:
    """Consecutive trades of one symbol.

    Attributes:
        symbol: upper case.
        id: ascending by one. int64[n]
        time_us: never descending. int64[n]
        price, quantity: mantissas in units of 1e-8. int64[n]
        buyer_is_maker: whether the taker sold. bool[n]
    """

    symbol: str
    id: Int64s
    time_us: Int64s
    price: Int64s
    quantity: Int64s
    buyer_is_maker: npt.NDArray[np.bool_]


def rates(symbols: Iterable[str], rate: float) -> dict[str, int]:
    """Share `rate` trades a second among every listed symbol and `symbols`, as quotas.

    Symbols that are listed and not named trade at the same scale, each by its weight.
    """
    named = dict.fromkeys(symbols)
    weight = sum(listing_of(symbol).weight for symbol in named)
    scale = rate / weight * (BLOCK_US / 1e6) * _QUOTA_BLOCKS if weight else 0.0
    return {
        symbol: min(max(1, round(listing_of(symbol).weight * scale)), _QUOTA_MAX)
        for symbol in (*named, *(known for known in LISTED if known not in named))
    }


def opened(symbols: Iterable[str], rate: float) -> tuple[Segment, ...]:
    """Make the segments of a market that has always traded `symbols` at `rate`."""
    quota = rates(symbols, rate)
    return (Segment(ORIGIN_US, dict.fromkeys(quota, 1), quota),)


def trades_per_s(segment: Segment, symbols: Iterable[str]) -> float:
    """Return the rate of some symbols together, as a segment has it."""
    quota = sum(segment.quota.get(symbol, 0) for symbol in symbols)
    return quota / _QUOTA_BLOCKS / (BLOCK_US / 1e6)


def continued(
    market: Market, symbols: Sequence[str], rate: float, now_us: int, *, alone: bool = False
) -> tuple[Segment, ...]:
    """Make the segments of `market` when, from now on, `symbols` trade at `rate`.

    The same segments when nothing changes. Symbols that a segment has stay in the next, at their
    old quota where nothing new is said.

    Args:
        market: as it is.
        symbols: that share the rate.
        rate: of them together, trades a second.
        now_us: when it changes.
        alone: whether listed symbols that are not named keep their rate, instead of the same scale.
    """
    last = market.segments[-1]
    shared = rates(symbols, rate)
    quota = {**last.quota, **{s: new for s, new in shared.items() if not alone or s in symbols}}
    if quota == dict(last.quota):
        return market.segments
    from_time = max(now_us, last.from_time_us + 1)
    from_id = {
        symbol: market.emitted(symbol, from_time) + 1 if symbol in last.quota else 1
        for symbol in quota
    }
    segments = (*market.segments, Segment(from_time, from_id, quota))
    return segments[-limits.VENUE_SEGMENTS_MAX :]


class Market:
    """The trades of all symbols under one seed. Not for several threads at once.

    Make one for each thread: they agree.

    Args:
        seed: chooses the market.
        segments: in order of time.
    """

    def __init__(self, seed: int, segments: Sequence[Segment]) -> None:
        self.seed = seed
        self.segments = tuple(segments)
        common = _RandomWalk(seed, "")
        self._symbols = {
            symbol: _Symbol(seed, symbol, self.segments, common)
            for symbol in self.segments[-1].quota
        }

    @property
    def symbols(self) -> tuple[str, ...]:
        """All symbols that trade, upper case."""
        return tuple(self._symbols)

    def emitted(self, symbol: str, time_us: int) -> int:
        """Return the highest id printed at or before a time; one below the first if none was."""
        return self._symbols[symbol].emitted(time_us)

    def first_id(self, symbol: str) -> int:
        """Return the lowest id there is."""
        return self._symbols[symbol].first_id

    def trades(self, symbol: str, first_id: int, end_id: int) -> SyntheticTrades:
        """Make the trades from `first_id` up to, without, `end_id`; none below the first id."""
        return self._symbols[symbol].trades(first_id, end_id)

    def between(self, symbol: str, after_us: int, until_us: int) -> SyntheticTrades:
        """Make the trades printed after one time, up to and with another."""
        first = self.emitted(symbol, after_us) + 1
        return self.trades(symbol, first, max(first, self.emitted(symbol, until_us) + 1))


class _Symbol:
    def __init__(
        self, seed: int, symbol: str, segments: Sequence[Segment], common: _RandomWalk
    ) -> None:
        self._symbol = symbol
        self._listing = listing_of(symbol)
        self._activity = Activity(seed, symbol)
        self._runs = [
            _Run(segment, symbol, self._activity) for segment in segments if symbol in segment.quota
        ]
        self.first_id = self._runs[0].from_id
        self._own = _RandomWalk(seed, symbol)
        self._common = common
        self._order_key = hash_random.key_of(seed, symbol, "orders")
        self._jitter_key = hash_random.key_of(seed, symbol, "jitter")
        self._side_key = hash_random.key_of(seed, symbol, "side")
        self._size_key = hash_random.key_of(seed, symbol, "size")

    def emitted(self, time_us: int) -> int:
        run = next((run for run in reversed(self._runs) if run.from_time_us < time_us), None)
        if run is None:
            return self.first_id - 1
        reached = self._activity.reached(time_us)
        guess = run.guess(reached)  # what is printed by then ends less than two orders above it
        low = max(run.from_id, guess - 1)
        ids = np.arange(low, max(low, guess) + (2 << _ORDER_BITS), dtype=np.int64)
        return low + int(np.searchsorted(self._positions(run, ids), reached, side="right")) - 1

    def trades(self, first_id: int, end_id: int) -> SyntheticTrades:
        first = max(first_id, self.first_id)
        ids = np.arange(first, max(first, end_id), dtype=np.int64)
        times = self._times(ids)
        starts = self._order_starts(ids)
        sells = (hash_random.bits(self._side_key, starts) & np.uint64(1)).astype(bool)
        return SyntheticTrades(
            symbol=self._symbol,
            id=ids,
            time_us=times,
            price=self._prices(times, ids - starts, sells),
            quantity=self._quantities(ids),
            buyer_is_maker=sells,
        )

    def _times(self, ids: Int64s) -> Int64s:
        times = np.empty(len(ids), np.int64)
        end = len(ids)
        for run in reversed(self._runs):
            start = int(np.searchsorted(ids[:end], run.from_id))
            if start < end:
                times[start:end] = self._run_times(run, ids[start:end])
            end = start
        return times

    def _run_times(self, run: _Run, ids: Int64s) -> Int64s:
        times = self._activity.times(self._positions(run, ids))
        return np.maximum(times, run.from_time_us + 1)

    def _positions(self, run: _Run, ids: Int64s) -> Int64s:
        starts = np.maximum(self._order_starts(ids), run.from_id)
        jitter = (hash_random.bits(self._jitter_key, starts) >> np.uint64(54)).astype(np.int64)
        return run.positions(starts, jitter)

    def _order_starts(self, ids: Int64s) -> Int64s:
        """Return the first id of the taker's order that each trade belongs to."""
        runs = ids >> _ORDER_BITS
        pattern = (hash_random.bits(self._order_key, runs) % np.uint64(_PATTERNS)).astype(np.int64)
        within = ids & ((1 << _ORDER_BITS) - 1)
        starts: Int64s = (runs << _ORDER_BITS) + _ORDER_STARTS[pattern, within]
        return starts

    def _prices(self, times: Int64s, swept: Int64s, sells: npt.NDArray[np.bool_]) -> Int64s:
        listing = self._listing
        log_price = self._own.at(times) * listing.volatility
        log_price += self._common.at(times) * (listing.beta * _MARKET_VOLATILITY)
        middle = np.floor(_grown(log_price) * listing.price_ticks).astype(np.int64)
        deeper = 1 + (swept >> 1)
        ticks = np.where(sells, middle - deeper, middle + deeper)
        prices: Int64s = np.maximum(ticks, 1) * listing.tick
        return prices

    def _quantities(self, ids: Int64s) -> Int64s:
        chances = hash_random.bits(self._size_key, ids)
        tail, body = hash_random.fractions(chances, 32), hash_random.fractions(chances, 0)
        root = np.sqrt(tail)
        eighth = np.sqrt(np.sqrt(root))
        heavy = np.minimum(1.0 / (root * eighth), _TAIL_MAX)  # tail ** -0.625
        lots = np.floor(body * heavy * self._listing.size_lots).astype(np.int64) + 1
        return lots * self._listing.lot


class _Run:
    """One segment of one symbol."""

    def __init__(self, segment: Segment, symbol: str, activity: Activity) -> None:
        self.from_time_us = segment.from_time_us
        self.from_id = segment.from_id[symbol]
        self._quota = segment.quota[symbol]
        self._start = activity.position(segment.from_time_us)

    def positions(self, ids: Int64s, jitter: Int64s) -> Int64s:
        """Compute where on the activity clock ids are; `jitter` is in 1024ths of an id."""
        thousandths = ((ids - self.from_id) << 10) + jitter
        whole, rest = thousandths // self._quota, thousandths % self._quota
        return self._start + (whole << MASS_BITS) + ((rest << MASS_BITS) // self._quota)

    def guess(self, position: int) -> int:
        """Estimate the highest id printed at a position of the activity clock."""
        return self.from_id + ((position - self._start) * self._quota >> (MASS_BITS + 10))


class _RandomWalk:
    """A random walk over all of time: swings of every length, each as wide as its square root."""

    def __init__(self, seed: int, name: str) -> None:
        self._keys = [hash_random.key_of(seed, name, f"walk{octave}") for octave in range(_OCTAVES)]
        self._knots: OrderedDict[int, Floats] = OrderedDict()

    def at(self, times: Int64s) -> Floats:
        """Compute the walk at ascending times, in square roots of seconds."""
        blocks = times >> BLOCK_BITS
        values = np.empty(len(times), np.float64)
        edges = np.flatnonzero(np.diff(blocks)) + 1
        start = 0
        for end in (*edges.tolist(), len(times)):
            if end > start:
                knots = self._block(int(blocks[start]))
                within = times[start:end] & (BLOCK_US - 1)
                knot = within >> _KNOT_BITS
                part = (within & ((1 << _KNOT_BITS) - 1)).astype(np.float64) / (1 << _KNOT_BITS)
                values[start:end] = knots[knot] + (knots[knot + 1] - knots[knot]) * part
            start = end
        return values

    def _block(self, block: int) -> Floats:
        knots = self._knots.get(block)
        if knots is None:
            knots = self._walked(block)
            self._knots[block] = knots
            while len(self._knots) > limits.VENUE_BLOCKS_HELD_MAX:
                self._knots.popitem(last=False)
        return knots

    def _walked(self, block: int) -> Floats:
        knots = block * _KNOTS + np.arange(_KNOTS + 1, dtype=np.int64)
        walked = np.zeros(_KNOTS + 1, np.float64)
        for octave, key in enumerate(self._keys):
            cell = knots >> octave
            part = (knots & ((1 << octave) - 1)).astype(np.float64) / (1 << octave)
            left = hash_random.fractions(hash_random.bits(key, cell), 16) * 2.0 - 1.0
            right = hash_random.fractions(hash_random.bits(key, cell + 1), 16) * 2.0 - 1.0
            walked += (left + (right - left) * part) * np.sqrt(_KNOT_S * (1 << octave))
        return walked


def _grown(log_growth: Floats) -> Floats:
    """Approximate e to the power, always positive; a series, as `exp` differs by machine."""
    x = log_growth
    return 1.0 + x * (1.0 + x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0))))


def _patterns() -> Int64s:
    """List ways to cut 16 ids into orders: for each id, where its order starts. int64[64, 16]."""
    length = 1 << _ORDER_BITS
    cells = np.arange(_PATTERNS * length, dtype=np.int64).reshape(_PATTERNS, length)
    begins = (
        hash_random.fractions(hash_random.bits(hash_random.key_of(0, "patterns"), cells), 0) > 0.4
    )
    begins[:, 0] = True
    return np.maximum.accumulate(np.where(begins, cells % length, 0), axis=1)


_ORDER_STARTS = _patterns()
