"""The venue over real sockets on loopback, with the real client of the library."""

import asyncio
import ipaddress
import json
import socket
import urllib.error
import urllib.request

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from k2 import limits
from k2.clock import SystemClock
from k2.errors import Reason, Unavailable
from servers.venue.archive import SyntheticArchive
from servers.venue.hub import Hub
from servers.venue.market.synthetic_market import Market, opened
from servers.venue.synthetic_source import SyntheticSource
from servers.venue.venue_server import Venue, VenueOptions
from tests.support.elsewhere import other_address

SYMBOLS = ("BTCUSDT", "ETHUSDT")
HANDSHAKE = (
    b"GET /ws/btcusdt@trade HTTP/1.1\r\nHost: venue\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
BOTH = "/stream?streams=btcusdt@trade/ethusdt@trade&timeUnit=MICROSECOND"


class Serving:
    def __init__(self, rate=2000.0, terms=None, source=None):
        self.clock = SystemClock()
        self.hub = Hub()
        self.market = Market(7, opened(SYMBOLS, rate))
        self.venue = Venue(
            source=source
            or SyntheticSource(
                market=Market(7, self.market.segments), hub=self.hub, clock=self.clock
            ),
            archive=SyntheticArchive(Market(7, self.market.segments), self.clock),
            hub=self.hub,
            clock=self.clock,
            terms=terms,
        )
        self.port = 0

    async def __aenter__(self):
        self.port = await self.venue.start("127.0.0.1", 0)
        return self

    async def __aexit__(self, *_):
        await self.venue.close()
        await asyncio.to_thread(lambda: None)  # sockets that were cut are closed a turn later

    def connect(self, path=BOTH, **options):
        options = {"max_size": None, "max_queue": None} | options
        return connect(f"ws://127.0.0.1:{self.port}{path}", **options)

    async def get(self, path, method="GET"):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)

        def fetch():
            try:
                with urllib.request.urlopen(request, timeout=10) as response:
                    return response.status, json.loads(response.read())
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, json.loads(error.read())

        return await asyncio.to_thread(fetch)


async def trades(client, count):
    return [json.loads(await client.recv())["data"] for _ in range(count)]


async def drain(client, messages):
    """Keep what comes in `messages`; raises what the connection ends with."""
    while True:
        messages.append(json.loads(await client.recv()))


async def until(check):
    async with asyncio.timeout(40):
        while not check():
            await asyncio.wait([asyncio.create_task(asyncio.to_thread(lambda: None))])


def test_the_trades_of_the_market_arrive_in_order_and_without_holes():
    async def scenario():
        async with Serving() as serving, serving.connect() as client:
            found = await trades(client, 3000)
        for symbol in SYMBOLS:
            ids = [event["t"] for event in found if event["s"] == symbol]
            market = serving.market.trades(symbol, ids[0], ids[-1] + 1)
            assert ids == market.id.tolist()
            times = [event["T"] for event in found if event["s"] == symbol]
            assert times == market.time_us.tolist()

    asyncio.run(scenario())


def test_a_second_connection_and_the_archive_agree():
    async def scenario():
        async with Serving() as serving, serving.connect() as one, serving.connect() as other:
            first = {(event["s"], event["t"]): event for event in await trades(one, 500)}
            second = {(event["s"], event["t"]): event for event in await trades(other, 500)}
            for key in first.keys() & second.keys():
                assert first[key] == second[key]
            (symbol, trade_id), event = next(iter(first.items()))
            path = f"/api/v3/historicalTrades?symbol={symbol}&fromId={trade_id}&limit=1"
            _, (past,) = await serving.get(path)
        assert (past["price"], past["qty"], past["time"]) == (
            event["p"], event["q"], event["T"] // 1000,
        )  # fmt: skip

    asyncio.run(scenario())


def test_requests_are_answered_among_the_trades():
    async def scenario():
        async with Serving() as serving, serving.connect("/ws") as client:
            await client.send('{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}')
            assert json.loads(await client.recv()) == {"result": None, "id": 1}
            assert json.loads(await client.recv())["s"] == "BTCUSDT"
            await client.send('{"method":"UNSUBSCRIBE","params":["btcusdt@trade"],"id":"u"}')
            async for message in client:
                if json.loads(message).get("id") == "u":
                    break
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.recv(), 0.3)

    asyncio.run(scenario())


def test_too_many_requests_end_a_connection():
    async def scenario():
        async with Serving() as serving, serving.connect("/ws") as client:
            for number in range(limits.VENUE_REQUESTS_PER_S_MAX + 1):
                await client.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
            with pytest.raises(ConnectionClosedError) as raised:
                await drain(client, [])
            assert raised.value.rcvd.code == 1008

    asyncio.run(scenario())


def test_rest_is_on_the_same_port():
    async def scenario():
        async with Serving() as serving:
            assert await serving.get("/api/v3/ping") == (200, {})
            assert (await serving.get("/nowhere"))[0] == 404
            assert (await serving.get("/ws/btcusdt@trade"))[0] == 404
            status, changed = await serving.get("/k2/faults?duplicate=3", "POST")
            assert (status, changed["faults"]["duplicate"]) == (200, 3)
            assert (await serving.get("/k2/status"))[1]["connections"] == 0

    asyncio.run(scenario())


