"""Records that must be acknowledged before their sender goes on, a few at a time."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from k2 import limits
from k2.errors import Reason, Unavailable
from k2.tape.client import translate
from k2.tape.producer import producer_configuration


class Record(NamedTuple):
    """What is sent to partition 0 of a topic."""

    key: str
    value: bytes | None
    headers: Mapping[str, str | bytes | None] | None = None


class Delivery:
    """Sends records to one topic of one partition. Thread-safe.

    Args:
        bootstrap: of the tape.
        topic: a name of `topics.py`.
        record_bytes_max: of one record.
    """

    def __init__(self, bootstrap: str, topic: str, record_bytes_max: int) -> None:
        self._topic = topic
        size_max = record_bytes_max + limits.MESSAGE_OVERHEAD_BYTES_MAX
        self._producer = Producer(
            producer_configuration(
                bootstrap,
                message_max_bytes=size_max,
                queue_buffering_max_kbytes=4 * size_max // limits.KIB,
            )
        )

    def send(self, records: Sequence[Record], wait_s: float) -> None:
        """Send records; returns when every one is acknowledged.

        Raises:
            Unavailable: not all were acknowledged within `wait_s`; send them again.
            Invalid: LIMIT_OUT_OF_BOUNDS when one is larger than a record may be.
        """
        if not records:
            return
        receipt = Receipt(self._topic, len(records))
        for record in records:
            self._produce(record, receipt, wait_s)
        receipt.wait(self._producer, wait_s)
        if receipt.error is None and not receipt.done.is_set():
            self._producer.purge(in_flight=False)
        receipt.check(wait_s)

    def close(self) -> None:
        """Let the connection go; every record sent is acknowledged already."""
        self._producer.close()

    def _produce(self, record: Record, receipt: Receipt, wait_s: float) -> None:
        for _ in range(2):
            try:
                self._producer.produce(
                    self._topic,
                    record.value,
                    record.key,
                    0,
                    on_delivery=receipt.acknowledge,
                    headers=None if record.headers is None else dict(record.headers),
                )
            except BufferError:
                self._producer.flush(wait_s)
            except KafkaException as error:
                raise translate(error, f"cannot send to {self._topic}") from error
            else:
                return
        raise _unacknowledged(self._topic, wait_s)


class Receipt:
    """Whether a topic took some records.

    Attributes:
        error: of the first that was refused.
        done: set once all were taken or refused.
    """

    def __init__(self, topic: str, awaited: int) -> None:
        self.error: KafkaError | None = None
        self.done = threading.Event()
        self._topic = topic
        self._left = awaited

    def acknowledge(self, error: KafkaError | None, _message: Message) -> None:
        """What the client calls for each record."""
        self.error = self.error or error
        self._left -= 1
        if self._left == 0:
            self.done.set()

    def wait(self, producer: Producer, wait_s: float) -> None:
        """Wait until all were taken or refused, at most about so long."""
        if producer.flush(wait_s) == 0:
            self.done.wait(wait_s)  # another thread may be delivering them just now

    def check(self, waited_s: float) -> None:
        """Refuse to go on unless all were taken.

        Raises:
            Unavailable: not all were acknowledged.
            Invalid: LIMIT_OUT_OF_BOUNDS when one is larger than a record may be.
        """
        if self.error is not None:
            raise translate(self.error, f"{self._topic} did not take a record")
        if not self.done.is_set():
            raise _unacknowledged(self._topic, waited_s)


def _unacknowledged(topic: str, waited_s: float) -> Unavailable:
    return Unavailable(
        Reason.TAPE_UNAVAILABLE,
        f"{topic} did not acknowledge within {waited_s} s",
        retry_after_s=limits.RECONNECT_MAX_S,
    )
