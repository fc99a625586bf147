"""The ledger's topic as those see it who keep up with it: append, and read on from where one was.

What is read is the order of the log, the only one that all feeds share: an event that this process
wrote counts when it comes back.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

from confluent_kafka import Consumer, Message

from k2 import limits
from k2.errors import Reason, Unavailable
from k2.market import schema
from k2.market.events import Fault
from k2.market.gaps import GapEvent
from k2.tape import topics
from k2.tape.board import log_end, reader_of
from k2.tape.client import persist
from k2.tape.ledger import GapLedger, Schemas, read_event
from k2.tape.records import RecordCodec

_READ_RECORDS = 1000
_SILENT_MAX = round(limits.BOARD_WAIT_S / limits.TAPE_RETRY_S)  # reads in a row that give nothing

_log = logging.getLogger(__name__)


class GapLog:
    """See the module. One thread reads; any may publish.

    Args:
        bootstrap: of the tape.
        schemas: of the events.
        topic: where they are kept.
    """

    def __init__(self, bootstrap: str, schemas: Schemas, topic: str = topics.GAPS) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._ledger = GapLedger(bootstrap, schemas, topic)
        self._codec = RecordCodec(schema.GAP, schemas)
        self._consumer: Consumer | None = None
        self._messages: deque[Message] = deque()
        self._events: list[GapEvent] = []
        self._reached = 0

    def publish(self, events: Sequence[GapEvent], wait_s: float) -> None:
        """Append events; returns when every one is acknowledged; raises as `GapLedger` does."""
        self._ledger.publish(events, wait_s)

    def advance(self) -> list[GapEvent]:
        """Every event not given yet, oldest first, up to the end of the topic at the call.

        A record that is no event is passed over: it is a dead letter of the topic.

        Raises:
            Unavailable: TAPE_UNAVAILABLE, REGISTRY_UNAVAILABLE; nothing is lost, read again.
        """
        if self._consumer is None:
            self._consumer = reader_of(self._bootstrap, self._topic)
        consumer, silent = self._consumer, 0
        end = persist(lambda: log_end(consumer, self._topic))
        while self._reached < end:
            before = self._reached
            self._read(consumer)
            silent = silent + 1 if self._reached == before else 0
            if silent >= _SILENT_MAX:
                raise Unavailable(
                    Reason.TAPE_UNAVAILABLE,
                    f"{self._topic} gives nothing before its end",
                    retry_after_s=limits.RECONNECT_MAX_S,
                )
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Let the connections go."""
        self._ledger.close()
        if self._consumer is not None:
            self._consumer.close()

    def _read(self, consumer: Consumer) -> None:
        """Read some records; one that cannot be read just now is the first of the next time."""
        self._messages.extend(consumer.consume(_READ_RECORDS, limits.TAPE_RETRY_S))
        while self._messages:
            message = self._messages[0]
            if message.error() is None:
                self._take(message)
            self._messages.popleft()

    def _take(self, message: Message) -> None:
        offset = message.offset() or 0
        event = read_event(self._codec, message.value())
        if isinstance(event, Fault):
            _log.warning("%s@%s is no gap event: %s", self._topic, offset, event.name)
        else:
            self._events.append(event)
        self._reached = offset + 1