def test_paths_that_ask_too_much_are_refused_before_the_handshake():
    async def scenario():
        async with Serving() as serving:
            for path in ("/stream?timeUnit=DAY", "/ws/" + "a" * 65, "/elsewhere"):
                with pytest.raises(InvalidStatus) as raised:
                    await serving.connect(path)
                assert raised.value.response.status_code in (400, 404)

    asyncio.run(scenario())


def test_only_so_many_connections_are_taken(monkeypatch):
    monkeypatch.setattr(limits, "VENUE_CONNECTIONS_MAX", 1)

    async def scenario():
        async with Serving() as serving, serving.connect():
            with pytest.raises(InvalidStatus) as raised:
                await serving.connect()
            assert raised.value.response.status_code == 429

    asyncio.run(scenario())


def test_a_connection_has_an_age():
    async def scenario():
        async with Serving(terms=VenueOptions(cut_s=0.3)) as serving, serving.connect() as client:
            with pytest.raises(ConnectionClosed) as raised:
                await drain(client, [])
            assert raised.value.rcvd.code == 1001
            assert raised.value.rcvd.reason == "the life of a connection is over"

    asyncio.run(scenario())


def test_a_connection_that_answers_no_ping_is_cut():
    async def scenario():
        terms = VenueOptions(ping_s=0.1, pong_s=0.3, close_s=0.3)
        async with Serving(rate=0.01, terms=terms) as serving:
            reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
            writer.write(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")
            async with asyncio.timeout(5):
                received = await reader.read(-1)
            assert received[0] == 0x89, "a ping"
            assert b"keepalive ping timeout" in received
            writer.close()
            await writer.wait_closed()
            await until(lambda: len(serving.hub) == 0)

    asyncio.run(scenario())


def test_a_connection_that_answers_pings_stays():
    async def scenario():
        terms = VenueOptions(ping_s=0.05, pong_s=0.3)
        async with Serving(rate=50.0, terms=terms) as serving, serving.connect() as client:
            assert len(await trades(client, 40)) == 40
            assert client.latency == 0.0, "it is the venue that pings"

    asyncio.run(scenario())


@pytest.mark.parametrize(("inside", "status"), [(True, 200), (False, 403)])
def test_peers_of_trusted_networks_are_taken(inside, status):
    host = other_address()
    network = ipaddress.ip_network(host if inside else "198.51.100.0/24")

    async def scenario():
        serving = Serving(terms=VenueOptions(trusted=(network,)))
        port = await serving.venue.start("0.0.0.0", 0)
        try:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET /api/v3/time HTTP/1.1\r\nHost: venue\r\n\r\n")
            async with asyncio.timeout(5):
                answer = await reader.read(-1)
            assert answer.split(b" ")[1] == str(status).encode()
            writer.close()
            await writer.wait_closed()
        finally:
            await serving.venue.close()

    asyncio.run(scenario())


def test_a_shutdown_is_announced_before_connections_are_closed():
    async def scenario():
        serving = Serving(rate=10.0)
        async with serving:
            client = await serving.connect()
        messages = [json.loads(message) async for message in client]
        await client.wait_closed()
        assert messages[-1]["e"] == "serverShutdown"
        assert client.close_code == 1001

    asyncio.run(scenario())


def test_a_shutdown_on_request_cuts_after_its_lead():
    async def scenario():
        async with Serving(rate=10.0) as serving, serving.connect() as client:
            await serving.get("/k2/shutdown?lead_s=0")
            messages = []
            with pytest.raises(ConnectionClosedError):
                await drain(client, messages)
            assert messages[-1]["e"] == "serverShutdown"
            async with serving.connect() as again:
                assert len(await trades(again, 1)) == 1

    asyncio.run(scenario())


def test_faults_reach_the_connection():
    async def scenario():
        async with Serving() as serving, serving.connect() as client:
            await trades(client, 10)
            await serving.get("/k2/faults?disconnect=1")
            with pytest.raises(ConnectionClosedError):
                await trades(client, 100_000)
            _, shown = await serving.get("/k2/faults")
            assert shown["happened"]["disconnect"] == 1

    asyncio.run(scenario())


def test_a_connection_that_takes_nothing_is_cut_and_harms_no_other(monkeypatch):
    monkeypatch.setattr(limits, "VENUE_BUFFER_BYTES_MAX", 200_000)

    async def scenario():
        async with Serving(rate=10_000.0) as serving, serving.connect("/ws/nosuch@trade") as other:
            with socket.socket() as stuck:
                stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                stuck.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(stuck, ("127.0.0.1", serving.port))
                await loop.sock_sendall(stuck, HANDSHAKE)
                await until(lambda: len(serving.hub) == 2)
                await until(lambda: len(serving.hub) == 1)
            await other.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
            assert json.loads(await other.recv())["result"] == ["nosuch@trade"]

    asyncio.run(scenario())


def test_a_port_in_use_is_said():
    async def scenario():
        async with Serving() as serving:
            with pytest.raises(Unavailable) as raised:
                await Serving().venue.start("127.0.0.1", serving.port)
            assert raised.value.reason is Reason.PORT_IN_USE

    asyncio.run(scenario())


def test_a_programme_that_fails_ends_the_venue():
    class Broken:
        def tick(self):
            raise RuntimeError("broken")

        def finish(self):
            pass

    async def scenario():
        async with Serving(source=Broken()) as serving:
            with pytest.raises(RuntimeError, match="broken"):
                await serving.venue.failed()

    asyncio.run(scenario())
