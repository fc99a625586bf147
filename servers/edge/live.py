"""Sends what is new to watchers: one question a poll, however many watch the same.

A topic is what is watched, such as the trades of a symbol. While someone watches it, one task asks
K2 for its newest rows at an interval and sends those that were not sent before to every watcher. A
watcher that comes later begins with the newest rows there are. One that does not keep up is let go:
its browser connects again, and begins with the newest rows.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from fastapi.sse import ServerSentEvent

import k2client
from k2 import limits
from k2client import arrow_text, records
from k2client.caller_name import calling_for
from k2client.errors import K2Error, Overloaded
from k2client.json_form import json_value
from k2client.times import duration_us, from_us
from servers.edge.calls import CallThreads, Connections
from servers.edge.problems import problem_of

_BACKLOG: Final = 50  # rows that a watcher begins with
_MONTH: Final = 31  # days at most
_OVERLAP_US: Final = 5_000_000  # trades may come that much out of their order
_log = logging.getLogger(__name__)


class Newest(Protocol):
    """Asks for the newest rows of a topic; used by one thread at a time.

    Attributes:
        recent: the rows that a new watcher begins with, as JSON, oldest first.
    """

    recent: list[str]

    def ask(self, k2: k2client.Client) -> tuple[list[str], records.Provenance]:
        """Return the rows that were not returned before, as JSON, oldest first."""


class NewestTrades:
    """The newest trades of a symbol.

    An ask reads again what is a few seconds old, because trades may come out of their order.

    Args:
        symbol: whose.
        exchange: None: every exchange that knows it.
    """

    def __init__(self, symbol: str, exchange: str | None) -> None:
        self.recent: list[str] = []
        self._symbol = symbol
        self._exchange = exchange
        self._seen: set[tuple[str, int]] = set()
        self._floor_us: int | None = None

    def ask(self, k2: k2client.Client) -> tuple[list[str], records.Provenance]:
        """Return the trades that were not returned before."""
        begins = self._floor_us is None
        most = _BACKLOG if begins else limits.EDGE_EVENT_ROWS_MAX
        answer = k2.trades(
            self._symbol,
            exchanges=self._exchange,
            start=None if self._floor_us is None else from_us(self._floor_us),
            limit=most,
            order="desc",
        )
        rows = answer.to_arrow()
        fresh = self._unseen(rows, full=rows.num_rows == most)
        self.recent = [*self.recent, *fresh][-_BACKLOG:]
        return fresh, answer.provenance

    def _unseen(self, rows: pa.Table, *, full: bool) -> list[str]:
        """Choose the rows that were not seen before, and note what was seen.

        What is as old as the oldest row of a full answer, or older, will not be sent.
        """
        if not rows.num_rows:
            self._floor_us = self._floor_us or 0
            return []
        exchanges, numbers = rows.column("exchange").to_pylist(), rows.column("trade_id")
        keys = list(zip(exchanges, numbers.to_pylist(), strict=True))
        times = pc.cast(rows.column("event_time"), pa.int64())
        oldest, newest = times[-1].as_py(), times[0].as_py()
        fresh = pa.array([key not in self._seen for key in keys])
        self._floor_us = max(self._floor_us or 0, newest - _OVERLAP_US, oldest + 1 if full else 0)
        at = times.to_pylist()
        self._seen = {key for key, us in zip(keys, at, strict=True) if us >= self._floor_us}
        return _lines(rows.filter(fresh))[::-1]


class ChangingBars:
    """The newest bars of a symbol, each again whenever it has changed.

    An ask reads the last two bars again, because a trade may come late.

    Args:
        symbol: whose.
        exchange: None: every exchange that knows it.
        every: the length of a bar.
        tz: the zone of its days.
    """

    def __init__(self, symbol: str, exchange: str | None, every: str, tz: str) -> None:
        self.recent: list[str] = []
        self._asked: dict[str, Any] = {
            "symbols": symbol,
            "exchanges": exchange,
            "every": every,
            "tz": tz,
        }
        self._length_us = duration_us(every.replace("mo", "d")) * (_MONTH if "mo" in every else 1)
        self._start_us: int | None = None
        self._known: dict[tuple[int, str], str] = {}

    def ask(self, k2: k2client.Client) -> tuple[list[str], records.Provenance]:
        """Return the bars that are not as they were returned before."""
        since: dict[str, Any] = (
            {"last": timedelta(microseconds=self._length_us * _BACKLOG)}
            if self._start_us is None
            else {"start": from_us(self._start_us)}
        )
        answer = k2.bars(**self._asked, **since, limit=limits.EDGE_EVENT_ROWS_MAX, order="desc")
        rows = answer.to_arrow()
        starts = pc.cast(rows.column("bar_start"), pa.int64()).to_pylist()
        keys = list(zip(starts, rows.column("exchange").to_pylist(), strict=True))[::-1]
        found = dict(zip(keys, _lines(rows)[::-1], strict=True))
        changed = [line for key, line in found.items() if self._known.get(key) != line]
        self._known = dict(sorted((self._known | found).items())[-_BACKLOG:])
        self.recent = list(self._known.values())
        if starts:
            self._start_us = starts[0] - self._length_us
        return changed, answer.provenance


def _lines(rows: pa.Table) -> list[str]:
    return [line for batch in rows.to_batches() for line in arrow_text.json_rows(batch)]


@dataclass(eq=False)
class Watcher:
    """One stream of events.

    Attributes:
        events: yields them until the watcher leaves or is let go.
        leave: ends it.
    """

    leave: Callable[[], None]
    _queue: asyncio.Queue[ServerSentEvent | None] = field(
        default_factory=lambda: asyncio.Queue(limits.EDGE_EVENTS_KEPT)
    )

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """Yield the events until this watcher is let go."""
        while (event := await self._queue.get()) is not None:
            yield event

    @property
    def has_events(self) -> bool:
        """Whether there is something to yield."""
        return not self._queue.empty()

    def put(self, event: ServerSentEvent) -> bool:
        """Give it an event; return whether it keeps up."""
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            return False
        return True

    def end(self) -> None:
        """Let it go; what it has not read is lost."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)


