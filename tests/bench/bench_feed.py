"""The feed: venue frames to trades acknowledged on the tape, by one process.

The practice venue plays a recording as fast as the feed takes it; a real broker acknowledges. Every
frame is one trade of 137 bytes as Binance sends it. Beside it: how fast frames come out of the
socket alone, by K2's splitting and by the WebSocket library's own parser.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from k2.clock import SystemClock
from k2.feed.connection.socket import open_socket
from k2.settings import TapeSettings, environment, load
from k2.tape import topics
from servers.local import broker as kafka
from servers.local import registry as apicurio
from servers.local.artifacts import Artifacts
from servers.local.child_process import Child
from tests.conftest import free_ports
from tests.fakes.scripted_venue import as_text_frame
from tests.support.eventually import eventually

FRAMES = 1_000_000
SECONDS_MAX = 20.0
SOCKET_FRAMES = 200_000
START_US = 1_760_000_000_000_000
CLOCK = SystemClock()


def measure():
    """Name, value, unit of each figure."""
    with tempfile.TemporaryDirectory() as folder:
        figures = _feed(Path(folder))
    ours, theirs = asyncio.run(_sockets())
    return [
        *figures,
        ("feed ÷ bare socket", figures[0][1] / ours, "ratio"),
        ("socket alone, split by K2", ours, "frames/s"),
        ("socket alone, parsed by the library", theirs, "frames/s"),
    ]


def text(number):
    """A trade as Binance sends it."""
    time = START_US + number * 50
    return (
        f'{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{time},"s":"BTCUSDT","t":{number},'
        f'"p":"39{number % 1000:03}.48000000","q":"0.{number % 9973:08}","T":{time},"m":true,'
        f'"M":true}}}}'
    )


def _feed(folder):
    recording = folder / "recording.jsonl"
    with recording.open("w") as file:
        file.writelines(text(number) + "\n" for number in range(1, FRAMES + 1))
    with ExitStack() as parts:
        bootstrap, registry = parts.enter_context(_tape(folder))
        env = environment() | {
            "K2_DATA_DIR": str(folder / "data"),
            "K2_TAPE__BOOTSTRAP": bootstrap,
            "K2_TAPE__REGISTRY_URL": registry,
            "K2_FEED__VENUE": f"recording:{recording}",
            "K2_FEED__SYMBOLS": '["BTCUSDT"]',
            "K2_FEED__SOURCE": "recorded",
            "K2_VENUE__SPEED": "0",
        }
        topics.deploy(TapeSettings(bootstrap=bootstrap), _NoRegistry())
        _, told = parts.enter_context(_process("venue", env, folder))
        env["K2_FEED__VENUE_URL"] = told["addresses"]["ws"]
        feed, _ = parts.enter_context(_process("feed", env, folder))
        rate, cpu_us = _sustained(bootstrap, feed)
        return [
            ("feed, venue to acknowledged on the tape", rate, "trades/s"),
            ("feed, CPU", cpu_us, "us/trade"),
            ("feed, RSS", feed.memory_info().rss / 2**20, "MiB"),
        ]


def _sustained(bootstrap, feed):
    """Trades a second over all but the first tenth, and CPU microseconds a trade."""
    admin, tape = topics.TapeAdmin(bootstrap), TapeSettings(bootstrap=bootstrap)

    def acknowledged():
        return sum(admin.log_ends(tape.topic, topics.partition_count(tape)))

    try:
        eventually(lambda: acknowledged() > FRAMES // 10, 30)
        first, first_s, first_cpu_s = acknowledged(), CLOCK.monotonic_s(), _cpu_s(feed)
        while acknowledged() < FRAMES and CLOCK.monotonic_s() < first_s + SECONDS_MAX:
            CLOCK.sleep(0.05)
        count, seconds = acknowledged() - first, CLOCK.monotonic_s() - first_s
        return count / seconds, (_cpu_s(feed) - first_cpu_s) / count * 1e6
    finally:
        admin.close()


def _cpu_s(process):
    times = process.cpu_times()
    return times.user + times.system


class _NoRegistry:
    def register(self, subject, schema):
        return 0


@contextmanager
def _tape(folder):
    """A broker and a registry; yields their addresses."""
    found = Artifacts(load().cache_dir, CLOCK)
    found.ensure(lambda *_: None)
    ports, others = kafka.BrokerPorts(*free_ports(2)), apicurio.RegistryPorts(*free_ports(2))
    commands = (
        kafka.prepare(folder / "kafka", ports, found.jars("kafka"), "5" * 32),
        apicurio.prepare(folder / "registry", others, found.unpacked("registry")),
    )
    children = [Child(command, folder / "tape.log") for command in commands]
    try:
        eventually(lambda: kafka.answers(ports), 50)
        eventually(lambda: apicurio.answers(others), 50)
        yield kafka.bootstrap(ports), apicurio.url(others)
    finally:
        for child in children:
            child.stop(grace_s=5)


@contextmanager
def _process(name, env, folder):
    """A process of K2 that serves; yields it and what it said."""
    with (folder / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "servers", name],
            env=env,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        told = json.loads(child.stdout.readline())
        assert told["event"] == "serving", told
        yield psutil.Process(child.pid), told
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


async def _sockets():
    """Frames a second out of a socket, by K2 and by the library."""
    data = b"".join(as_text_frame(text(number)) for number in range(SOCKET_FRAMES))

    async def send(connection):
        connection.transport.write(data)
        await connection.wait_closed()

    async with serve(send, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        socket = await open_socket(url)
        began_s, left = CLOCK.monotonic_s(), SOCKET_FRAMES
        while left > 0:
            left -= len(await socket.read())
        ours = SOCKET_FRAMES / (CLOCK.monotonic_s() - began_s)
        await socket.close()
        async with connect(url, compression=None, max_queue=1024) as library:
            began_s = CLOCK.monotonic_s()
            for _ in range(SOCKET_FRAMES):
                await library.recv(decode=False)
            theirs = SOCKET_FRAMES / (CLOCK.monotonic_s() - began_s)
    return ours, theirs
