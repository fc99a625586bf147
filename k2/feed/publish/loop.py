"""The feed's loop: reads connections, publishes trades, gaps and coverage, and ends cleanly.

One thread, one event loop. Connections hand over batches of frames; the publisher takes them as
fast as the producer does. While it is blocked the feed reads nothing, so TCP and the venue's
buffers hold the rest: no frame that was read is dropped. A tick, many times a second, collects
acknowledgements, runs what is due in the sessions, passes missing ids to the gap recorder, and
publishes the coverage of the streams. A new stream sends nothing until its beginning is published.

Instruments share connections in groups. Where the intake of a group is shut, its connections are
closed; when it opens again, the ids that were printed meanwhile are a gap of cause REFUSED.

When asked to end, it stops reading, flushes with acknowledgements, publishes the coverage and waits
for it. Trades that the broker did not acknowledge in time lie above the coverage, so the next run
reports them as a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from k2 import limits, tracing
from k2.clock import Clock
from k2.feed.connection.session import Session
from k2.feed.connection.subscription import Open, Subscription
from k2.feed.publish.coverage_topic import CoverageTopic
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.feed.publish.malformed_frames import DeadLetterPublisher
from k2.feed.publish.publisher import TradePublisher
from k2.market import schema
from k2.market.events import Trade
from k2.market.instrument import Instrument
from k2.market.ledger import Cause
from k2.tape.ports import RecordSender

_SENDING = {
    tracing.MESSAGING_SYSTEM: "kafka",
    tracing.MESSAGING_OPERATION: "send",
    tracing.MESSAGING_OPERATION_TYPE: "send",
}

_UNIT = 10**limits.PRICE_SCALE
_log = logging.getLogger(__name__)


class Gaps(Protocol):
    """`k2.feed.gaps.backfill_thread.Backfill`, which stands above this module."""

    @property
    def failure(self) -> BaseException | None:
        """The error that ended it, if any."""

    def exchange(self, streams: Iterable[InstrumentStream], now_s: float) -> None:
        """Take missing ids from streams, and mark those recorded; returns at once."""

    def counters(self) -> dict[str, Any]:
        """Return its counters; from any thread."""


@dataclass
class _Group:
    """Instruments that share connections, and are read or not together.

    Attributes:
        subscriptions: of their addresses.
        streams: of them.
        wanted: whether they are to be read now.
        open: whether they are read.
        reconnects: of the subscriptions, as far as the streams know.
    """

    subscriptions: tuple[Subscription, ...]
    streams: frozenset[InstrumentStream]
    wanted: Callable[[], bool]
    open: bool = False
    reconnects: int = 0

    @property
    def connected(self) -> bool:
        return all(each.connected for each in self.subscriptions)


class FeedLoop:
    """Runs a feed. `run` once; its counters may be read from any thread.

    Args:
        publisher: takes frames.
        tape: the publisher's producer.
        letters: the publisher's letters, started.
        gaps: records missing ids, started.
        coverage: where the coverage of streams is published.
        clock: wall time for frames, monotonic time for everything else.

    Attributes:
        subscriptions: one for each address, of all calls of `subscribe`.
        frames_waiting: read from connections and not yet taken.
        streams: the publisher's.
        gaps: as given.
    """

    def __init__(
        self,
        *,
        publisher: TradePublisher,
        tape: RecordSender,
        letters: DeadLetterPublisher,
        gaps: Gaps,
        coverage: CoverageTopic,
        clock: Clock,
    ) -> None:
        self.subscriptions: tuple[Subscription, ...] = ()
        self.frames_waiting = 0
        self._publisher = publisher
        self._tape = tape
        self._letters = letters
        self.streams = publisher.streams
        self.gaps = gaps
        self._groups: list[_Group] = []
        self._coverage = coverage
        self._clock = clock
        self._publish_s = 0.0
        self._sample_s = 0.0
        self._sampled: Trade | None = None
        self._begin_s = 0.0
        self._room = asyncio.Event()
        for stream in self.streams:
            stream.begun = stream.resumed_after is not None

    def subscribe(
        self,
        addresses: Sequence[str],
        session: Callable[[], Session],
        open_socket: Open,
        *,
        instruments: Collection[Instrument] | None = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Connect to addresses of the venue in `run`, each with a session of its own.

        Args:
            addresses: that subscribe to the instruments.
            session: makes a session.
            open_socket: connects to an address.
            instruments: all when None.
            wanted: whether they are to be read now; asked at each tick, so it must be quick.
        """
        subscriptions = tuple(
            Subscription(
                address=address,
                session=session(),
                clock=self._clock,
                open_socket=open_socket,
                take=self._take_traced,
            )
            for address in addresses
        )
        streams = frozenset(
            stream
            for stream in self.streams
            if instruments is None or stream.instrument in instruments
        )
        self._groups.append(_Group(subscriptions, streams, wanted))
        self.subscriptions += subscriptions

    @property
    def connected(self) -> bool:
        """Whether every subscription that is to be read has an open connection, and one is."""
        wanted = [group for group in self._groups if group.wanted()]
        return bool(wanted) and all(group.connected for group in wanted)

    def _refuses_all(self) -> bool:
        """Return whether nothing is to be read: refusing is then what the feed does."""
        return not any(group.wanted() for group in self._groups)

    def hears(self, stream: InstrumentStream) -> bool:
        """Return whether the trades of a stream come and are taken."""
        groups = [group for group in self._groups if stream in group.streams]
        reads = all(group.open and group.connected for group in groups)
        return reads and not self._publisher.blocked

    async def run(self, stopping: threading.Event, on_connected: Callable[[], None]) -> None:
        """Feed until asked to stop, then end cleanly.

        Args:
            stopping: set to ask.
            on_connected: called once, when all that is to be read is subscribed to.

        Raises:
            K2Error: the tape will take nothing more.
        """
        announced = False
        try:
            while not stopping.is_set():
                self._tick()
                if not announced and (self.connected or self._refuses_all()):
                    announced = True
                    on_connected()
                await _pause(limits.FEED_TICK_S)
        finally:
            for subscription in self.subscriptions:
                await subscription.stop()
        self._drain()

    async def _take_traced(self, frames: Sequence[bytes]) -> bool:
        with tracing.begin(tracing.FRAME, {tracing.FRAMES: len(frames)}):
            return await self._take(frames)

    async def _take(self, frames: Sequence[bytes]) -> bool:
        """Publish a batch, however long that takes; return whether a shutdown was announced."""
        receive_time_us, taken = self._clock.now_us(), 0
        self.frames_waiting += len(frames)
        try:
            while taken < len(frames):
                before = taken
                with tracing.begin(tracing.PUBLISH, _SENDING, kind=tracing.Kind.PRODUCER) as span:
                    taken = self._publisher.take(frames, before, receive_time_us)
                    span.set({tracing.MESSAGING_COUNT: taken - before})
                self.frames_waiting -= taken - before
                if self._publisher.blocked:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self.frames_waiting -= len(frames) - taken
        announced, self._publisher.shutdown_announced = self._publisher.shutdown_announced, False
        return announced

    def _tick(self) -> None:
        self._tape.poll()
        self._check()
        self._begin()
        if self._publisher.unblock():
            self._room.set()
        self._obey_intake()
        for subscription in self.subscriptions:
            subscription.tick(blocked=self._publisher.blocked)
        now_s = self._clock.monotonic_s()
        self._tell_gaps(now_s)
        if now_s >= self._sample_s:
            self._sample_s = now_s + limits.FEED_SAMPLE_S
            self._log_newest()
        if now_s >= self._publish_s:
            self._publish_s = now_s + limits.FEED_COVERAGE_INTERVAL_S
            self._coverage.publish(self.streams, self._clock.now_us())

    def _log_newest(self) -> None:
        """Log one trade of those that came since the last time, for people who watch."""
        trade = self._publisher.newest
        if trade is not None and trade is not self._sampled:
            self._sampled = trade
            price, quantity = (
                f"{mantissa // _UNIT}.{mantissa % _UNIT:08d}"
                for mantissa in (trade.price, trade.quantity)
            )
            side = schema.SIDES[trade.side].lower()
            _log.info(
                "Trade %s %s x %s %s id %d",
                *(trade.label.symbol, price, quantity, side, trade.trade_id),
            )

    def _begin(self) -> None:
        """Publish where new streams begin; while the tape is away, not at each tick."""
        new = [stream for stream in self.streams if stream.beginning is not None]
        now_s = self._clock.monotonic_s()
        if not new or now_s < self._begin_s:
            return
        if not self._coverage.begin(new, self._clock.now_us(), limits.FEED_BEGIN_WAIT_S):
            self._begin_s = self._clock.monotonic_s() + limits.FEED_BACKOFF_MIN_S

    def _obey_intake(self) -> None:
        """Open and shut the connections of groups whose intake has changed."""
        for group in self._groups:
            wanted = group.wanted()
            if wanted == group.open:
                continue
            group.open = wanted
            _log.info(
                "intake %s", "opens" if wanted else "is shut", extra={"symbols": len(group.streams)}
            )
            for subscription in group.subscriptions:
                subscription.resume() if wanted else subscription.pause()
            if not wanted:
                for stream in group.streams:
                    stream.interrupted(Cause.REFUSED)

    def _tell_gaps(self, now_s: float) -> None:
        for group in self._groups:
            reconnects = sum(each.session.reconnects for each in group.subscriptions)
            if reconnects != group.reconnects:
                group.reconnects = reconnects
                for stream in group.streams:
                    stream.interrupted()
        self.gaps.exchange(self.streams, now_s)

    def _check(self) -> None:
        """Go on only while everything that was taken can still be acknowledged."""
        failures: list[BaseException | None] = [
            self._tape.failure,
            self._letters.failure,
            self.gaps.failure,
        ]
        failures += [stream.failure for stream in self.streams]
        failures += [subscription.failure for subscription in self.subscriptions]
        for failure in failures:
            if failure is not None:
                raise failure

    def _drain(self) -> None:
        deadline_s = self._clock.monotonic_s() + limits.DRAIN_S
        self._begin()
        while not self._publisher.unblock() and self._left(deadline_s) > 0:
            self._tape.poll(limits.FEED_TICK_S)
            self._begin()
        missing = self._tape.flush(self._left(deadline_s))
        letters = self._letters.close(self._left(deadline_s))
        self._coverage.publish(
            self.streams, self._clock.now_us(), max(self._left(deadline_s), limits.FEED_TICK_S)
        )
        if missing or letters:
            _log.warning(
                "stopped before all was acknowledged",
                extra={"trades": missing + self._publisher.refused, "letters": letters},
            )

    def _left(self, deadline_s: float) -> float:
        return max(0.0, deadline_s - self._clock.monotonic_s())


async def _pause(seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), seconds)
