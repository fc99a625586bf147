"""The open connections, what each listens to, and the only path of frames to a socket.

Frames are written to the transport as they are, many at once: no await, no frame object, no copy
beyond the socket's. The library (websockets) does the rest: handshake, pings, closing. Its own
frames are written whole, too, so both may share a transport; this module writes nothing after a
close frame. A connection that does not take its frames has them kept in order up to a bound, then
it is cut.
"""

from __future__ import annotations

import fcntl
import logging
import struct
import termios
from collections.abc import Iterator

import numpy as np
from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

from k2 import limits
from k2.metrics import counter
from servers.venue.faults import KINDS, FaultLine, Faults
from servers.venue.market.hash_random import Int64s
from servers.venue.stream_list import StreamList

_log = logging.getLogger(__name__)
_CUTS = counter("k2_venue_cuts_total", "Connections cut without a close frame.")


class Listener:
    """One connection.

    Attributes:
        number: of the connection; never used twice in a run.
        connection: the library's side of it.
        subscription: what it listens to.
        line: the faults on its way.
        written: bytes handed to the transport.
        sent: frames of the market handed to the transport.
    """

    def __init__(
        self, number: int, connection: ServerConnection, subscription: StreamList, line: FaultLine
    ) -> None:
        self.number = number
        self.connection = connection
        self.subscription = subscription
        self.line = line
        self.written = 0
        self.sent = 0
        self.cut = False

    @property
    def open(self) -> bool:
        """Whether frames can be written."""
        return not self.cut and self.connection.state is State.OPEN

    @property
    def buffered(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self.connection.transport.get_write_buffer_size()

    @property
    def acknowledged(self) -> int:
        """Bytes that the kernel of the other side has; they survive the end of this process."""
        sock = self.connection.transport.get_extra_info("socket")
        try:
            answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        except (OSError, ValueError):  # closed
            return 0
        return self.written - self.buffered - int(struct.unpack("i", answer)[0])

    def send(self, data: memoryview, ends: Int64s, now_us: int) -> None:
        """Send frames of the market, through the faults where there are any.

        Args:
            data: the frames, one behind the other.
            ends: where each ends in `data`.
            now_us: wall time.
        """
        if not self.line.busy:
            self.sent += len(ends)
            self.write(data)
            return
        frames, cut = self.line.passed(_split(data, ends), now_us)
        self.sent += len(frames)
        self.write(b"".join(frames))
        if cut:
            self.abort("a fault was asked for")

    def write(self, data: bytes | memoryview) -> None:
        """Hand bytes of whole frames to the socket; a full buffer cuts the connection."""
        if not len(data) or not self.open:
            return
        self.connection.transport.write(data)
        self.written += len(data)
        if self.buffered > limits.VENUE_BUFFER_BYTES_MAX:
            self.abort("it does not take its frames")

    def abort(self, why: str) -> None:
        """Cut the connection without a close frame."""
        self.cut = True
        _CUTS.inc()
        _log.warning("connection cut", extra={"connection": self.number, "why": why})
        self.connection.transport.abort()


class Hub:
    """All connections and their totals. Of one event loop; `counters` may be read from others."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._listeners: dict[int, Listener] = {}
        self._opened = 0
        self._gone_sent = 0
        self._gone_faults = dict.fromkeys(KINDS, 0)

    def __iter__(self) -> Iterator[Listener]:
        """Iterate over the connections that can be written to."""
        return iter([listener for listener in self._listeners.values() if listener.open])

    def __len__(self) -> int:
        return len(self._listeners)

    def add(self, connection: ServerConnection, subscription: StreamList) -> Listener:
        """Add a connection that was opened."""
        self._opened += 1
        line = FaultLine(self.faults, self._opened)
        listener = Listener(self._opened, connection, subscription, line)
        self._listeners[listener.number] = listener
        return listener

    def remove(self, listener: Listener) -> None:
        """Remove a connection that is gone."""
        del self._listeners[listener.number]
        self._gone_sent += listener.sent
        for kind, count in listener.line.counts.items():
            self._gone_faults[kind] += count

    def audience(self) -> list[Listener]:
        """Return the connections that listen to any stream."""
        return [listener for listener in self if listener.subscription.streams]

    def change_faults(self, faults: Faults) -> None:
        """Apply other faults to all connections from now on."""
        self.faults = faults
        for listener in self._listeners.values():
            listener.line.change(faults)

    def counters(self) -> dict[str, int]:
        """Count connections, open and in all, and frames sent."""
        listeners = list(self._listeners.values())
        return {
            "connections": len(listeners),
            "connections_total": self._opened,
            "sent": self._gone_sent + sum(listener.sent for listener in listeners),
        }

    def fault_counts(self) -> dict[str, int]:
        """Count how often each fault happened."""
        counts = dict(self._gone_faults)
        for listener in list(self._listeners.values()):
            for kind, count in listener.line.counts.items():
                counts[kind] += count
        return counts


def _split(data: memoryview, ends: Int64s) -> list[bytes]:
    starts = np.concatenate(([0], ends[:-1])) if len(ends) else ends
    return [
        bytes(data[start:end]) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
