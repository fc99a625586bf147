"""The ports of the tape: one Protocol for each class that tests replace.

Each Protocol has two implementations: the class that its docstring names, and a fake of the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from k2.errors import K2Error
from k2.market.instrument import Instrument
from k2.market.ledger import GapEvent
from k2.tape.compacted_topic import News
from k2.tape.consumer import RawBatch
from k2.tape.dead_letter_topic import DeadLetter
from k2.tape.producer import OnAck


class BatchReader(Protocol):
    """`k2.tape.consumer.TapeReader`."""

    def read(self, max_records: int, timeout_s: float) -> list[RawBatch]:
        """Read the next records, one batch per partition."""

    def seek(self, positions: Mapping[int, int]) -> None:
        """Read these partitions from these offsets next."""

    def pause(self, partitions: Collection[int]) -> None:
        """Stop reading partitions."""

    def resume(self, partitions: Collection[int]) -> None:
        """Read paused partitions again."""

    def report(self, positions: Mapping[int, int]) -> None:
        """Commit this reader's positions to its group, for lag monitors."""

    def close(self) -> None:
        """Close the connection and release the partitions."""


class RecordSender(Protocol):
    """`k2.tape.producer.TapeProducer`."""

    @property
    def failure(self) -> K2Error | None:
        """The error that ended the sender; None while it can send."""

    def send(
        self,
        key: bytes,
        value: bytes,
        partition: int,
        headers: Mapping[str, bytes] | None = None,
        on_ack: OnAck | None = None,
    ) -> None:
        """Queue a record; raises QUEUE_FULL when the queue has no room."""

    def poll(self, timeout_s: float = 0.0) -> int:
        """Deliver acknowledgements."""

    def depth(self) -> int:
        """Count the records that are queued and not yet acknowledged."""

    def flush(self, timeout_s: float) -> int:
        """Wait for acknowledgements; returns how many are missing."""


class DocumentLogReader(Protocol):
    """`k2.tape.compacted_topic.LogReader`."""

    def advance(self) -> News:
        """Read the records not returned yet, oldest first, up to the topic's end."""


class DocumentTopic(Protocol):
    """`k2.tape.compacted_topic.CompactedTopic`."""

    def put(self, key: str, value: Mapping[str, Any] | None, wait_s: float | None = None) -> None:
        """Replace the document of a key; None removes it. `wait_s` waits for acknowledgement."""

    def read_all(self) -> Mapping[str, Mapping[str, Any]]:
        """Read the newest document of each key, up to the topic's end at the call."""

    def log_reader(self) -> DocumentLogReader:
        """Open a reader of every record retained and of those that follow."""

    def skip(self, key: str, why: str) -> None:
        """Count and log a record that cannot be used."""

    def current(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the newest document of each key as far as followed."""

    def current_to_end(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the newest document of each key, followed to the topic's end at the call."""

    @property
    def version(self) -> int:
        """A number that grows with each change."""

    def wait_change(self, version: int, timeout_s: float) -> int:
        """Wait until the version is above `version`; returns the version."""

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the key of each document that arrives from now on."""


class GapEventLog(Protocol):
    """`k2.tape.gap_topic.GapLog`."""

    def publish(self, events: Sequence[GapEvent], wait_s: float) -> None:
        """Append events; returns when every one is acknowledged."""

    def advance(self) -> Iterable[GapEvent]:
        """Read the events not returned yet, up to the topic's end at the call."""


class LetterSink(Protocol):
    """`k2.tape.dead_letter_topic.DeadLetterTopic`, as those that publish need it."""

    def publish(self, letters: Sequence[DeadLetter], wait_s: float) -> None:
        """Publish letters; returns when every one is acknowledged."""


class Placement(Protocol):
    """`k2.tape.partition_map.PartitionMap`, as those that judge records need it."""

    def refresh_for(self, instruments: Iterable[Instrument]) -> Mapping[Instrument, int]:
        """Return the map, read again when it lacks any of these."""


class Schemas(Protocol):
    """`k2.tape.schema_registry.SchemaStore`."""

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """Register a schema under a subject; returns its id."""

    def schema(self, schema_id: int) -> dict[str, Any]:
        """Return the schema of an id; KeyError when the registry does not know it."""

    def remembers(self, schema_id: int) -> bool:
        """Return whether `schema` answers without asking the registry."""
