"""A venue that does what a test tells it: a real WebSocket server on loopback, in a thread.

with FakeVenue() as venue:
    ... connect to venue.url ...
    venue.send(frame)              # to every open connection
    venue.connections[0].cut()     # no closing handshake
"""

import asyncio
import contextlib
import json
import struct
import threading
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from tests.support.eventually import eventually

TIME_MS = 1_760_000_000_000


def frame(trade_id, symbol="BTCUSDT", **changes):
    """A trade as Binance prints it, in its envelope."""
    event = {
        "e": "trade", "E": TIME_MS, "s": symbol, "t": trade_id, "p": "100.50000000",
        "q": "0.25000000", "T": TIME_MS, "m": False, "M": True,
    }  # fmt: skip
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": event | changes})


def as_text_frame(message):
    """A message as the bytes a server sends."""
    body = message if isinstance(message, bytes) else message.encode()
    length = len(body)
    head = bytes([0x81, length]) if length < 126 else struct.pack(">BBH", 0x81, 126, length)
    return head + body


class VenueConnection:
    """One connection that a client opened; may be used from any thread."""

    def __init__(self, loop, socket):
        self._loop = loop
        self._socket = socket
        self.path = socket.request.path
        self.open = True
        self.pongs = 0

    @property
    def streams(self):
        """What the address subscribes to."""
        return parse_qs(urlsplit(self.path).query)["streams"][0].split("/")

    def send(self, *messages):
        """Send whole messages, each a text frame."""
        self._call(self._send, messages)

    def send_raw(self, data):
        """Put bytes on the wire as they are, whatever they mean."""
        self._call(self._write, data)

    def send_fragments(self, *parts):
        """Send one message in several frames."""
        frames = [
            Frame(Opcode.TEXT if not at else Opcode.CONT, part.encode(), at == len(parts) - 1)
            for at, part in enumerate(parts)
        ]
        self.send_raw(b"".join(each.serialize(mask=False) for each in frames))

    def ping(self):
        """Ping, and wait for the pong."""
        self._call(self._ping)

    def close(self):
        """Close as the protocol says."""
        self._call(self._close)

    def cut(self):
        """End without a word."""
        self._call(self._abort)

    def go_silent(self):
        """Answer nothing any more, not even pings, and stay connected."""
        self._call(self._deafen)

    def _call(self, action, *arguments):
        asyncio.run_coroutine_threadsafe(action(*arguments), self._loop).result(10)

    async def _send(self, messages):
        with contextlib.suppress(ConnectionClosed):  # the client left first
            for message in messages:
                await self._socket.send(message, text=True)

    async def _write(self, data):
        self._socket.transport.write(data)

    async def _ping(self):
        await asyncio.wait_for(await self._socket.ping(), 5)
        self.pongs += 1

    async def _close(self):
        await self._socket.close()

    async def _abort(self):
        self._socket.transport.abort()

    async def _deafen(self):
        self._socket.transport.pause_reading()


class FakeVenue:
    """See the module.

    Attributes:
        connections: every one that was opened, in order.
        refusing: whether new connections are refused with a status.
        greeting: messages that a new connection is sent at once.
    """

    def __init__(self):
        self.connections = []
        self.refusing = False
        self.refused = 0
        self.greeting = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="venue", daemon=True)
        self._ready = threading.Event()
        self._stop = None
        self._port = 0

    @property
    def url(self):
        return f"ws://127.0.0.1:{self._port}"

    @property
    def open_connections(self):
        return [each for each in self.connections if each.open]

    def send(self, *messages):
        """Send messages to every open connection."""
        for connection in self.open_connections:
            connection.send(*messages)

    def await_connection(self, number):
        """The `number`-th connection ever opened, from 1."""
        return eventually(lambda: self.connections[number - 1 : number], say="no connection")[0]

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self):
        self._stop = asyncio.Event()
        async with serve(
            self._hold,
            "127.0.0.1",
            0,
            compression=None,
            ping_interval=None,
            close_timeout=0.2,
            max_size=None,
            process_request=self._judge,
        ) as server:
            self._port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stop.wait()

    def _judge(self, connection, _request):
        if not self.refusing:
            return None
        self.refused += 1
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "not now\n")

    async def _hold(self, socket):
        connection = VenueConnection(self._loop, socket)
        await connection._send(self.greeting)
        self.connections.append(connection)
        try:
            await socket.wait_closed()
        finally:
            connection.open = False
