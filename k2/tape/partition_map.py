"""Maps each symbol to the partition it keeps: the first one recorded, for the life of the topic.

A symbol's first placement is a pure choice (`market/instrument.py`); other settings, or another
version of K2, may choose otherwise, so the choice is written to a compacted topic, and the first
record of a key *in log order* holds for every process. Two writers that race both read the log
after writing and both find the same first record. Compaction keeps the last record of a key, so a
process that finds a key whose last record differs from its first writes the first one again.

The topic is followed: a process reads on from where it was, and a symbol that it does not find has
no place as long as the topic's end is where it was.

A record that names no symbol or no partition of this tape is skipped by its own content alone, so
that every reader skips the same; it is logged as an error and counted (`CompactedTopic.skipped`).
Compaction would keep it in place of the key's first record, which is therefore put again.

A topic that is made again has another id, and with it a map of its own: a sender needs to know
nothing but the topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from k2 import limits
from k2.errors import Invalid
from k2.market.instrument import Instrument, Priorities, Tier, first_partition, parse_key
from k2.tape.kafka_client import SharedAnswer
from k2.tape.ports import DocumentTopic


class PartitionMap:
    """The partition map of one topic. Thread-safe: its map is replaced, never changed.

    Args:
        topic: `CompactedTopic(bootstrap, topics.PARTITIONS)`.
        topic_id: of the trades topic; a topic of the same name made again has another.
        partitions_per_tier: each of the four tiers owns so many.
        priorities: give a new symbol its tier; by default its base does.
    """

    def __init__(
        self,
        topic: DocumentTopic,
        topic_id: str,
        partitions_per_tier: int,
        priorities: Priorities | None = None,
    ) -> None:
        self._topic = topic
        self._prefix = f"{topic_id}/"
        self._partitions_per_tier = partitions_per_tier
        self._priorities = priorities or Priorities()
        self._log = topic.log_reader()
        self._reading = SharedAnswer(self._read)
        self._known: Mapping[Instrument, int] = {}
        self._first: dict[str, int] = {}  # key → partition of its first record
        self._unsafe: set[str] = set()  # keys of which compaction would keep another record

    def known(self) -> Mapping[Instrument, int]:
        """Return the map as last read, without a request."""
        return self._known

    def refresh(self) -> Mapping[Instrument, int]:
        """Read on to the present end of the topic; a call that waited shares a later reading.

        Raises:
            Unavailable: TAPE_UNAVAILABLE.
        """
        return self._reading.ask()

    def _read(self) -> Mapping[Instrument, int]:
        news = self._log.advance()
        if news.from_start:
            self._first, self._unsafe = {}, set()
        for key, value in news.records:
            if key.startswith(self._prefix):
                self._take(key, value)
        if news.records or news.from_start:
            self._known = {
                parse_key(key.removeprefix(self._prefix)): partition
                for key, partition in self._first.items()
            }
        for key in sorted(self._unsafe):
            self._write(key, self._first[key])
            self._unsafe.discard(key)
        return self._known

    def _take(self, key: str, value: Mapping[str, Any] | None) -> None:
        partition = self._partition(key, value)
        if partition is not None:
            self._first.setdefault(key, partition)
        if key in self._first and partition != self._first[key]:
            self._unsafe.add(key)
        else:
            self._unsafe.discard(key)

    def refresh_for(self, instruments: Iterable[Instrument]) -> Mapping[Instrument, int]:
        """Return the map, read on if it lacks any of these; without a request when it has all.

        A record is sent only after its symbol was placed, so a reader that finds a symbol the map
        lacks, and reads on to the topic's end, judges it as all others do.
        """
        known = self._known
        return known if all(each in known for each in instruments) else self.refresh()

    def place(self, instrument: Instrument) -> int:
        """Return the partition of an instrument, chosen now if it has none.

        Raises:
            Unavailable: TAPE_UNAVAILABLE; nothing may be sent for it yet.
        """
        known = self._known.get(instrument)
        if known is None:
            known = self.refresh().get(instrument)
        if known is None:
            key = f"{self._prefix}{instrument.key}"
            chosen = first_partition(instrument, self._partitions_per_tier, self._priorities)
            self._write(key, chosen)
            known = self.refresh()[instrument]
        return known

    def _write(self, key: str, partition: int) -> None:
        self._topic.put(key, {"partition": partition}, wait_s=limits.BOARD_WAIT_S)

    def _partition(self, key: str, value: Mapping[str, Any] | None) -> int | None:
        """Return the partition of a record; None when it is not of this tape."""
        if value is None:
            return None
        partition = value.get("partition")
        count = len(Tier) * self._partitions_per_tier
        try:
            parse_key(key.removeprefix(self._prefix))
        except Invalid as error:
            self._topic.skip(key, error.message)
            return None
        if type(partition) is not int or not 0 <= partition < count:
            self._topic.skip(key, f"{partition!r} is none of {count} partitions")
            return None
        return partition
