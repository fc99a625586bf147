"""Reads topics of one partition: their end, their records up to it, and on from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from k2 import limits
from k2.errors import Reason, Unavailable
from k2.tape.kafka_client import SharedAnswer, configuration, retry_transient, translate

_OFFSET_BEGINNING = -2
READ_RECORDS = 1000  # at most, in one read
_SILENT_MAX = round(limits.BOARD_WAIT_S / limits.TAPE_RETRY_S)  # reads in a row that give nothing


def reader_of(bootstrap: str, topic: str, start: int = _OFFSET_BEGINNING) -> Consumer:
    """Open a consumer of partition 0 of a topic, by default from its start, that reports EOF."""
    consumer = Consumer(
        configuration(
            bootstrap,
            group_id="k2-reader",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            enable_partition_eof=True,
            fetch_wait_max_ms=int(limits.FETCH_WAIT_S * 1000),
            queued_max_messages_kbytes=limits.FETCH_QUEUE_BYTES_MAX // limits.KIB,
        )
    )
    consumer.assign([TopicPartition(topic, 0, start)])
    return consumer


def read_topic(bootstrap: str, topic: str, start: int = 0) -> Iterator[Message]:
    """Read every record of partition 0 of a topic from an offset on, up to its end at the call.

    Raises:
        Unavailable: TAPE_UNAVAILABLE when the broker is away or falls silent.
    """
    consumer = reader_of(bootstrap, topic, start or _OFFSET_BEGINNING)
    try:
        end = retry_transient(lambda: log_end(consumer, topic))
        reached, silent = start, 0
        while reached < end:
            before = reached
            for message in consumer.consume(READ_RECORDS, limits.TAPE_RETRY_S):
                error = message.error()
                reached = max(reached, (message.offset() or 0) + (error is None))
                if error is None and reached <= end:
                    yield message
            silent = silent + 1 if reached == before else 0
            if silent >= _SILENT_MAX:
                raise silence(topic)
    finally:
        consumer.close()


def read_to(end: int, topic: str, reached: int, read: Callable[[], int]) -> None:
    """Read until a position of a topic is reached.

    Args:
        end: the position.
        topic: named by the error.
        reached: the position before the first read.
        read: reads what there is; returns the position reached.

    Raises:
        Unavailable: TAPE_UNAVAILABLE when the broker falls silent before the end.
    """
    silent = 0
    while reached < end:
        before, reached = reached, read()
        silent = silent + 1 if reached == before else 0
        if silent >= _SILENT_MAX:
            raise silence(topic)


def silence(topic: str) -> Unavailable:
    """Make the error of a topic that gives no records before its end."""
    return Unavailable(
        Reason.TAPE_UNAVAILABLE,
        f"{topic} gives nothing before its end",
        retry_after_s=limits.RECONNECT_MAX_S,
    )


def log_end(consumer: Consumer, topic: str) -> int:
    """Ask once for the offset that the next record of partition 0 will get.

    Raises:
        Unavailable: TAPE_UNAVAILABLE.
    """
    try:
        answer = consumer.get_watermark_offsets(
            TopicPartition(topic, 0), timeout=limits.TAPE_REQUEST_S
        )
    except KafkaException as error:
        raise translate(error, f"cannot read {topic}") from error
    if answer is None:
        raise Unavailable(Reason.TAPE_UNAVAILABLE, f"the end of {topic} is not known")
    return answer[1]


class TopicEnd:
    """Asks where a topic of one partition ends. Thread-safe.

    It has a connection of its own: on a reader's, the request would wait behind a fetch that waits
    for records, and a consumer that another thread reads with may never answer it. Calls that wait
    together share an answer.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._answer = SharedAnswer(lambda: log_end(self._connected(), self._topic))
        self._consumer: Consumer | None = None
        self._closed = False

    def ask(self) -> int:
        """Return the offset that the next record will get.

        Raises:
            Unavailable: TAPE_UNAVAILABLE.
        """
        return self._answer.ask()

    def close(self) -> None:
        """Close the connection, unless a question that waits for the broker holds it."""
        self._closed = True
        if self._answer.asking.acquire(timeout=2 * limits.TAPE_RETRY_S):
            if self._consumer is not None:
                self._consumer.close()
            self._answer.asking.release()

    def _connected(self) -> Consumer:
        if self._closed:
            raise Unavailable(Reason.DRAINING, f"the board {self._topic} is closed")
        if self._consumer is None:
            self._consumer = Consumer(
                configuration(self._bootstrap, group_id="k2-reader", enable_auto_commit=False)
            )
        return self._consumer
