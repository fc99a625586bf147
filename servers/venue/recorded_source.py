"""Plays a recording: its frames, once, to all listeners, at the pace asked for.

One position for all connections, counted in frames. It stands still while no connection listens.
Stored on disk is the position up to which the kernel at the other end of every connection has
acknowledged the bytes, so a venue that is killed repeats a few frames and skips none. When the last
listener goes, the next one gets the frames that it had not acknowledged.

A frame of trades goes to the listeners of its symbol; any other frame of the file goes to all,
because a feed must survive frames that it did not ask for.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from k2.clock import Clock
from k2.errors import Data, Reason
from k2.feed.recording import Frame, read_frames, traded_symbol
from servers.venue.frames import Form, framed
from servers.venue.hub import Hub, Listener
from servers.venue.state_files import read_document, write_document

_CHUNK_FRAMES = 2000
_BACKLOG_BYTES = 1 << 20  # at speed 0 a connection is given more when it has less than this to take
_KEEP_INTERVAL_S = 0.05
_POLL_S = 0.001
_TICK_MIN_S = 0.002
_IDLE_S = 0.05

_wrapped = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Mark(NamedTuple):
    """A position, and how far each connection has to have acknowledged for it to be safe."""

    position: int
    written: tuple[tuple[Listener, int], ...]


class RecordedSource:
    """Plays a recording.

    Args:
        path: of the recording.
        kept: where the position is kept.
        speed: of the recorded pace; 0 is as fast as the connections take it.
        hub: who listens.
        clock: monotonic time paces.

    Raises:
        NotFound: there is no such recording.
        Invalid: the file is not a recording.
        Data: STAMP_MISMATCH when the position kept is one of another recording.
    """

    def __init__(self, *, path: Path, kept: Path, speed: float, hub: Hub, clock: Clock) -> None:
        self._path = path
        self._kept = kept
        self._speed = speed
        self._hub = hub
        self._clock = clock
        self._identity = _identity(path)
        self._safe = self._load()
        self._saved = self._safe
        self._saved_s = clock.monotonic_s()
        self._marks: deque[_Mark] = deque()
        self._position = 0
        self._frames: Iterator[Frame] = iter(())
        self._next: Frame | None = None
        self._started_s: float | None = None
        self._started_us = 0
        self._rewind()

    @property
    def position(self) -> int:
        """Frames handed over so far."""
        return self._position

    @property
    def safe_position(self) -> int:
        """Frames that every connection has acknowledged."""
        return self._safe

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to play."""
        return self._next is None

    def tick(self) -> float:
        """Play what is due; return the seconds until the next tick is due."""
        audience = self._hub.audience()
        if self._deserted():
            self._rewind()
        self._settle()
        self._keep()
        if not audience:
            self._started_s = None
            return _IDLE_S
        frames = self._due(audience)
        if frames:
            self._play(frames, audience)
        self._flush(audience)
        return self._pause_s(bool(frames))

    def finish(self) -> None:
        """Keep the position for the next run."""
        self._settle()
        self._save(durable=True)

    def _due(self, audience: list[Listener]) -> list[Frame]:
        if self._speed == 0:
            if any(listener.buffered > _BACKLOG_BYTES for listener in audience):
                return []
            return list(self._take(_CHUNK_FRAMES, None))
        now_s = self._clock.monotonic_s()
        if self._started_s is None:
            self._started_s = now_s
            self._started_us = self._next_us()
        reached_us = self._started_us + (now_s - self._started_s) * self._speed * 1e6
        return list(self._take(_CHUNK_FRAMES, reached_us))

    def _take(self, most: int, until_us: float | None) -> Iterator[Frame]:
        while self._next is not None and most > 0:
            time_us = self._next.time_us
            if until_us is not None and time_us is not None and time_us > until_us:
                return
            yield self._next
            self._next = next(self._frames, None)
            most -= 1

    def _next_us(self) -> int:
        return (self._next.time_us or 0) if self._next is not None else 0

    def _play(self, frames: list[Frame], audience: list[Listener]) -> None:
        symbols = [traded_symbol(frame.text) for frame in frames]
        now_us = self._clock.now_us()
        groups: dict[tuple[frozenset[str], Form], list[Listener]] = {}
        for listener in audience:
            key = (listener.subscription.symbols, listener.subscription.form)
            groups.setdefault(key, []).append(listener)
        for (wanted, form), listeners in groups.items():
            texts = [
                frame.text if form.combined else _unwrapped(frame.text)
                for frame, symbol in zip(frames, symbols, strict=True)
                if symbol is None or symbol in wanted
            ]
            parts = [framed(text) for text in texts]
            ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
            data = memoryview(b"".join(parts))
            for listener in listeners:
                listener.send(data, ends, now_us)
        self._position += len(frames)
        written = tuple((listener, listener.written) for listener in audience)
        self._marks.append(_Mark(self._position, written))

    def _flush(self, audience: list[Listener]) -> None:
        for listener in audience:
            if listener.line.busy:
                listener.send(memoryview(b""), np.zeros(0, np.int64), self._clock.now_us())

    def _pause_s(self, played: bool) -> float:
        if self._next is None:
            return _IDLE_S
        if self._speed == 0:
            return 0.0 if played else _POLL_S
        if self._started_s is None or self._next.time_us is None:
            return 0.0
        ahead_s = (self._next.time_us - self._started_us) / 1e6 / self._speed
        due_s = self._started_s + ahead_s - self._clock.monotonic_s()
        return min(max(due_s, _TICK_MIN_S), _IDLE_S)

    def _deserted(self) -> bool:
        """Return whether all who heard the last frames are gone; some may not have taken them."""
        return bool(self._marks) and not any(
            listener.open for listener, _ in self._marks[-1].written
        )

    def _settle(self) -> None:
        """Move the safe position to what all open connections have acknowledged."""
        reached: dict[int, int] = {}
        while self._marks and not self._deserted() and _taken(self._marks[0], reached):
            self._safe = self._marks.popleft().position

    def _keep(self) -> None:
        """Save the safe position, not too often."""
        now_s = self._clock.monotonic_s()
        if self._saved != self._safe and now_s - self._saved_s >= _KEEP_INTERVAL_S:
            self._saved_s = now_s
            self._save(durable=False)

    def _rewind(self) -> None:
        """Stand at the safe position."""
        self._position = self._safe
        self._marks.clear()
        self._frames = islice(read_frames(self._path), self._safe, None)
        self._next = next(self._frames, None)
        self._started_s = None

    def _load(self) -> int:
        document = read_document(self._kept)
        if document is None:
            return 0
        position, identity = document.get("position"), document.get("recording")
        if not isinstance(position, int) or position < 0 or identity != self._identity:
            raise Data(
                Reason.STAMP_MISMATCH,
                f"{self._kept} is the position in another recording than {self._path}:"
                " play that one, or use another data directory",
            )
        return position

    def _save(self, *, durable: bool) -> None:
        document = {"recording": self._identity, "position": self._safe}
        write_document(self._kept, document, durable=durable)
        self._saved = self._safe


def _taken(mark: _Mark, reached: dict[int, int]) -> bool:
    """Return whether all open connections have acknowledged a mark; `reached` caches answers."""
    for listener, written in mark.written:
        if listener.open:
            if listener.number not in reached:
                reached[listener.number] = listener.acknowledged
            if reached[listener.number] < written:
                return False
    return True


def _identity(path: Path) -> str:
    """Identify a recording by its content, independent of its path and compression."""
    first = next(iter(read_frames(path)), None)
    return hashlib.sha256(first.text.encode() if first else b"").hexdigest()


def _unwrapped(text: str) -> str:
    """Return the event of a combined frame; any other text as it is."""
    if not text.startswith('{"stream":'):
        return text
    try:
        return bytes(_wrapped.decode(text)["data"]).decode()
    except (msgspec.DecodeError, KeyError, RecursionError):
        return text
