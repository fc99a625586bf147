"""The ledger of gaps on the tape: every event of every missing trade id, in the order it was told.

The topic is a log, not a board: nothing is compacted, because an event paints over only the ids it
names. Where its records end up as rows is `ops.gaps`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from k2 import limits
from k2.errors import Invalid, Reason
from k2.market import schema
from k2.market.events import Fault
from k2.market.gaps import GapEvent, check_gap, gap_of
from k2.tape import topics
from k2.tape.board import read_topic
from k2.tape.delivery import Delivery, Record
from k2.tape.records import RecordCodec

_log = logging.getLogger(__name__)


class Schemas(Protocol):
    """The part of `k2.tape.registry.SchemaStore` that the ledger needs."""

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """Register a schema under a subject; returns its id."""
        ...

    def schema(self, schema_id: int) -> dict[str, Any]:
        """What an id means; KeyError when the registry does not know it."""
        ...


class Entry(NamedTuple):
    """An event and its offset on the topic."""

    offset: int
    event: GapEvent


class GapLedger:
    """Publishes gap events and reads them back. Thread-safe, but for `read_all` at once.

    Args:
        bootstrap: of the tape.
        schemas: registers the event's schema at the first event published, and reads it.
        topic: where the events are kept.
    """

    def __init__(self, bootstrap: str, schemas: Schemas, topic: str = topics.GAPS) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._schemas = schemas
        self._schema_id: int | None = None
        self._codec = RecordCodec(schema.GAP, schemas)
        self._delivery = Delivery(bootstrap, topic, limits.RECORD_BYTES_MAX)

    def publish(self, events: Sequence[GapEvent], wait_s: float = limits.BOARD_WAIT_S) -> None:
        """Publish events in their order; returns when every one is acknowledged.

        Raises:
            Unavailable: not all were acknowledged within `wait_s`, or the registry cannot be asked;
                publish them again: an event told twice changes nothing.
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

    def read_all(self) -> Iterator[Entry]:
        """Every event retained, oldest first, up to the end of the topic at the call.

        A record that is no event is passed over: it is a dead letter of the topic.

        Raises:
            Unavailable: TAPE_UNAVAILABLE, REGISTRY_UNAVAILABLE.
        """
        for message in read_topic(self._bootstrap, self._topic):
            event = read_event(self._codec, message.value())
            if isinstance(event, Fault):
                _log.warning("%s@%s is no gap event: %s", self._topic, message.offset(), event.name)
            else:
                yield Entry(message.offset() or 0, event)

    def close(self) -> None:
        """Let the connection go; every published event is acknowledged already."""
        self._delivery.close()

    def _registered(self) -> int:
        if self._schema_id is None:
            avro = schema.avro_schema(schema.GAP)
            self._schema_id = self._schemas.register(topics.subject(self._topic), avro)
        return self._schema_id


def read_event(codec: RecordCodec, value: bytes | None) -> GapEvent | Fault:
    """The event that a message of the ledger holds, or what is wrong with it."""
    values = codec.decode(value)
    return values if isinstance(values, Fault) else gap_of(values)
