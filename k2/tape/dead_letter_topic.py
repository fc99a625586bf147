"""Records that K2 could not take, one by one, with their bytes and the place they came from.

A letter's value is the original value, untouched; everything else is in headers, so a letter can be
read without any schema and put back as it was. A writer that is killed between publishing and
committing publishes again: readers take a position once, whatever the number of its letters.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from k2 import limits
from k2.market.events import TIME_MAX_US, Fault
from k2.metrics import counter
from k2.tape import topics
from k2.tape.producer import Delivery, Record
from k2.tape.topic_reader import read_topic

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]

_log = logging.getLogger(__name__)
_DEAD_LETTERS = counter(
    "k2_dead_letters_total", "Dead letters published, acknowledged, again after a kill.", "fault"
)


@dataclass(frozen=True)
class DeadLetter:
    """One record that is not a row.

    Attributes:
        topic, epoch, partition, offset: where it sits on the tape.
        schema_id: the one it names; None when it names none.
        fault: what is wrong with it.
        error: the same in words.
        at_us: when it was judged, wall microseconds.
        value: its bytes, at most `limits.DEAD_LETTER_BYTES_MAX` of them; None when it had none.
    """

    topic: str
    epoch: int
    partition: int
    offset: int
    schema_id: int | None
    fault: Fault
    error: str
    at_us: int
    value: bytes | None

    @property
    def name(self) -> str:
        """Its name everywhere: `topic/epoch/partition/offset`."""
        return f"{self.topic}/{self.epoch}/{self.partition}/{self.offset}"


class Posted(NamedTuple):
    """A letter and its own offset on the topic of letters."""

    offset: int
    letter: DeadLetter


class DeadLetterTopic:
    """Publishes and reads letters. Thread-safe."""

    def __init__(self, bootstrap: str, topic: str = topics.DEAD_LETTERS) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._delivery = Delivery(bootstrap, topic, limits.DEAD_LETTER_BYTES_MAX)

    def publish(self, letters: Sequence[DeadLetter], wait_s: float = limits.BOARD_WAIT_S) -> None:
        """Publish letters; returns when every one is acknowledged.

        Raises:
            Unavailable: not all were acknowledged within `wait_s`; publish them again.
        """
        self._delivery.send([_record_of(letter) for letter in letters], wait_s)
        for letter in letters:
            _DEAD_LETTERS.labels(letter.fault.name).inc()

    def read_all(self) -> Iterator[DeadLetter]:
        """Read every letter retained, up to the end of the topic at the call; positions may repeat.

        Raises:
            Unavailable: TAPE_UNAVAILABLE.
        """
        return (posted.letter for posted in self.read_posted())

    def read_posted(self, start: int = 0) -> Iterator[Posted]:
        """Read the letters from an offset on, with their own offsets, as `read_all` does.

        A record that is no letter is passed over.
        """
        for message in read_topic(self._bootstrap, self._topic, start):
            offset = message.offset() or 0
            letter = read_letter(message.headers(), message.value())  # type: ignore[arg-type]
            if letter is None:
                _log.warning("%s@%s is no letter", self._topic, offset)
            else:
                yield Posted(offset, letter)

    def close(self) -> None:
        """Close the connection; every published letter is acknowledged already."""
        self._delivery.close()


def _record_of(letter: DeadLetter) -> Record:
    value = letter.value
    return Record(
        letter.name,
        None if value is None else value[: limits.DEAD_LETTER_BYTES_MAX],
        headers_of(letter),
    )


def headers_of(letter: DeadLetter) -> dict[str, str | bytes | None]:
    """Return the headers of a letter's message."""
    return {
        "topic": letter.topic,
        "epoch": str(letter.epoch),
        "partition": str(letter.partition),
        "offset": str(letter.offset),
        "schema_id": "" if letter.schema_id is None else str(letter.schema_id),
        "fault": letter.fault.name,
        "error": letter.error[: limits.KIB],
        "at_us": str(letter.at_us),
    }


def read_letter(headers: Headers | None, value: bytes | None) -> DeadLetter | None:
    """Read the letter that a message holds; None when it is not one of K2."""
    try:
        texts = {name: (content or b"").decode() for name, content in headers or ()}
        letter = DeadLetter(
            topic=texts["topic"],
            epoch=int(texts["epoch"]),
            partition=int(texts["partition"]),
            offset=int(texts["offset"]),
            schema_id=int(texts["schema_id"]) if texts["schema_id"] else None,
            fault=Fault[texts["fault"]],
            error=texts["error"],
            at_us=int(texts["at_us"]),
            value=value,
        )
    except (KeyError, ValueError):
        return None
    small = max(letter.epoch, letter.partition) < 2**31 and letter.offset < 2**63
    positive = min(letter.epoch, letter.partition, letter.offset, letter.at_us) >= 0
    named = 0 <= (letter.schema_id or 0) < 2**32
    return letter if small and positive and named and letter.at_us <= TIME_MAX_US else None
