"""The feed's loop: reads connections, publishes trades, gaps and coverage, and ends cleanly.

One thread, one event loop. Connections hand over batches of frames; the publisher takes them as
fast as the producer does. While it is blocked the feed reads nothing, so TCP and the venue's
buffers hold the rest: no frame that was read is dropped. A tick, many times a second, collects
acknowledgements, runs what is due in the sessions, passes missing ids to the gap recorder, and
publishes the coverage of the streams. A new stream sends nothing until its beginning is published.

When asked to end, it stops reading, flushes with acknowledgements, publishes the coverage and waits
for it. Trades that the broker did not acknowledge in time lie above the coverage, so the next run
reports them as a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from k2 import limits, tracing
from k2.clock import Clock
from k2.feed.connection.session import Session
from k2.feed.connection.subscription import Open, Subscription
from k2.feed.publish.coverage_topic import CoverageTopic
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.feed.publish.malformed_frames import DeadLetterPublisher
from k2.feed.publish.publisher import TradePublisher
from k2.tape.ports import RecordSender

_SENDING = {
    tracing.MESSAGING_SYSTEM: "kafka",
    tracing.MESSAGING_OPERATION: "send",
    tracing.MESSAGING_OPERATION_TYPE: "send",
}

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
        subscriptions: one for each address.
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
        self._reconnects = 0
        self._coverage = coverage
        self._clock = clock
        self._publish_s = 0.0
        self._begin_s = 0.0
        self._room = asyncio.Event()
        for stream in self.streams:
            stream.begun = stream.resumed_after is not None

    def subscribe(
        self, addresses: Sequence[str], session: Callable[[], Session], open_socket: Open
    ) -> None:
        """Connect to addresses of the venue in `run`, each with a session of its own."""
        self.subscriptions = tuple(
            Subscription(
                address=address,
                session=session(),
                clock=self._clock,
                open_socket=open_socket,
                take=self._take_traced,
            )
            for address in addresses
        )

    @property
    def connected(self) -> bool:
        """Whether every subscription has an open connection."""
        return all(each.connected for each in self.subscriptions)

    async def run(self, stopping: threading.Event, on_connected: Callable[[], None]) -> None:
        """Feed until asked to stop, then end cleanly.

        Args:
            stopping: set to ask.
            on_connected: called once, when everything is subscribed for the first time.

        Raises:
            K2Error: the tape will take nothing more.
        """
        announced = False
        for subscription in self.subscriptions:
            subscription.start()
        try:
            while not stopping.is_set():
                self._tick()
                if self.connected and not announced:
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
        for subscription in self.subscriptions:
            subscription.tick(blocked=self._publisher.blocked)
        now_s = self._clock.monotonic_s()
        self._tell_gaps(now_s)
        if now_s >= self._publish_s:
            self._publish_s = now_s + limits.FEED_COVERAGE_INTERVAL_S
            self._coverage.publish(self.streams, self._clock.now_us())

    def _begin(self) -> None:
        """Publish where new streams begin; while the tape is away, not at each tick."""
        new = [stream for stream in self.streams if stream.beginning is not None]
        now_s = self._clock.monotonic_s()
        if not new or now_s < self._begin_s:
            return
        if not self._coverage.begin(new, self._clock.now_us(), limits.FEED_BEGIN_WAIT_S):
            self._begin_s = self._clock.monotonic_s() + limits.FEED_BACKOFF_MIN_S

    def _tell_gaps(self, now_s: float) -> None:
        reconnects = sum(each.session.reconnects for each in self.subscriptions)
        if reconnects != self._reconnects:
            self._reconnects = reconnects
            for stream in self.streams:
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
