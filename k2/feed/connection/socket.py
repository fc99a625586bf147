"""A connection to a venue, read in batches of messages.

The `websockets` library does everything but the splitting of the good path: whole, unfragmented
text frames are cut out of what arrives here, in 0.6 µs each instead of the 5 of the library's
parser, which would be the wall of a feed. Every other frame (pings, closes, fragments) is handed to
it, one at a time, so the rules of the protocol stay where they are known.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from k2 import limits
from k2.errors import Reason, Unavailable

_WHOLE_TEXT = 0x81  # final frame, text, no extension bits
_LENGTH_IN_2_BYTES, _LENGTH_IN_8_BYTES = 126, 127
_MESSAGE_PARTS = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})
_HEADERS_END = b"\r\n\r\n"
_CLOSE_S = 1.0  # for the closing handshake


NO_SOCKS = (
    "the proxy that is set is a SOCKS proxy, which K2 does not speak: set https_proxy to an HTTP "
    "proxy, or name the venue's host in no_proxy"
)


def is_loopback(url: str) -> bool:
    """Return whether an address is on this machine, where no proxy may stand in between."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class Closed(Exception):
    """The connection has ended; nothing more will be read."""


class VenueSocket:
    """One open connection. `open_socket` makes one."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def read(self) -> Sequence[bytes]:
        """Return the messages that have come, at least one, in order.

        Raises:
            Closed: the connection ended, and everything before that was read.
        """
        return await self._connection.read()

    async def ping(self) -> None:
        """Ask for a sign of life; returns when it came.

        Raises:
            Closed: the connection ended instead.
        """
        try:
            await (await self._connection.ping())
        except WebSocketException as error:
            raise Closed(str(error)) from error

    async def close(self) -> None:
        """End the connection; the closing handshake has a second."""
        await self._connection.close()


async def open_socket(url: str) -> VenueSocket:
    """Connect.

    Raises:
        Unavailable: VENUE_UNAVAILABLE, saying why.
    """
    try:
        connection = await connect(
            url,
            create_connection=_Connection,
            compression=None,
            max_size=limits.FRAME_BYTES_MAX,
            open_timeout=limits.FEED_CONNECT_S,
            close_timeout=_CLOSE_S,
            ping_interval=None,  # the session decides when to ask
            proxy=None if is_loopback(url) else True,
        )
    except ImportError as error:  # what the library lacks for the proxy that is set
        raise Unavailable(
            Reason.VENUE_UNAVAILABLE,
            f"{url} cannot be connected to: {NO_SOCKS}",
            retry_after_s=limits.FEED_BACKOFF_MAX_S,
        ) from error
    except (OSError, TimeoutError, UnicodeError, WebSocketException) as error:
        raise Unavailable(
            Reason.VENUE_UNAVAILABLE,
            f"{url} cannot be connected to: {error or type(error).__name__}",
            retry_after_s=limits.FEED_BACKOFF_MIN_S,
        ) from error
    assert isinstance(connection, _Connection), "the library makes the class that it was given"
    return VenueSocket(connection)


class _Connection(ClientConnection):
    """The library's connection, with an inbox of whole messages in front of its parser."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 the library's own
        super().__init__(*args, **kwargs)
        self._inbox: list[bytes] = []
        self._arrived: asyncio.Future[None] | None = None
        self._unsplit = b""  # the beginning of a frame, or of the handshake's answer
        self._open = False  # the handshake's answer is complete
        self._fragments: list[bytes] = []
        self._held = False

    async def read(self) -> list[bytes]:
        """Return what `VenueSocket.read` does."""
        while not self._inbox:
            if self.connection_lost_waiter.done():
                raise Closed(str(self.close_exc))
            self._arrived = self.loop.create_future()
            await self._arrived
        messages, self._inbox = self._inbox, []
        if self._held:
            self._held = False
            self.transport.resume_reading()
        return messages

    def data_received(self, data: bytes) -> None:
        """Split what has arrived; called by the event loop."""
        if self._unsplit:
            data = self._unsplit + data
        at = 0 if self._open else self._answered(data)
        if self._open:
            at = self._split(data, at)
        self._unsplit = data[at:]
        if len(self._inbox) > limits.FEED_SOCKET_FRAMES_MAX and not self._held:
            self._held = True
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """Leave an unfinished frame to the library, which judges it."""
        rest, self._unsplit = self._unsplit, b""
        if rest:
            super().data_received(rest)
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the end of the connection to a waiting reader."""
        super().connection_lost(exc)
        self._wake()

    def process_event(self, event: Event) -> None:
        """Put messages together that the library parsed; leave the rest to it."""
        if isinstance(event, Frame) and event.opcode in _MESSAGE_PARTS:
            self._assemble(event)
        else:
            super().process_event(event)

    def _assemble(self, frame: Frame) -> None:
        self._fragments.append(bytes(frame.data))
        if frame.fin:
            self._inbox.append(b"".join(self._fragments))
            self._fragments.clear()

    def _wake(self) -> None:
        arrived, something = self._arrived, self._inbox or self.connection_lost_waiter.done()
        if something and arrived is not None and not arrived.done():
            arrived.set_result(None)

    def _answered(self, data: bytes) -> int:
        """Give the library the handshake's answer; how many bytes were taken."""
        end = data.find(_HEADERS_END) + len(_HEADERS_END)
        if end < len(_HEADERS_END):
            if len(data) <= limits.FRAME_BYTES_MAX:
                return 0
            end = len(data)  # not an answer: the library says so
        super().data_received(data[:end])
        self._open = self.protocol.state is State.OPEN
        return end if self._open else self._hand_over(data, end)

    def _split(self, data: bytes, at: int) -> int:
        """Take every whole frame from `at` on; where the first unfinished one begins."""
        end, inbox = len(data), self._inbox
        while at + 2 <= end:
            if self.protocol.state is not State.OPEN:
                return self._hand_over(data, at)
            length, body = data[at + 1], at + 2
            if length == _LENGTH_IN_2_BYTES:
                body += 2
                length = int.from_bytes(data[at + 2 : body], "big")
            elif length == _LENGTH_IN_8_BYTES:
                body += 8
                length = int.from_bytes(data[at + 2 : body], "big")
            elif length > _LENGTH_IN_8_BYTES:
                return self._hand_over(data, at)  # masked: a server must not
            next_at = body + length
            if body > end or next_at > end:
                too_long = body <= end and length > limits.FRAME_BYTES_MAX
                return self._hand_over(data, at) if too_long else at
            if data[at] == _WHOLE_TEXT and not self._fragments:
                inbox.append(data[body:next_at])
            else:
                super().data_received(data[at:next_at])
            at = next_at
        return at

    def _hand_over(self, data: bytes, at: int) -> int:
        """Give the library all the rest: it ends, or has ended, the connection."""
        super().data_received(data[at:])
        return len(data)
