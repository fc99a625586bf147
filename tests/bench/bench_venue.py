"""How fast the practice venue is, and how little it takes: it must never be what a benchmark finds.

The venue runs in a process of its own, without a tape; this process takes its frames from a plain
socket and counts them.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from k2.clock import SystemClock
from k2.feed.recording import read_frames
from servers.venue.archive import SyntheticArchive
from servers.venue.frames import Form, render
from servers.venue.hub import Hub
from servers.venue.market.synthetic_market import Market, opened
from servers.venue.recorded_source import RecordedSource
from servers.venue.synthetic_source import SyntheticSource
from servers.venue.venue_server import MarketSource, Venue

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
RATE = 50_000.0
SECONDS = 6.0
RECORDED_FRAMES = 300_000
CLOCK = SystemClock()
SECONDS_MAX = 20.0
_TRADE = b'"M":true'
HANDSHAKE = (
    b"GET /stream?streams=btcusdt@trade/ethusdt@trade/bnbusdt@trade HTTP/1.1\r\nHost: venue\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def measure() -> list[tuple[str, float, str]]:
    """Rates of the venue, synthetic and recorded, beside what their parts do alone."""
    return [*_synthetic(), *_recorded()]


def _synthetic() -> list[tuple[str, float, str]]:
    market = Market(7, opened(SYMBOLS, RATE))
    with _serving("synthetic") as (process, port), _connected(port) as frames:
        frames.count(SECONDS / 6)
        cpu_s, began_us = _cpu_s(process), CLOCK.now_us()
        sent = frames.count(SECONDS)
        cpu_s, ended_us = _cpu_s(process) - cpu_s, CLOCK.now_us()
    due = sum(market.emitted(name, ended_us) - market.emitted(name, began_us) for name in SYMBOLS)
    elapsed_s = (ended_us - began_us) / 1e6
    return [
        ("synthetic, 50,000/s asked: sent to one connection", sent / elapsed_s, "trades/s"),
        ("synthetic, 50,000/s asked: due by the market", due / elapsed_s, "trades/s"),
        ("synthetic: CPU of the venue (no limit beside it)", cpu_s / sent * 1e6, "us/trade"),
        ("synthetic: made and rendered alone", _rendered_a_second(market), "trades/s"),
    ]


def _rendered_a_second(market: Market) -> float:
    start_us, rendered = CLOCK.now_us(), 0
    began_s = CLOCK.monotonic_s()
    while CLOCK.monotonic_s() - began_s < 2.0:
        parts = [market.between(name, start_us, start_us + 100_000) for name in SYMBOLS]
        rendered += len(render(parts, Form(combined=True, microseconds=True)).ends)
        start_us += 100_000
    return rendered / (CLOCK.monotonic_s() - began_s)


def _recorded() -> list[tuple[str, float, str]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recorded.jsonl"
        _write_recording(path)
        began_s = CLOCK.monotonic_s()
        assert sum(1 for _ in read_frames(path)) == RECORDED_FRAMES
        alone = RECORDED_FRAMES / (CLOCK.monotonic_s() - began_s)
        with _serving(str(path)) as (_, port), _connected(port) as frames:
            began_s = CLOCK.monotonic_s()
            sent = frames.count(SECONDS_MAX, RECORDED_FRAMES)
            played = sent / (CLOCK.monotonic_s() - began_s)
    return [
        ("recording at speed 0: sent to one connection", played, "frames/s"),
        ("recording: read alone", alone, "frames/s"),
    ]


def _write_recording(path: Path) -> None:
    with path.open("w") as file:
        for number in range(RECORDED_FRAMES):
            time = 1_610_064_000_000 + number
            event = (
                f'{{"e":"trade","E":{time},"s":"BTCUSDT","t":{number},"p":"39432.48000000",'
                f'"q":"0.00026300","T":{time},"m":true,"M":true}}'
            )
            file.write(f'{{"stream":"btcusdt@trade","data":{event}}}\n')


@contextmanager
def _serving(what: str) -> Iterator[tuple[psutil.Process, int]]:
    """A venue in a process of its own; yields it and its port."""
    command = [sys.executable, "-m", "tests.bench.bench_venue", what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield psutil.Process(child.pid), int(json.loads(child.stdout.readline()))
        finally:
            child.kill()


@contextmanager
def _connected(port: int) -> Iterator[_Trades]:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(HANDSHAKE)
        connection.settimeout(5)
        yield _Trades(connection)


class _Trades:
    """Counts the trades that come out of a socket, also those a read cuts in two."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def count(self, seconds: float, most: float = math.inf) -> int:
        """Take what comes for so long, or until there are `most` trades; gives how many."""
        end_s, trades = CLOCK.monotonic_s() + seconds, 0
        while CLOCK.monotonic_s() < end_s and trades < most:
            data = self._rest + self._connection.recv(1 << 20)
            if data == self._rest:
                break
            trades += data.count(_TRADE)
            self._rest = data[data.rfind(_TRADE) + len(_TRADE) :][-len(_TRADE) + 1 :]
        return trades


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _serve(what: str, folder: Path) -> None:
    hub, segments = Hub(), opened(SYMBOLS, RATE)
    programme: MarketSource
    if what == "synthetic":
        programme = SyntheticSource(market=Market(7, segments), hub=hub, clock=CLOCK)
    else:
        kept = folder / "position.json"
        programme = RecordedSource(path=Path(what), kept=kept, speed=0.0, hub=hub, clock=CLOCK)
    archive = SyntheticArchive(Market(7, segments), CLOCK)
    venue = Venue(source=programme, archive=archive, hub=hub, clock=CLOCK)
    print(await venue.start("127.0.0.1", 0), flush=True)
    await venue.failed()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(_serve(sys.argv[1], Path(scratch)))
