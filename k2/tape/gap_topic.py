"""The ledger of gaps on the tape: every event of every missing trade id, in order.

The topic is not compacted, because an event paints over only the ids it names. A process appends
events and reads the log on from where it was. The order of the log is the only one that all feeds
share, so a process counts an event of its own when it reads it back. The lake stores the events as
rows of `ops.gaps`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

from confluent_kafka import Consumer, Message

from k2 import limits
from k2.errors import Invalid, Reason
from k2.market import schema
from k2.market.events import Fault
from k2.market.ledger import GapEvent, check_gap, gap_of
from k2.tape import topics
from k2.tape.avro.record_codec import RecordCodec
from k2.tape.kafka_client import retry_transient
from k2.tape.ports import Schemas
from k2.tape.producer import Delivery, Record
from k2.tape.topic_reader import READ_RECORDS, log_end, read_to, reader_of

_log = logging.getLogger(__name__)


class GapLog:
    """Publishes and reads gap events. One thread reads; any may publish.

    Args:
        bootstrap: of the tape.
        schemas: registers the event's schema at the first event published, and reads it.
        topic: where they are kept.
    """

    def __init__(self, bootstrap: str, schemas: Schemas, topic: str = topics.GAPS) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._schemas = schemas
        self._schema_id: int | None = None
        self._codec = RecordCodec(schema.GAP, schemas)
        self._delivery = Delivery(bootstrap, topic, limits.RECORD_BYTES_MAX)
        self._consumer: Consumer | None = None
        self._messages: deque[Message] = deque()
        self._events: list[GapEvent] = []
        self._reached = 0

    def publish(self, events: Sequence[GapEvent], wait_s: float = limits.BOARD_WAIT_S) -> None:
        """Publish events in their order; returns when every one is acknowledged.

        Raises:
            Unavailable: not all were acknowledged within `wait_s`, or the registry cannot be asked;
                publish them again: a repeated event changes nothing.
            Invalid: BAD_REQUEST when an event contradicts itself; none was published.
        """
        for event in events:
            if (fault := check_gap(event)) is not Fault.NONE:
                raise Invalid(Reason.BAD_REQUEST, f"{fault.name}: {event}")
        schema_id = self._registered()
        self._delivery.send(
            [
                Record(event.instrument.key, self._codec.encode(event.values(), schema_id))
                for event in events
            ],
            wait_s,
        )

    def advance(self) -> list[GapEvent]:
        """Read the events not returned yet, oldest first, up to the topic's end at the call.

        A record that is no event is passed over: it is a dead letter of the topic.

        Raises:
            Unavailable: TAPE_UNAVAILABLE, REGISTRY_UNAVAILABLE; nothing is lost, read again.
        """
        if self._consumer is None:
            self._consumer = reader_of(self._bootstrap, self._topic)
        consumer = self._consumer
        end = retry_transient(lambda: log_end(consumer, self._topic))
        read_to(end, self._topic, self._reached, lambda: self._read(consumer))
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Close the connections; every published event is acknowledged already."""
        self._delivery.close()
        if self._consumer is not None:
            self._consumer.close()

    def _registered(self) -> int:
        if self._schema_id is None:
            avro = schema.avro_schema(schema.GAP)
            self._schema_id = self._schemas.register(topics.subject(self._topic), avro)
        return self._schema_id

    def _read(self, consumer: Consumer) -> int:
        """Read some records; one that cannot be read yet is the first of the next call."""
        self._messages.extend(consumer.consume(READ_RECORDS, limits.TAPE_RETRY_S))
        while self._messages:
            message = self._messages[0]
            if message.error() is None:
                self._take(message)
            self._messages.popleft()
        return self._reached

    def _take(self, message: Message) -> None:
        offset = message.offset() or 0
        event = read_event(self._codec, message.value())
        if isinstance(event, Fault):
            _log.warning("%s@%s is no gap event: %s", self._topic, offset, event.name)
        else:
            self._events.append(event)
        self._reached = offset + 1


def read_event(codec: RecordCodec, value: bytes | None) -> GapEvent | Fault:
    """Read the event that a message of the log holds, or what is wrong with it."""
    values = codec.decode(value)
    return values if isinstance(values, Fault) else gap_of(values)