class _Topic:
    """What is watched: its rows, its watchers, and the task that asks."""

    def __init__(self, name: str, newest: Newest) -> None:
        self.name = name
        self.newest = newest
        self.watchers: set[Watcher] = set()
        self.task: asyncio.Task[None] | None = None
        self.began = asyncio.Lock()
        self._origin: records.Provenance | None = None

    @property
    def has_begun(self) -> bool:
        """Whether it was asked about."""
        return self._origin is not None

    def take(self, rows: list[str], origin: records.Provenance) -> None:
        """Send rows to all watchers; let go those that do not keep up."""
        begins, self._origin = self._origin is None, origin
        if rows or begins:
            self.send(self._event(rows, origin))

    def send(self, event: ServerSentEvent) -> None:
        """Send an event to all watchers."""
        for watcher in [one for one in self.watchers if not one.put(event)]:
            self.watchers.discard(watcher)
            watcher.end()

    def backlog(self) -> ServerSentEvent:
        """Return what a new watcher begins with."""
        assert self._origin is not None, "it has begun"
        return self._event(self.newest.recent, self._origin)

    def _event(self, rows: list[str], origin: records.Provenance) -> ServerSentEvent:
        about: dict[str, Any] = {
            "source": origin.source,
            "level": origin.level,
            "token": origin.token,
            "planned_time": json_value(origin.planned_time),
        }
        data = f'{{"data": [{", ".join(rows)}], {json.dumps(about)[1:]}'
        return ServerSentEvent(raw_data=data, event=self.name)


class LiveTopics:
    """All topics that are watched now. Its methods belong to the event loop, except `close`.

    Args:
        connections: to K2.
        threads: that ask.
        poll_s: between two asks.

    Attributes:
        threads: that ask; to be closed last.
    """

    def __init__(
        self, connections: Connections, threads: CallThreads, poll_s: float = limits.EDGE_POLL_S
    ) -> None:
        self._connections = connections
        self.threads = threads
        self._poll_s = poll_s
        self._topics: dict[Hashable, _Topic] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = threading.Event()

    async def watch(self, key: Hashable, name: str, make: Callable[[], Newest]) -> Watcher:
        """Begin to watch a topic; its first event is in the watcher already.

        Args:
            key: of the topic: the same key, the same rows.
            name: of its events.
            make: makes what asks for its rows, if it is the first to watch.

        Raises:
            K2Error: what the first ask raised; TOO_MANY_CALLS.
        """
        self._loop = asyncio.get_running_loop()
        self._check_room(key)
        if key not in self._topics:
            self._topics[key] = _Topic(name, make())
        topic = self._topics[key]
        watcher = Watcher(lambda: self._left(key, topic, watcher))
        topic.watchers.add(watcher)
        try:
            async with topic.began:
                if not topic.has_begun:
                    topic.take(*await self._asked(topic))
                    topic.task = asyncio.create_task(self._poll(topic))
                elif not watcher.has_events:  # it may have waited for the first ask of another
                    watcher.put(topic.backlog())
        except BaseException:
            watcher.leave()
            raise
        return watcher

    def close(self) -> None:
        """Let all watchers go, from any thread."""
        self._closed.set()
        if self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._end)

    def _check_room(self, key: Hashable) -> None:
        watchers = sum(len(topic.watchers) for topic in self._topics.values())
        topics = len(self._topics) - (key in self._topics)
        full = watchers >= limits.EDGE_WATCHERS_MAX or topics >= limits.EDGE_WATCHED_MAX
        if full or self._closed.is_set():
            message = f"{watchers} streams of events are open: ask again later"
            raise Overloaded("TOO_MANY_CALLS", message, retry_after_s=5.0)

    def _left(self, key: Hashable, topic: _Topic, watcher: Watcher) -> None:
        """Forget a watcher, and a topic without one."""
        topic.watchers.discard(watcher)
        if not topic.watchers and self._topics.get(key) is topic:
            del self._topics[key]
            if topic.task is not None:
                topic.task.cancel()

    async def _asked(self, topic: _Topic) -> tuple[list[str], records.Provenance]:
        client = self._connections.client()
        with calling_for(""):  # for all its watchers
            return await self.threads.go_on(lambda: topic.newest.ask(client))

    async def _poll(self, topic: _Topic) -> None:
        """Ask until no one watches."""
        pause = asyncio.Event()  # nothing sets it: a wait for it is a pause
        while True:
            try:
                async with asyncio.timeout(self._poll_s):
                    await pause.wait()
            except TimeoutError:
                pass
            try:
                topic.take(*await self._asked(topic))
            except K2Error as error:
                said = json.dumps(problem_of(error).document())
                topic.send(ServerSentEvent(raw_data=said, event="problem"))

    def _end(self) -> None:
        for topic in self._topics.values():
            for watcher in list(topic.watchers):
                watcher.end()
