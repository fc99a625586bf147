"""A compacted topic: the newest JSON document of each key.

Processes share small state that must survive them through compacted topics: the partition map,
heartbeats, coverage. A topic can be read to its present end, read on from there, or followed in the
background.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from k2 import limits
from k2.errors import Overloaded, Reason, Unavailable
from k2.tape.kafka_client import retry_transient, translate
from k2.tape.producer import Receipt, producer_configuration
from k2.tape.topic_reader import READ_RECORDS, TopicEnd, read_to, read_topic, reader_of, silence

Document: TypeAlias = dict[str, Any]

_OFFSET_BEGINNING = -2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class News:
    """Records that a `LogReader` had not given yet.

    Attributes:
        records: keys and documents, oldest first; None where a key was taken away, or has what is
            no document.
        from_start: whether they begin at the start of the topic: what was given before is void.
    """

    records: Sequence[tuple[str, Document | None]]
    from_start: bool


class CompactedTopic:
    """One compacted topic of one partition. Thread-safe.

    Attributes:
        skipped: records that readers of its log could not use.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._changed = threading.Condition()
        self._producer: Producer | None = None
        self._follower: _Follower | None = None
        self._listeners: list[Callable[[str], None]] = []
        self._readers: list[LogReader] = []
        self._closed = False
        self.skipped = 0

    def put(self, key: str, value: Mapping[str, Any] | None, wait_s: float | None = None) -> None:
        """Make `value` the newest of `key`; None takes the key away.

        Args:
            key: which document.
            value: what can be written as JSON.
            wait_s: wait for the acknowledgement, at most so long; None does not wait.

        Raises:
            Unavailable: not acknowledged in time; it may still arrive.
            Overloaded: QUEUE_FULL when the broker has been away for very many puts.
            Invalid: LIMIT_OUT_OF_BOUNDS when the document is too large.
        """
        producer = self._connected()
        content = None if value is None else json.dumps(value).encode()
        receipt = Receipt(self._topic, 1)
        try:
            producer.produce(self._topic, content, key, 0, on_delivery=receipt.acknowledge)
        except BufferError as error:
            producer.poll(0)
            raise Overloaded(
                Reason.QUEUE_FULL,
                f"{self._topic} takes no more until the broker is back",
                retry_after_s=limits.RECONNECT_MAX_S,
            ) from error
        except KafkaException as error:
            raise translate(error, f"cannot write to {self._topic}") from error
        producer.poll(0)
        if wait_s is not None:
            receipt.wait(producer, wait_s)
            receipt.check(wait_s)

    def read_log(self) -> list[tuple[str, Document | None]]:
        """Read every record retained, oldest first, up to the topic's end at the call.

        Raises:
            Unavailable: TAPE_UNAVAILABLE.
        """
        return [
            record
            for message in read_topic(self._bootstrap, self._topic)
            if (record := parse(message)) is not None
        ]

    def read_all(self) -> dict[str, Document]:
        """Read the newest document of each key, up to the topic's end at the call."""
        documents: dict[str, Document] = {}
        for key, value in self.read_log():
            apply(documents, key, value)
        return documents

    def log_reader(self) -> LogReader:
        """Open a reader of every record retained and of those that follow, until `close`."""
        reader = LogReader(self._bootstrap, self._topic, self.skip)
        with self._changed:
            self._readers.append(reader)
        return reader

    def skip(self, key: str, why: str) -> None:
        """Count a record that a reader of the log cannot use, and say so in the log."""
        _log.error("a record of %s is skipped: %s", self._topic, why, extra={"key": key})
        with self._changed:
            self.skipped += 1

    def start(self) -> None:
        """Follow the topic from now to `close`; returns at once."""
        with self._changed:
            if self._follower is None and not self._closed:
                self._follower = _Follower(self._bootstrap, self._topic, self._listeners)
                self._follower.start()

    def current(self) -> dict[str, Document]:
        """Return the newest document of each key as far as followed; start following if need be.

        The first call waits until what was on the topic has been read (at most
        `limits.BOARD_WAIT_S`; with the broker away it answers what it has).
        """
        return self._following().current()

    def current_to_end(self) -> dict[str, Document]:
        """Return the newest document of each key, followed to the topic's end at the call.

        Raises:
            Unavailable: TAPE_UNAVAILABLE when that end is not known, or not reached in
                `limits.BOARD_WAIT_S`.
        """
        return self._following().current_to_end()

    @property
    def version(self) -> int:
        """A number that grows with each change."""
        return self._following().version

    def wait_change(self, version: int, timeout_s: float) -> int:
        """Wait until the version is above `version`, at most so long; returns the version."""
        return self._following().wait_change(version, timeout_s)

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the key of each document that comes while the topic is followed.

        Args:
            listener: not called for documents from before following began. Called in the
                follower's thread: it must be quick and raise nothing.
        """
        self._listeners.append(listener)

    def close(self, drain_s: float = limits.DRAIN_S) -> None:
        """Send what was put, for at most so long; stop following."""
        with self._changed:
            self._closed = True
            producer, follower, readers = self._producer, self._follower, self._readers
        if follower is not None:
            follower.close()
        for reader in readers:
            reader.close()
        if producer is not None:
            producer.flush(drain_s)
            producer.purge()
            producer.close()

    def _connected(self) -> Producer:
        with self._changed:
            if self._closed:
                raise Unavailable(Reason.DRAINING, f"the board {self._topic} is closed")
            if self._producer is None:
                size_max = limits.RECORD_BYTES_MAX + limits.MESSAGE_OVERHEAD_BYTES_MAX
                self._producer = Producer(
                    producer_configuration(
                        self._bootstrap,
                        queue_buffering_max_messages=limits.BOARD_RECORDS_MAX,
                        message_max_bytes=size_max,
                    )
                )
            return self._producer

    def _following(self) -> _Follower:
        self.start()
        if self._follower is None:
            raise Unavailable(Reason.DRAINING, f"the board {self._topic} is closed")
        return self._follower


class LogReader:
    """Reads a topic's records in their order, on from where it was. Thread-safe.

    Args:
        bootstrap, topic: as of `CompactedTopic`.
        skip: is given the key of a record that is no document, and what is wrong.
    """

    def __init__(self, bootstrap: str, topic: str, skip: Callable[[str, str], None]) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._skip = skip
        self._lock = threading.Lock()
        self._closed = False
        self._consumer: Consumer | None = None
        self._ends = TopicEnd(bootstrap, topic)
        self._reached = 0
        self._records: list[tuple[str, Document | None]] = []
        self._from_start = True

    def advance(self) -> News:
        """Read the records not returned yet, up to the topic's end at the call.

        It costs one request for that end; nothing is read while the end is where it was.

        Raises:
            Unavailable: TAPE_UNAVAILABLE; nothing is lost, call it again.
        """
        with self._lock:
            consumer = self._connected()
            end = retry_transient(self._ends.ask)
            if end < self._reached:  # the topic was made again
                consumer.assign([TopicPartition(self._topic, 0, _OFFSET_BEGINNING)])
                self._records, self._reached, self._from_start = [], 0, True
            read_to(end, self._topic, self._reached, lambda: self._read(consumer))
            news = News(self._records, self._from_start)
            self._records, self._from_start = [], False
            return news

    def close(self) -> None:
        """Close the connection, unless a read that waits for the broker holds it."""
        self._closed = True
        if not self._lock.acquire(timeout=2 * limits.TAPE_RETRY_S):
            return
        try:
            self._ends.close()
            if self._consumer is not None:
                self._consumer.close()
        finally:
            self._lock.release()

    def _connected(self) -> Consumer:
        if self._closed:
            raise Unavailable(Reason.DRAINING, f"the board {self._topic} is closed")
        if self._consumer is None:
            self._consumer = reader_of(self._bootstrap, self._topic)
        return self._consumer

    def _read(self, consumer: Consumer) -> int:
        self._connected()
        first = consumer.consume(1, limits.TAPE_RETRY_S)  # more: it would wait for them all
        for message in first + consumer.consume(READ_RECORDS, 0):
            self._take(message)
        return self._reached

    def _take(self, message: Message) -> None:
        offset, error = message.offset() or 0, message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                self._reached = max(self._reached, offset)
            return
        self._reached = offset + 1
        record = parse(message)
        if record is None:
            name = (message.key() or b"").decode(errors="replace")
            self._skip(name, "it is no JSON document with a key")
            record = name, None
        self._records.append(record)


class _Follower:
    """Reads a topic in a thread of its own until it is closed."""

    def __init__(
        self, bootstrap: str, topic: str, listeners: Sequence[Callable[[str], None]]
    ) -> None:
        self._consumer = reader_of(bootstrap, topic)
        self._listeners = listeners
        self._changed = threading.Condition()
        self._documents: dict[str, Document] = {}
        self.version = 0
        self._reached = 0
        self._topic = topic
        self._ends = TopicEnd(bootstrap, topic)
        self._caught_up = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"board {topic}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def current(self) -> dict[str, Document]:
        self._caught_up.wait(limits.BOARD_WAIT_S)
        with self._changed:
            return dict(self._documents)

    def current_to_end(self) -> dict[str, Document]:
        end = self._ends.ask()
        with self._changed:
            if not self._changed.wait_for(lambda: self._reached >= end, limits.BOARD_WAIT_S):
                raise silence(self._topic)
            return dict(self._documents)

    def wait_change(self, version: int, timeout_s: float) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self.version > version, timeout_s)
            return self.version

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._ends.close()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for message in self._consumer.consume(1, 0.1) + self._consumer.consume(
                    READ_RECORDS, 0
                ):
                    self._take(message)
        finally:
            self._consumer.close()

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                self._reach(message.offset())
                self._caught_up.set()
            return
        record = parse(message)
        if record is not None:
            with self._changed:
                apply(self._documents, *record)
                self.version += 1
        self._reach((message.offset() or 0) + 1)
        if record is not None and self._caught_up.is_set():
            for listener in self._listeners:
                listener(record[0])

    def _reach(self, offset: int | None) -> None:
        with self._changed:
            self._reached = max(self._reached, offset or 0)
            self._changed.notify_all()


def parse(message: Message) -> tuple[str, Document | None] | None:
    """Read key and document; None for a record that is neither K2's nor JSON."""
    try:
        key = (message.key() or b"").decode()
        content = message.value()
        value = None if content is None else json.loads(content)
    except ValueError:
        key, value = "", 0
    if key and (value is None or isinstance(value, dict)):
        return key, value
    _log.warning("a record of %s is not a document", message.topic())
    return None


def apply(documents: dict[str, Document], key: str, value: Document | None) -> None:
    """Put a record's document in its place; None takes it away."""
    if value is None:
        documents.pop(key, None)
    else:
        documents[key] = value
