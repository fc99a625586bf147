"""Records the frames that a venue sends to a file, which the practice venue can play.

    python -m servers record FILE [--venue auto|live|URL] [--symbols A,B]
                             [--duration 90s|15m|2h | --seconds N] [--frames N]

It ends after so long, after so many frames, or when asked; the file is whole in each case.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from k2 import limits
from k2.clock import Clock
from k2.feed.connection.session import Session
from k2.feed.connection.socket import VenueSocket, open_socket
from k2.feed.connection.subscription import Subscription
from k2.feed.recording import RecordingWriter
from k2.feed.venues.binance import BinanceSource
from k2.feed.venues.source import ShutdownAnnounced, Source
from k2.settings import FeedSettings, Settings
from servers.local.stack_options import Arguments
from servers.processes.feed import sessions_of
from servers.runtime import Runtime

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)?")
_UNIT_S = {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Record until the end that was asked for; what was recorded is the last JSON line.

    Raises:
        Invalid: an argument is wrong, or the file exists.
        Overloaded: DISK_FULL.
    """
    asked = _asked(settings, argv)
    source = BinanceSource(
        url=asked.venue,
        exchange=settings.feed.exchange,
        symbols=asked.symbols,
        source=settings.feed.source,
    )
    started_s = runtime.clock.monotonic_s()
    with contextlib.closing(RecordingWriter(asked.file)) as writer:
        recorder = Recorder(writer, source, runtime.clock, frames_max=asked.frames)
        sessions = sessions_of(settings, runtime)
        asyncio.run(_record(recorder, source.addresses(), sessions, runtime, asked.seconds))
    seconds = round(runtime.clock.monotonic_s() - started_s, 1)
    runtime.emit(
        "recorded",
        path=str(asked.file),
        frames=recorder.frames,
        connections=recorder.connections,
        seconds=seconds,
        message=f"{recorder.frames} frames in {seconds} s, in {asked.file}",
    )
    return 0


class Recorder:
    """Writes down every connection and every frame.

    Args:
        writer: of the file.
        source: knows which frame announces a shutdown.
        clock: wall time for the lines.
        frames_max: write no more than so many; None for no bound.

    Attributes:
        frames: written so far.
        connections: opened so far.
    """

    def __init__(
        self, writer: RecordingWriter, source: Source, clock: Clock, *, frames_max: int | None
    ) -> None:
        self.frames = 0
        self.connections = 0
        self._writer = writer
        self._source = source
        self._clock = clock
        self._frames_max = frames_max

    @property
    def done(self) -> bool:
        """Whether all frames that were asked for are written."""
        return self._frames_max is not None and self.frames >= self._frames_max

    async def open_socket(self, url: str) -> RecordedSocket:
        """Connect, and write that down."""
        socket = await open_socket(url)
        self.connections += 1
        conn = f"{self._source.name}.ws.{self.connections}"
        self._writer.write("connect", conn, self._clock.now_us() / 1e6, None)
        return RecordedSocket(socket, self, conn)

    def received(self, conn: str, frames: Sequence[bytes]) -> None:
        """Write frames down."""
        at_s = self._clock.now_us() / 1e6
        for frame in frames:
            if not self.done:
                self._writer.write("recv", conn, at_s, frame.decode(errors="replace"))
                self.frames += 1

    async def take(self, frames: Sequence[bytes]) -> bool:
        """Whether one of them announces that the venue closes the connection."""
        now_us = self._clock.now_us()
        return any(
            isinstance(self._source.decode(frame, now_us), ShutdownAnnounced) for frame in frames
        )

    def flush(self) -> None:
        """Make what was written readable."""
        self._writer.flush()


class RecordedSocket:
    """A connection whose frames are written down as they are read."""

    def __init__(self, socket: VenueSocket, recorder: Recorder, conn: str) -> None:
        self._socket = socket
        self._recorder = recorder
        self._conn = conn

    async def read(self) -> Sequence[bytes]:
        """Read frames as `VenueSocket` does, and record them."""
        frames = await self._socket.read()
        self._recorder.received(self._conn, frames)
        return frames

    async def ping(self) -> None:
        """Ping the venue as `VenueSocket` does."""
        await self._socket.ping()

    async def close(self) -> None:
        """Close the connection as `VenueSocket` does."""
        await self._socket.close()


async def _record(
    recorder: Recorder,
    addresses: Sequence[str],
    sessions: Callable[[], Session],
    runtime: Runtime,
    seconds: float | None,
) -> None:
    subscriptions = [
        Subscription(
            address=address,
            session=sessions(),
            clock=runtime.clock,
            open_socket=recorder.open_socket,
            take=recorder.take,
        )
        for address in addresses
    ]
    now_s = runtime.clock.monotonic_s()
    end_s = float("inf") if seconds is None else now_s + seconds
    told_s = now_s
    for subscription in subscriptions:
        subscription.start()
    try:
        while now_s < end_s and not recorder.done and not runtime.stopping.is_set():
            for subscription in subscriptions:
                subscription.tick(blocked=False)
                if subscription.failure is not None:
                    raise subscription.failure
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), limits.FEED_TICK_S)
            now_s = runtime.clock.monotonic_s()
            if now_s >= told_s + limits.RECORD_PROGRESS_S:
                told_s = now_s
                recorder.flush()
                runtime.emit("progress", message=f"{recorder.frames} frames")
    finally:
        for subscription in subscriptions:
            await subscription.stop()


# --- arguments ------------------------------------------------------------------------------------


class _Asked(argparse.Namespace):
    file: Path
    venue: str
    symbols: tuple[str, ...]
    seconds: float | None
    frames: int | None


def _asked(settings: Settings, argv: list[str]) -> _Asked:
    parser = Arguments("record")
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--out", dest="out", type=Path)
    parser.add_argument("--venue", "--url", dest="venue", default="auto")
    parser.add_argument("--symbols", type=_symbols, default=settings.feed.symbols)
    parser.add_argument("--duration", "--seconds", dest="seconds", type=_seconds)
    parser.add_argument("--frames", type=_frames)
    asked = parser.parse_args(argv, _Asked())
    files = [file for file in (asked.file, asked.out) if file is not None]
    if len(files) != 1:
        parser.error("say which file to write, once")
    asked.file = files[0]
    known = {"auto": settings.feed.venue_url, "live": FeedSettings().venue_url}
    asked.venue = known.get(asked.venue, asked.venue)
    return asked


def _symbols(text: str) -> tuple[str, ...]:
    return tuple(part.strip().upper() for part in text.split(",") if part.strip())


def _seconds(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s or 15m")
    return float(found[1]) * _UNIT_S[found[2]]


def _frames(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of frames")
    return int(text)
