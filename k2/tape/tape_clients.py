"""The connections of one process to its tape: opened at first use, closed together at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache, cached_property
from typing import Self, TypeVar

from k2.clock import Clock
from k2.market.instrument import Priorities
from k2.settings import Settings
from k2.tape import topics
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.dead_letter_topic import DeadLetterTopic
from k2.tape.gap_topic import GapLog
from k2.tape.partition_map import PartitionMap
from k2.tape.producer import TapeProducer
from k2.tape.schema_registry import SchemaStore
from k2.tape.topics import TapeAdmin

C = TypeVar("C", TapeAdmin, TapeProducer, DeadLetterTopic, GapLog, CompactedTopic)


class TapeClients:
    """Opens each connection at its first use; `open` closes them, the last opened first.

    The first use of each belongs in one thread; what is opened is as thread-safe as its class.

    Args:
        settings: name broker, registry, the data directory, where schemas are cached, and tiers.
        clock: of the process.
        pause: waits so many seconds for a new schema to be known, or shorter when the process is
            to end; by default the clock's `sleep`.
    """

    def __init__(
        self, settings: Settings, clock: Clock, pause: Callable[[float], object] | None = None
    ) -> None:
        self._tape = settings.tape
        self._priorities = Priorities(settings.symbols.priority)
        self._opened = ExitStack()
        self.schemas = SchemaStore(
            self._tape.registry_url, settings.data_dir / "schemas", clock, pause
        )
        self.topic = cache(self._topic)

    @classmethod
    @contextmanager
    def open(
        cls, settings: Settings, clock: Clock, pause: Callable[[float], object] | None = None
    ) -> Iterator[Self]:
        """Hold the connections while the block lasts."""
        clients = cls(settings, clock, pause)
        with clients._opened:
            yield clients

    @cached_property
    def admin(self) -> TapeAdmin:
        """Asks about topics."""
        return self._close_later(TapeAdmin(self._tape.bootstrap))

    @cached_property
    def producer(self) -> TapeProducer:
        """Sends trades."""
        return self._close_later(TapeProducer(self._tape))

    @cached_property
    def dead_letters(self) -> DeadLetterTopic:
        """Publishes and reads dead letters."""
        return self._close_later(DeadLetterTopic(self._tape.bootstrap))

    @cached_property
    def gap_log(self) -> GapLog:
        """Publishes and reads gap events; for one reader."""
        return self._close_later(GapLog(self._tape.bootstrap, self.schemas))

    def partition_map(self, topic_id: str | None = None) -> PartitionMap:
        """Return the partition map of the trades topic; without an id, of the present topic.

        Raises:
            NotFound: there is no such topic.
            Unavailable: TAPE_UNAVAILABLE.
        """
        if topic_id is None:
            topic_id = topics.topic_id(self._tape)
        partitions = self.topic(topics.PARTITIONS)
        per_tier = self._tape.partitions_per_tier
        return PartitionMap(partitions, topic_id, per_tier, self._priorities)

    def _topic(self, name: str) -> CompactedTopic:
        return self._close_later(CompactedTopic(self._tape.bootstrap, name))

    def _close_later(self, client: C) -> C:
        return self._opened.enter_context(closing(client))
