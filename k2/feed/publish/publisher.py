"""Publishes frames: decodes, checks the sequence, encodes and sends; or makes a dead letter.

The hot path of a feed, without IO of its own: the producer takes records at once and acknowledges
them later. When it takes no more, or a stream has not begun, the publisher is *blocked*:
it keeps the trades of the one frame that were not sent, takes no frame, and nothing is dropped.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from k2 import tracing
from k2.errors import Overloaded
from k2.feed.publish.instrument_stream import InstrumentStream, PendingTrade
from k2.feed.publish.malformed_frames import DeadLetterPublisher
from k2.feed.venues.source import Malformed, ShutdownAnnounced, Skipped, Source, Void
from k2.market.events import Trade
from k2.market.sequence import Finding
from k2.tape.ports import RecordSender

_POLL_FRAMES = 256  # taken between two looks at what was acknowledged


class TradePublisher:
    """Publishes trades. Not thread-safe; its counters may be read from any thread.

    Args:
        source: what a frame means.
        tape: where trades go.
        streams: one for each instrument of the source.
        encode: a trade as the bytes of a message.
        letters: where malformed frames go.
        headers: of every message; those of a batch that is traced say so too.

    Attributes:
        streams: as given.
        frames: taken so far, of any kind.
        skipped: frames that are not for K2, by kind.
        malformed: frames that went to the letters.
        void: ids printed without a trade.
        newest: the trade taken last; None before any.
        shutdown_announced: set by a frame that says the venue closes its connection soon; its
            reader clears it.
    """

    def __init__(
        self,
        *,
        source: Source,
        tape: RecordSender,
        streams: Sequence[InstrumentStream],
        encode: Callable[[Trade], bytes],
        letters: DeadLetterPublisher,
        headers: Mapping[str, bytes],
    ) -> None:
        self.frames = 0
        self.skipped: Counter[str] = Counter()
        self.malformed = 0
        self.void = 0
        self.newest: Trade | None = None
        self.shutdown_announced = False
        self._source = source
        self._tape = tape
        self.streams = tuple(streams)
        self._streams = {stream.instrument.symbol: stream for stream in streams}
        self._plain = self._headers = headers
        self._encode = encode
        self._letters = letters
        self._refused: deque[tuple[InstrumentStream, PendingTrade, bytes]] = deque()

    @property
    def blocked(self) -> bool:
        """Whether no frame is taken now; `unblock` tries to end that."""
        return bool(self._refused) or self._letters.full

    @property
    def refused(self) -> int:
        """Trades that were not sent yet."""
        return len(self._refused)

    def take(self, frames: Sequence[bytes], start: int, receive_time_us: int) -> int:
        """Take frames from an index on, until the end or until blocked.

        Args:
            frames: as they came from one connection.
            start: index of the first to take.
            receive_time_us: when they came, wall microseconds.

        Returns:
            The index of the first frame not taken; their number when all were.

        Raises:
            K2Error: the tape will never take anything again.
        """
        if self.blocked:
            return start
        self._headers = tracing.stamped(self._plain)
        decode, polled = self._source.decode, start
        position = start
        for position, frame in enumerate(frames[start:], start + 1):
            decoded = decode(frame, receive_time_us)
            if isinstance(decoded, tuple):
                for trade in decoded:
                    self._send(trade)
                if self._refused:
                    break
            elif self._other(decoded, frame, receive_time_us):
                break
            if position - polled >= _POLL_FRAMES:
                polled = position
                self._tape.poll()
        self.frames += position - start
        return position

    def unblock(self) -> bool:
        """Send what was refused; return whether frames are taken again."""
        while self._refused:
            stream, pending, value = self._refused[0]
            if not stream.begun:
                break
            try:
                self._launch(stream, pending, value)
            except Overloaded:
                break
            self._refused.popleft()
        return not self.blocked

    def _send(self, trade: Trade) -> None:
        """Put a trade on the tape, unless this run has certainly seen it."""
        stream = self._streams[trade.label.symbol]
        finding = stream.observe(trade)
        if finding is Finding.DUPLICATE:
            return
        self.newest = trade
        if finding is not Finding.NEXT:
            stream.note(trade.trade_id, finding, trade.receive_time_us)
        pending = stream.prepare(trade.trade_id, finding)
        value = self._encode(trade)
        if self._refused or not stream.begun:  # behind an earlier trade of the same frame
            self._refused.append((stream, pending, value))
            return
        try:
            self._launch(stream, pending, value)
        except Overloaded:
            self._refused.append((stream, pending, value))

    def _launch(self, stream: InstrumentStream, pending: PendingTrade, value: bytes) -> None:
        self._tape.send(stream.key, value, stream.partition, self._headers, pending)
        stream.sent(pending)

    def _other(
        self, decoded: Skipped | Void | Malformed | ShutdownAnnounced, frame: bytes, at_us: int
    ) -> bool:
        """Count what is not a trade; whether that blocks the publisher."""
        if isinstance(decoded, Skipped):
            self.skipped[decoded.kind] += 1
        elif isinstance(decoded, Void):
            self.void += self._streams[decoded.instrument.symbol].voided(decoded.trade_id, at_us)
        elif isinstance(decoded, ShutdownAnnounced):
            self.shutdown_announced = True
        else:
            self.malformed += 1
            self._letters.put(self.malformed, decoded, frame, at_us)
            return self._letters.full
        return False
