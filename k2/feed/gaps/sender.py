"""Sends trades of the past to the tape, and returns the ids that the broker acknowledged.

They go through the same producer, to the same partition and under the same key as live trades, but
not through a stream: they affect neither its id check nor its coverage. Live trades never wait for
them: while the producer's queue is long, the sender sends nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from k2 import limits
from k2.clock import Clock
from k2.errors import K2Error, Overloaded
from k2.market.events import Trade
from k2.market.instrument import Instrument
from k2.tape.ports import RecordSender
from k2.tape.producer import OnAck

HEADERS: Mapping[str, bytes] = {"source": b"backfill"}


class Place(NamedTuple):
    """Key and partition of an instrument's trades."""

    key: bytes
    partition: int


class Acknowledgements:
    """Collects acknowledged ids; called from the thread that polls the producer."""

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.failure: K2Error | None = None
        self._in_flight = 0
        self._changed = threading.Condition()

    @property
    def done(self) -> bool:
        """Whether the tape has answered for everything that was sent."""
        with self._changed:
            return self._in_flight == 0

    def expect(self, trade_id: int) -> OnAck:
        """Return the callback for the acknowledgement of a trade that is being sent."""

        def on_ack(offset: int | None, error: K2Error | None) -> None:
            with self._changed:
                self._in_flight -= 1
                if error is None:
                    self.ids.add(trade_id)
                else:
                    self.failure = error

        with self._changed:
            self._in_flight += 1
        return on_ack

    def withdraw(self) -> None:
        """Stop expecting an answer for a trade that the tape did not take."""
        with self._changed:
            self._in_flight -= 1


class Sender:
    """Sends past trades. One thread sends; the producer is polled elsewhere, or by `pause`.

    Args:
        tape: where trades go.
        places: of every instrument that may be sent.
        encode: a trade as the bytes of a message.
        clock: monotonic time bounds the waiting.
        pause: waits for so many seconds at most; true: give up waiting, the process ends.

    Attributes:
        sent: trades acknowledged so far.
    """

    def __init__(
        self,
        *,
        tape: RecordSender,
        places: Mapping[Instrument, Place],
        encode: Callable[[Trade], bytes],
        clock: Clock,
        pause: Callable[[float], bool],
    ) -> None:
        self.sent = 0
        self._tape = tape
        self._places = places
        self._encode = encode
        self._clock = clock
        self._pause = pause

    @property
    def instruments(self) -> frozenset[Instrument]:
        """The instruments whose trades may be sent."""
        return frozenset(self._places)

    @property
    def held_up(self) -> bool:
        """Whether live trades need the producer's queue."""
        return self._tape.depth() > limits.BACKFILL_QUEUE_RECORDS_MAX

    def send(self, trades: Iterable[Trade]) -> frozenset[int]:
        """Send trades of one instrument and wait until they are acknowledged.

        Returns:
            The ids that are acknowledged; of the others it is not known whether they will be.

        Raises:
            K2Error: the tape will never take anything again.
        """
        acknowledgements = Acknowledgements()
        deadline_s = self._clock.monotonic_s() + limits.BACKFILL_ACK_S
        for trade in trades:
            if not self._send(trade, acknowledgements, deadline_s):
                break
        while not acknowledgements.done and not self._over(deadline_s):
            pass
        if acknowledgements.failure is not None:
            raise acknowledgements.failure
        self.sent += len(acknowledgements.ids)
        return frozenset(acknowledgements.ids)

    def _send(self, trade: Trade, acknowledgements: Acknowledgements, deadline_s: float) -> bool:
        place = self._places[trade.label.instrument]
        value = self._encode(trade)
        while True:
            if not self.held_up:
                on_ack = acknowledgements.expect(trade.trade_id)
                try:
                    self._tape.send(place.key, value, place.partition, HEADERS, on_ack)
                except Overloaded:
                    acknowledgements.withdraw()
                else:
                    return True
            if self._over(deadline_s):
                return False

    def _over(self, deadline_s: float) -> bool:
        """Wait a moment; return whether to stop waiting."""
        return self._pause(limits.FEED_TICK_S) or self._clock.monotonic_s() > deadline_s
