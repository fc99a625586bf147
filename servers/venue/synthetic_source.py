"""Sends the trades of a synthetic market when they are due.

Trades are made ahead of their time, a batch for each set of symbols and form that a connection
listens to, and cut where the time stands when they are due: a tick costs two searches and a write.
A connection that changes what it listens to changes between two ticks, so what it gets has no hole.

The rate changes by a new segment of the market. What was printed so far keeps its ids and times,
on either side: the segment is kept on disk first, then the source that sends and the archive that
answers go on with it together, while neither works.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from k2 import limits
from k2.clock import Clock
from k2.errors import Invalid, Reason, some_of
from servers.venue.archive import SyntheticArchive
from servers.venue.frames import Batch, Form, render
from servers.venue.hub import Hub, Listener
from servers.venue.market.hash_random import Int64s
from servers.venue.market.synthetic_market import Market, continued
from servers.venue.market.synthetic_market import trades_per_s as rate_of
from servers.venue.state_files import write_segments

_BATCH_TRADES = 4000  # aimed at: large enough for numpy, small enough not to hold the loop
_AHEAD_MIN_US = 20_000
_AHEAD_MAX_US = 1_000_000
_TICK_MIN_S = 0.004  # frames of so long are sent together
_TICK_MAX_S = 0.05
_STEP_US = 250_000  # of market time in one tick, when ticks come late

_log = logging.getLogger(__name__)


class _Key(NamedTuple):
    symbols: tuple[str, ...]
    form: Form


class SyntheticSource:
    """Sends what the market prints from now on.

    Args:
        market: used by this source alone.
        hub: who listens.
        clock: wall time is the market's time.

    Attributes:
        market: as given, or the one of the last `play`.
    """

    def __init__(self, *, market: Market, hub: Hub, clock: Clock) -> None:
        self.market = market
        self._known = frozenset(market.symbols)
        self._hub = hub
        self._clock = clock
        self._streams: dict[_Key, _Stream] = {}
        self._until_us = clock.now_us()

    @property
    def until_us(self) -> int:
        """All trades printed up to here have been sent to who listened."""
        return self._until_us

    def tick(self) -> float:
        """Send what is due; return the seconds until the next tick is due."""
        now = self._clock.now_us()
        if now - self._until_us > limits.VENUE_STALL_S * 1e6:
            self._until_us, self._streams = now, {}
        until = max(self._until_us, min(now, self._until_us + _STEP_US))
        groups = self._groups()
        due = math.inf
        self._streams = {
            key: self._streams.get(key) or _Stream(self.market, key, self._until_us)
            for key in groups
        }
        for key, stream in self._streams.items():
            for data, ends in stream.take(until):
                for listener in groups[key]:
                    listener.send(data, ends, now)
            due = min(due, stream.due_us)
        self._until_us = until
        _release(groups.values(), now)
        if until < now:
            return 0.0
        return min(max((due - now) / 1e6, _TICK_MIN_S), _TICK_MAX_S)

    def play(self, market: Market) -> None:
        """Send what another market prints from now on; it has printed the same up to `until_us`."""
        self.market, self._known, self._streams = market, frozenset(market.symbols), {}

    def finish(self) -> None:
        """Keep nothing: the market is a function of time."""

    def _groups(self) -> dict[_Key, list[Listener]]:
        """Group connections that get the same frames."""
        groups: dict[_Key, list[Listener]] = {}
        for listener in self._hub:
            subscription = listener.subscription
            symbols = tuple(sorted(subscription.symbols & self._known))
            if symbols:
                groups.setdefault(_Key(symbols, subscription.form), []).append(listener)
        return groups


class MarketRate:
    """The rate of one market. Of the venue's event loop; the attributes of any thread.

    Args:
        symbols: that share the rate.
        trades_per_s: at the start.
        kept: the file of the segments.
        source, archive: of the venue, of one market.
        clock: the venue's time.

    Attributes:
        trades_per_s: over the symbols.
        shown: a market for one more reader, in one other thread.
    """

    def __init__(
        self,
        *,
        symbols: tuple[str, ...],
        trades_per_s: float,
        kept: Path,
        source: SyntheticSource,
        archive: SyntheticArchive,
        clock: Clock,
    ) -> None:
        self.trades_per_s = trades_per_s
        self.shown = Market(source.market.seed, source.market.segments)
        self._symbols = symbols
        self._kept = kept
        self._source = source
        self._archive = archive
        self._clock = clock

    def change(self, trades_per_s: float, symbols: Sequence[str] = ()) -> None:
        """Trade at another rate from now on, until it is changed or the venue ends.

        Args:
            trades_per_s: of the symbols together.
            symbols: that share it, others go on as before; none: all of the market.

        Raises:
            Invalid: BAD_REQUEST when no market trades so.
            Overloaded, Invalid: the new segment cannot be kept; the rate is what it was.
        """
        if not 0 < trades_per_s <= limits.VENUE_RATE_MAX:
            raise Invalid(
                Reason.BAD_REQUEST,
                f"trades_per_s is above 0 and at most {limits.VENUE_RATE_MAX:,.0f},"
                f" not {trades_per_s:g}",
            )
        if unknown := [symbol for symbol in symbols if symbol not in self._symbols]:
            raise Invalid(Reason.BAD_REQUEST, f"the market does not trade {some_of(unknown)}")
        with self._archive.paused():
            market = self._source.market
            now_us = max(self._clock.now_us(), self._source.until_us)
            named = symbols or self._symbols
            segments = continued(market, named, trades_per_s, now_us, alone=bool(symbols))
            if segments != market.segments:
                write_segments(self._kept, market.seed, segments)
                self._source.play(Market(market.seed, segments))
                self._archive.play(Market(market.seed, segments))
                self.shown = Market(market.seed, segments)
        before = self.trades_per_s
        self.trades_per_s = (
            round(rate_of(segments[-1], self._symbols), 1) if symbols else trades_per_s
        )
        _log.info("the rate was %g and is %g trades a second", before, self.trades_per_s)


def _release(groups: Iterable[list[Listener]], now_us: int) -> None:
    """Send what faults have held back and whose time has come."""
    nothing = np.zeros(0, np.int64)
    for listeners in groups:
        for listener in listeners:
            if listener.line.busy:
                listener.send(memoryview(b""), nothing, now_us)


class _Stream:
    """The frames of one set of symbols in one form, made a batch ahead."""

    def __init__(self, market: Market, key: _Key, from_us: int) -> None:
        self._market = market
        self._key = key
        self._made_us = from_us
        self._ahead_us = _AHEAD_MIN_US
        none = np.zeros(0, np.int64)
        self._batch = Batch(b"", none, none)
        self._next = 0

    @property
    def due_us(self) -> int:
        """Return when there is something to do again: send a frame, or make more."""
        times = self._batch.time_us
        return int(times[self._next]) if self._next < len(times) else self._made_us

    def take(self, until_us: int) -> Iterator[tuple[memoryview, Int64s]]:
        """Take the frames printed up to `until_us` and not taken yet, and where each ends."""
        while True:
            end = int(np.searchsorted(self._batch.time_us, until_us, side="right"))
            if end > self._next:
                ends = self._batch.ends
                start_byte = int(ends[self._next - 1]) if self._next else 0
                data = memoryview(self._batch.data)[start_byte : int(ends[end - 1])]
                yield data, ends[self._next : end] - start_byte
                self._next = end
            if self._made_us >= until_us:
                return
            self._make()

    def _make(self) -> None:
        until = self._made_us + self._ahead_us
        parts = [self._market.between(symbol, self._made_us, until) for symbol in self._key.symbols]
        self._batch = render(parts, self._key.form)
        self._next = 0
        self._made_us = until
        wanted = self._ahead_us * _BATCH_TRADES // max(1, len(self._batch.ends))
        self._ahead_us = min(max(min(wanted, self._ahead_us * 2), _AHEAD_MIN_US), _AHEAD_MAX_US)
