"""A connection read in batches, against a real WebSocket server; every way a frame may arrive."""

import asyncio
import struct

import pytest

from k2 import limits
from k2.errors import Reason, Unavailable
from k2.feed.connection.socket import Closed, is_loopback, open_socket
from tests.fakes.scripted_venue import FakeVenue, as_text_frame
from tests.support.eventually import eventually
from tests.support.proxies import set_proxies

MESSAGES = [f"message {number} {'x' * (number % 300)}".encode() for number in range(3000)]


@pytest.fixture
def venue():
    with FakeVenue() as made:
        yield made


def held(venue, script):
    """Connect, run `script(socket, connection)` and return what it returns."""

    async def run():
        socket = await open_socket(f"{venue.url}/stream?streams=btcusdt@trade")
        loop = asyncio.get_running_loop()
        number = len(venue.connections) or 1
        connection = await loop.run_in_executor(None, venue.await_connection, number)
        try:
            return await script(socket, connection)
        finally:
            await socket.close()

    return asyncio.run(run())


async def read(socket, count):
    """The next `count` messages."""
    got = []
    while len(got) < count:
        got += await asyncio.wait_for(socket.read(), 10)
    assert len(got) == count
    return got


async def told(action, *arguments):
    """Make the venue do something without standing in its way."""
    await asyncio.get_running_loop().run_in_executor(None, action, *arguments)


def test_messages_come_whole_and_in_order(venue):
    async def script(socket, connection):
        await told(connection.send_raw, b"".join(map(as_text_frame, MESSAGES)))
        return await read(socket, len(MESSAGES))

    assert held(venue, script) == MESSAGES


def test_what_comes_with_the_answer_to_the_handshake_is_read(venue):
    venue.greeting = ["first", "second"]

    async def script(socket, connection):
        await told(connection.send, "third")
        return await read(socket, 3)

    assert held(venue, script) == [b"first", b"second", b"third"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 150])
def test_frames_may_be_cut_anywhere(venue, size):
    wire = b"".join(map(as_text_frame, MESSAGES[:20])) + as_text_frame(b"end")

    async def script(socket, connection):
        for at in range(0, min(len(wire), 200 * size), size):
            await told(connection.send_raw, wire[at : at + size])
        await told(connection.send_raw, wire[min(len(wire), 200 * size) :])
        return await read(socket, 21)

    assert held(venue, script) == [*MESSAGES[:20], b"end"]


def test_fragments_pings_and_binary_frames_are_the_librarys(venue):
    async def script(socket, connection):
        await told(connection.send, "one")
        await told(connection.send_fragments, "tw", "", "o")
        await told(connection.ping)
        await told(connection.send_raw, b"\x82\x03abc" + as_text_frame("four"))
        await socket.ping()
        return await read(socket, 4)

    assert held(venue, script) == [b"one", b"two", b"abc", b"four"]
    assert venue.connections[0].pongs == 1


@pytest.mark.parametrize("length", [125, 126, 65_535, 65_536, limits.FRAME_BYTES_MAX])
def test_every_form_of_length_is_read(venue, length):
    message = b"y" * length

    async def script(socket, connection):
        await told(connection.send, message.decode(), "next")
        return await read(socket, 2)

    assert held(venue, script) == [message, b"next"]


@pytest.mark.parametrize(
    "wire",
    [
        struct.pack(">BBQ", 0x81, 127, limits.FRAME_BYTES_MAX + 1),
        struct.pack(">BBQ", 0x81, 127, 2**63),
        b"\x81\x85maskhello",
        b"\x83\x00",
        b"\xf1\x01x",
        b"\x80\x01x",
        b"GET / HTTP/1.1\r\n\r\n" + bytes(100),
    ],
)
def test_what_breaks_the_protocol_ends_the_connection(venue, wire):
    async def script(socket, connection):
        await told(connection.send_raw, as_text_frame("before") + wire)
        before = await read(socket, 1)
        with pytest.raises(Closed):
            await read(socket, 1)
        return before

    assert held(venue, script) == [b"before"]


@pytest.mark.parametrize("way", ["close", "cut"])
def test_everything_sent_before_the_end_is_read(venue, way):
    async def script(socket, connection):
        await told(connection.send, "last")
        got = await read(socket, 1)
        await told(getattr(connection, way))
        with pytest.raises(Closed):
            await read(socket, 1)
        with pytest.raises(Closed):
            await socket.ping()
        return got

    assert held(venue, script) == [b"last"]


def test_an_end_inside_a_frame_is_an_end(venue):
    async def script(socket, connection):
        await told(connection.send_raw, as_text_frame("whole") + as_text_frame("x" * 50)[:20])
        await told(connection.close)
        got = await read(socket, 1)
        with pytest.raises(Closed):
            await read(socket, 1)
        return got

    assert held(venue, script) == [b"whole"]


def test_a_slow_reader_stops_the_venue_not_the_memory(venue):
    wire = b"".join(as_text_frame("z" * 4000) for _ in range(8000))  # 32 MB

    async def script(socket, connection):
        await told(connection.send_raw, wire)
        await asyncio.to_thread(eventually, lambda: socket._connection._held, 20)
        first = await asyncio.wait_for(socket.read(), 10)
        assert limits.FEED_SOCKET_FRAMES_MAX < len(first) < 1000
        return len(first) + len(await read(socket, 8000 - len(first)))

    assert held(venue, script) == 8000


def test_a_refused_connection_says_why(venue):
    venue.refusing = True
    with pytest.raises(Unavailable, match="503") as caught:
        asyncio.run(open_socket(venue.url))
    assert caught.value.reason is Reason.VENUE_UNAVAILABLE


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1/x", "ws://nowhere.invalid/x", "ws:///x"])
def test_an_address_that_does_not_answer_says_so(url):
    with pytest.raises(Unavailable, match="cannot be connected to"):
        asyncio.run(open_socket(url))


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5h://127.0.0.1:9"])
def test_no_proxy_stands_before_a_venue_on_this_machine(venue, monkeypatch, proxy):
    set_proxies(monkeypatch, proxy)

    async def script(socket, connection):
        await told(connection.send, "hello")
        return await read(socket, 1)

    assert held(venue, script) == [b"hello"]


def test_a_proxy_that_is_not_spoken_is_named(monkeypatch):
    set_proxies(monkeypatch, "socks5h://127.0.0.1:9")
    with pytest.raises(Unavailable, match="SOCKS") as caught:
        asyncio.run(open_socket("wss://venue.invalid:9443/stream"))
    assert caught.value.reason is Reason.VENUE_UNAVAILABLE


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "a.localhost"])
def test_what_is_on_this_machine(host):
    assert is_loopback(f"ws://{host}:1/stream")
    assert not is_loopback(f"ws://venue.invalid/{host}")


@pytest.mark.parametrize("url", ["wss://10.0.0.1:1", "ws://localhost.example", "", "nonsense"])
def test_what_is_elsewhere(url):
    assert not is_loopback(url)
