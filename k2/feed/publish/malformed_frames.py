"""Publishes malformed frames as dead letters, in a thread of their own.

`DeadLetterTopic.publish` returns when the letters are acknowledged; a feed must not wait for that.
The waiting letters are bounded in number and bytes: beyond the bound the feed stops reading, as it
does when the producer is full.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

from k2 import limits
from k2.errors import K2Error, Unavailable
from k2.feed.venues.source import Malformed
from k2.tape.dead_letter_topic import DeadLetter
from k2.tape.ports import LetterSink

_log = logging.getLogger(__name__)


class DeadLetterPublisher:
    """Takes letters at once and publishes them in order, from `start` to `close`.

    Args:
        sink: where they go.
        feed_id: names this run of the feed; with a sequence number, where a letter came from.

    Attributes:
        published: letters acknowledged so far.
        failure: why none will be published any more.
    """

    def __init__(self, sink: LetterSink, feed_id: str) -> None:
        self.published = 0
        self.failure: K2Error | None = None
        self._sink = sink
        self._feed_id = feed_id
        self._waiting: deque[DeadLetter] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="letters", daemon=True)

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether no more letters should be put in now."""
        return (
            len(self._waiting) >= limits.FEED_LETTERS_MAX
            or self._bytes >= limits.FEED_LETTERS_BYTES_MAX
        )

    def put(self, number: int, malformed: Malformed, frame: bytes, at_us: int) -> None:
        """Take a malformed frame.

        Args:
            number: of the malformed frame in this run.
            malformed: what is wrong with it.
            frame: its bytes.
            at_us: when it came, wall microseconds.
        """
        letter = DeadLetter(
            topic=self._feed_id,
            epoch=0,
            partition=0,
            offset=number,
            schema_id=None,
            fault=malformed.fault,
            error=malformed.error,
            at_us=at_us,
            value=frame,
        )
        with self._changed:
            self._waiting.append(letter)
            self._bytes += len(letter.value or b"")
            self._changed.notify_all()

    def close(self, wait_s: float) -> int:
        """Publish what is there, at most so long; returns how many letters are left."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(wait_s)
        return len(self._waiting)

    def _run(self) -> None:
        while letters := self._next():
            try:
                self._sink.publish(letters, limits.BOARD_WAIT_S)
            except Unavailable as error:
                _log.warning("dead letters wait: %s", error.message)
                continue
            except K2Error as error:
                self.failure = error
                return
            self._done(letters)

    def _next(self) -> list[DeadLetter]:
        """Wait for letters and return them; none when the publisher closes empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return list(self._waiting)

    def _done(self, letters: list[DeadLetter]) -> None:
        with self._changed:
            for letter in letters:
                self._waiting.popleft()
                self._bytes -= len(letter.value or b"")
            self.published += len(letters)
