"""Holds one address of a venue: runs the commands of its session with sockets and tasks.

At most two connections are open, each read by a task of its own. Everything runs in one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from k2.clock import Clock
from k2.errors import Unavailable
from k2.feed.connection.session import Action, Session, SessionCommand, State
from k2.feed.connection.socket import Closed

_log = logging.getLogger(__name__)


class Socket(Protocol):
    """`k2.feed.connection.socket.VenueSocket`, or the scripted one of the tests."""

    async def read(self) -> Sequence[bytes]:
        """Return the messages that have come, at least one."""

    async def ping(self) -> None:
        """Ask for a sign of life; returns when it came."""

    async def close(self) -> None:
        """End the connection."""


Open = Callable[[str], Awaitable[Socket]]
Take = Callable[[Sequence[bytes]], Awaitable[bool]]


class Subscription:
    """Reads one address from `start` to `stop`.

    Args:
        address: of the venue, with what is subscribed to.
        session: decides; it has not been started.
        clock: monotonic time for the session.
        open_socket: connects to an address.
        take: takes all messages of a batch, however long that takes; answers whether one of them
            announced that the venue closes the connection.

    Attributes:
        session: to look at.
        failure: what ended the reading for good; not a lost connection.
    """

    def __init__(
        self, *, address: str, session: Session, clock: Clock, open_socket: Open, take: Take
    ) -> None:
        self.session = session
        self.failure: BaseException | None = None
        self._address = address
        self._clock = clock
        self._open_socket = open_socket
        self._take = take
        self._holds: dict[int, asyncio.Task[None]] = {}
        self._sockets: dict[int, Socket] = {}
        self._heard: set[int] = set()
        self._taking: set[int] = set()
        self._pings: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether a connection is open now."""
        return self.session.state in (State.LIVE, State.RENEWING)

    def start(self) -> None:
        """Begin to connect."""
        self._obey(self.session.start(self._clock.monotonic_s()))

    def pause(self) -> None:
        """Close every connection, open or not yet, until `resume`; nothing before the start."""
        if self.session.state not in (State.IDLE, State.PAUSED, State.STOPPED):
            self._obey(self.session.pause())

    def resume(self) -> None:
        """Begin to connect, the first time or after a pause."""
        if self.session.state is State.PAUSED:
            self._obey(self.session.resume(self._clock.monotonic_s()))
        else:
            self.start()

    def tick(self, *, blocked: bool) -> None:
        """Report what was heard to the session, and do what is due.

        Args:
            blocked: the feed is not reading, so silence proves nothing about the venue.
        """
        now_s = self._clock.monotonic_s()
        for link in self._heard | self._taking:
            self.session.received(link, now_s)
        self._heard.clear()
        if blocked:
            self.session.held_up(now_s)
        else:
            self._obey(self.session.tick(now_s))

    async def stop(self) -> None:
        """Stop reading and close every connection."""
        holds = list(self._holds.values())
        self._obey(self.session.stop())
        for ping in self._pings:
            ping.cancel()
        await asyncio.gather(*holds, *self._pings, return_exceptions=True)

    def _obey(self, commands: Sequence[SessionCommand]) -> None:
        for action, link, reason in commands:
            if action is Action.CONNECT:
                _log.info("connecting", extra={"link": link, "reason": reason})
                task = asyncio.create_task(self._hold(link))
                task.add_done_callback(partial(self._ended, link))
                self._holds[link] = task
            elif action is Action.CLOSE:
                _log.info("closing", extra={"link": link, "reason": reason})
                self._holds[link].cancel()
            elif link in self._sockets:
                ping = asyncio.create_task(self._ping(link, self._sockets[link]))
                self._pings.add(ping)
                ping.add_done_callback(self._pings.discard)

    async def _hold(self, link: int) -> None:
        """One connection, from the attempt to its end."""
        try:
            socket = await self._open_socket(self._address)
        except Unavailable as error:
            _log.warning("%s", error.message, extra={"link": link})
            return
        try:
            self._sockets[link] = socket
            self.session.opened(link, self._clock.monotonic_s())
            while True:
                await self._read(link, socket)
        except Closed as error:
            _log.warning("connection lost: %s", error, extra={"link": link})
        finally:
            del self._sockets[link]
            self._heard.discard(link)
            await socket.close()

    async def _read(self, link: int, socket: Socket) -> None:
        """One batch; while it is being taken, its connection has been heard."""
        frames = await socket.read()
        self._heard.add(link)
        self._taking.add(link)
        try:
            announced = await self._take(frames)
        finally:
            self._taking.discard(link)
        if announced:
            _log.info("shutdown announced", extra={"link": link})
            self.session.shutdown_announced(link, self._clock.monotonic_s())

    def _ended(self, link: int, task: asyncio.Task[None]) -> None:
        del self._holds[link]
        if not task.cancelled() and task.exception() is not None:
            self.failure = task.exception()
        self.session.lost(link, self._clock.monotonic_s())

    async def _ping(self, link: int, socket: Socket) -> None:
        try:
            await socket.ping()
        except Closed:
            return
        self.session.alive(link, self._clock.monotonic_s())
