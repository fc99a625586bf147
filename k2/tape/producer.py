"""Puts records on the tape: idempotent, in order, and never dropping one silently.

A record that was taken by `send` ends in exactly one call of its `on_ack`, with the offset it got
or with the error that stopped it. A broker that is away only makes that late: librdkafka keeps the
queue and sends it, in order and once, when the broker is back. The queue is bounded, so a broker
that stays away ends in QUEUE_FULL at `send`, not in memory.

`Delivery` sends few records at a time and returns when the broker has acknowledged them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypeAlias

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from k2 import limits
from k2.errors import Invalid, K2Error, Overloaded, Reason, Unavailable
from k2.metrics import SWITCH, exported, histogram
from k2.settings import TapeSettings
from k2.tape.kafka_client import configuration, translate
from k2.telemetry import Counter, Gauge

OnAck: TypeAlias = Callable[[int | None, K2Error | None], None]

_TIMED_EVERY = 16  # records: one in so many is observed
_PRODUCE_SECONDS = histogram(
    "k2_produce_seconds",
    "Time from taking a trade's record to its acknowledgement, of one in 16.",
)


@dataclass(frozen=True)
class ProducerStats:
    """Counters of a producer of trades since its start."""

    records: Annotated[
        Counter, exported("k2_produce_records_total", "Records of trades taken for the tape.")
    ]
    bytes: Annotated[
        Counter, exported("k2_produce_bytes_total", "Bytes of their values, not compressed.")
    ]
    errors: Annotated[
        Counter, exported("k2_produce_errors_total", "Records that were refused or given up.")
    ]
    queue_records: Annotated[
        Gauge, exported("k2_produce_queue_records", "Records taken and not yet acknowledged.")
    ]


class TapeProducer:
    """A producer for the trades topic.

    `send`, `poll`, `flush` and `close` may be called from several threads; acknowledgements are
    delivered inside `poll` and `flush`.

    Args:
        tape: where the tape is.
        queue_max: records taken and not yet acknowledged, at most.

    Attributes:
        failure: why this producer can send no more, if so: it must be replaced by a new one.
    """

    failure: K2Error | None = None

    def __init__(self, tape: TapeSettings, queue_max: int = limits.FEED_QUEUE_RECORDS_MAX) -> None:
        self._topic = tape.topic
        self._records = self._bytes = self._errors = 0
        self._closed = threading.Event()
        self._producer = Producer(
            producer_configuration(
                tape.bootstrap,
                queue_buffering_max_messages=queue_max,
                queue_buffering_max_kbytes=limits.PRODUCER_QUEUE_BYTES_MAX // limits.KIB,
                error_cb=self.note,
            )
        )

    def send(
        self,
        key: bytes,
        value: bytes,
        partition: int,
        headers: Mapping[str, bytes] | None = None,
        on_ack: OnAck | None = None,
    ) -> None:
        """Take a record for a partition; returns before it is acknowledged.

        Args:
            key: `EXCHANGE:SYMBOL`.
            value: what `codec.encode_trade` made.
            partition: where it belongs (`partition_map.py`).
            headers: for tracing.
            on_ack: called from `poll` with (offset, None) or (None, error), once.

        Raises:
            Overloaded: QUEUE_FULL; poll, then try again.
            Invalid: LIMIT_OUT_OF_BOUNDS when it is larger than a record may be.
            Unavailable, Data: the `failure` that ended this producer.
        """
        if self.failure is not None:
            raise self.failure
        if len(value) > limits.RECORD_BYTES_MAX:
            raise Invalid(
                Reason.LIMIT_OUT_OF_BOUNDS,
                f"a record of {len(value)} bytes; at most {limits.RECORD_BYTES_MAX} are allowed",
            )
        try:
            self._producer.produce(
                self._topic,
                value,
                key,
                partition,
                on_delivery=None if on_ack is None else self._delivery(on_ack),
                headers=list(headers.items()) if headers else None,
            )
        except BufferError as error:
            raise Overloaded(
                Reason.QUEUE_FULL,
                "the producer's queue is full: the broker is slower than the feed, or away",
                retry_after_s=limits.PRODUCER_LINGER_S,
            ) from error
        except KafkaException as error:
            raise translate(error, f"cannot send to {self._topic}") from error
        self._records += 1
        self._bytes += len(value)

    def stats(self) -> ProducerStats:
        """Count what was sent."""
        return ProducerStats(self._records, self._bytes, self._errors, self.depth())

    def _delivery(self, on_ack: OnAck) -> Callable[[KafkaError | None, Message], None]:
        timed = self._records % _TIMED_EVERY == 0
        exemplar = (timed and SWITCH.exemplar()) or {}  # of what is sent, not of what polls

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                if timed:
                    _PRODUCE_SECONDS.observe(message.latency() or 0.0, exemplar)
                on_ack(message.offset(), None)
            else:
                self._errors += 1
                on_ack(None, translate(error, "a record was not acknowledged"))

        return delivered

    def poll(self, timeout_s: float = 0.0) -> int:
        """Deliver acknowledgements that have arrived; returns how many events were served."""
        return self._producer.poll(timeout_s)

    def depth(self) -> int:
        """Count the records taken and not yet acknowledged."""
        return len(self._producer)

    def flush(self, timeout_s: float) -> int:
        """Wait until everything is acknowledged, at most so long; returns how many are not."""
        return self._producer.flush(timeout_s)

    def close(self, drain_s: float = limits.DRAIN_S) -> None:
        """Flush, at most so long; what is left then is reported to its `on_ack` as an error."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._producer.flush(drain_s):
            self._producer.purge()
            self._producer.flush(limits.TAPE_RETRY_S)
        self._producer.close()

    def note(self, error: KafkaError) -> None:
        """Remember a fatal error; librdkafka calls this, other errors pass by themselves."""
        if error.fatal():
            self.failure = translate(error, f"the producer of {self._topic} has failed for good")


def producer_configuration(bootstrap: str, **more: object) -> dict[str, object]:
    """Make a producer's settings: idempotent, acknowledged by all replicas, without timeout."""
    return configuration(
        bootstrap,
        **{
            "enable_idempotence": True,
            "acks": "all",
            "compression_type": "lz4",
            "linger_ms": limits.PRODUCER_LINGER_S * 1000,
            "message_timeout_ms": 0,
            "message_max_bytes": limits.RECORD_BYTES_MAX + limits.MESSAGE_OVERHEAD_BYTES_MAX,
            "request_timeout_ms": int(limits.TAPE_REQUEST_S * 1000),
        }
        | more,
    )


class Record(NamedTuple):
    """A record for partition 0 of a topic."""

    key: str
    value: bytes | None
    headers: Mapping[str, str | bytes | None] | None = None


class Delivery:
    """Sends records to one topic of one partition. Thread-safe."""

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
        """Close the connection; every record sent is acknowledged already."""
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
    """The broker's answers to some records.

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
        """Take the broker's answer to one record; the client calls it."""
        self.error = self.error or error
        self._left -= 1
        if self._left == 0:
            self.done.set()

    def wait(self, producer: Producer, wait_s: float) -> None:
        """Wait until all were taken or refused, at most about so long."""
        if producer.flush(wait_s) == 0:
            self.done.wait(wait_s)  # another thread may be delivering them

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
