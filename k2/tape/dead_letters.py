"""Records that K2 could not take, one by one, with their bytes and the place they came from.

A letter's value is the original value, untouched; everything else is in headers, so a letter can be
read without any schema and put back as it was. A writer that is killed between publishing and
committing publishes again: readers take a position once, whatever the number of its letters.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from k2 import limits
from k2.errors import Reason, Unavailable
from k2.market.events import Fault
from k2.tape import topics
from k2.tape.board import read_topic
from k2.tape.client import translate
from k2.tape.producer import producer_configuration


@dataclass(frozen=True)
class DeadLetter:
    """One record that is not a row.

    Attributes:
        topic, epoch, partition, offset: where it sits on the tape.
        schema_id: the one it names; None when it names none.
        fault: what is wrong with it.
        error: the same for a person.
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


class DeadLetterOffice:
    """Publishes and reads letters. Thread-safe.

    Args:
        bootstrap: of the tape.
        topic: where letters are kept.
    """

    def __init__(self, bootstrap: str, topic: str = topics.DEAD_LETTERS) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        size_max = limits.DEAD_LETTER_BYTES_MAX + limits.MESSAGE_OVERHEAD_BYTES_MAX
        self._producer = Producer(
            producer_configuration(
                bootstrap,
                message_max_bytes=size_max,
                queue_buffering_max_kbytes=4 * size_max // limits.KIB,
            )
        )

    def publish(self, letters: Sequence[DeadLetter], wait_s: float = limits.BOARD_WAIT_S) -> None:
        """Publish letters; returns when every one is acknowledged.

        Raises:
            Unavailable: not all were acknowledged within `wait_s`; publish them again.
        """
        if not letters:
            return
        receipt = _Receipt(len(letters))
        for letter in letters:
            self._produce(letter, receipt, wait_s)
        if self._producer.flush(wait_s) == 0:
            receipt.done.wait(wait_s)  # another thread's flush may be delivering it just now
        if receipt.error is not None:
            raise translate(receipt.error, "dead letters were not acknowledged")
        if not receipt.done.is_set():
            self._producer.purge(in_flight=False)
            raise _unacknowledged(wait_s)

    def _produce(self, letter: DeadLetter, receipt: _Receipt, wait_s: float) -> None:
        value = letter.value
        for _ in range(2):
            try:
                self._producer.produce(
                    self._topic,
                    None if value is None else value[: limits.DEAD_LETTER_BYTES_MAX],
                    f"{letter.topic}/{letter.epoch}/{letter.partition}/{letter.offset}",
                    0,
                    on_delivery=receipt.acknowledge,
                    headers=headers_of(letter),
                )
            except BufferError:
                self._producer.flush(wait_s)
            except KafkaException as error:
                raise translate(error, "cannot publish a dead letter") from error
            else:
                return
        raise _unacknowledged(wait_s)

    def read_all(self) -> Iterator[DeadLetter]:
        """Every letter retained, up to the end of the topic at the call; positions may repeat.

        Raises:
            Unavailable: TAPE_UNAVAILABLE.
        """
        for message in read_topic(self._bootstrap, self._topic):
            yield letter_of(message)

    def close(self) -> None:
        """Let the connection go; every published letter is acknowledged already."""
        self._producer.close()


class _Receipt:
    def __init__(self, awaited: int) -> None:
        self.error: KafkaError | None = None
        self.done = threading.Event()
        self._left = awaited

    def acknowledge(self, error: KafkaError | None, _message: Message) -> None:
        self.error = self.error or error
        self._left -= 1
        if self._left == 0:
            self.done.set()


def _unacknowledged(wait_s: float) -> Unavailable:
    return Unavailable(
        Reason.TAPE_UNAVAILABLE,
        f"dead letters were not acknowledged within {wait_s} s",
        retry_after_s=limits.RECONNECT_MAX_S,
    )


def headers_of(letter: DeadLetter) -> dict[str, str | bytes | None]:
    """What a letter's message says beside its value."""
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


def letter_of(message: Message) -> DeadLetter:
    """The letter that a message holds."""
    headers: Any = message.headers() or []  # a list of (name, bytes), whatever was given
    texts = {name: value.decode() for name, value in headers}
    return DeadLetter(
        topic=texts["topic"],
        epoch=int(texts["epoch"]),
        partition=int(texts["partition"]),
        offset=int(texts["offset"]),
        schema_id=int(texts["schema_id"]) if texts["schema_id"] else None,
        fault=Fault[texts["fault"]],
        error=texts["error"],
        at_us=int(texts["at_us"]),
        value=message.value(),
    )
