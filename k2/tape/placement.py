"""Which partition a symbol keeps: the first choice anybody wrote down, as long as the topic lives.

A symbol's first placement is a pure choice (`market/instrument.py`); another version of K2 may
choose otherwise, so the choice is written to a compacted topic, and the first record of a key *in
log order* holds for everybody. Two writers that race both read the log after writing and both find
the same first record. Compaction keeps the last record of a key, so whoever finds a key whose last
record differs from its first puts the first one again.

A topic that is made again has another id, and with it a map of its own: whoever sends to a topic
needs to know nothing but the topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from k2 import limits
from k2.errors import Data, Invalid, Reason
from k2.market.instrument import Instrument, Tier, first_partition, parse_key


class Log(Protocol):
    """The part of `k2.tape.board.Board` that placement needs."""

    def put(self, key: str, value: Mapping[str, Any] | None, wait_s: float | None = None) -> None:
        """Append a record; with `wait_s`, wait for its acknowledgement."""
        ...

    def read_log(self) -> list[tuple[str, dict[str, Any] | None]]:
        """Every record still there, oldest first."""
        ...


class Placement:
    """The partition map of one topic. Thread-safe: its map is replaced, never changed.

    Args:
        board: `Board(bootstrap, topics.PARTITIONS)`.
        topic_id: of the trades topic; a topic of the same name made again has another.
        partitions_per_tier: each of the four tiers owns so many.
    """

    def __init__(self, board: Log, topic_id: str, partitions_per_tier: int) -> None:
        self._board = board
        self._prefix = f"{topic_id}/"
        self._partitions_per_tier = partitions_per_tier
        self._known: Mapping[Instrument, int] = {}

    def known(self) -> Mapping[Instrument, int]:
        """The map as last read; asks nobody."""
        return self._known

    def refresh(self) -> Mapping[Instrument, int]:
        """Read the map to its present end.

        Raises:
            Data: PARTITIONS_CHANGED when it names a partition this tape does not have.
            Unavailable: TAPE_UNAVAILABLE.
        """
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        for key, value in self._board.read_log():
            if key.startswith(self._prefix) and value is not None:
                partition = self._checked(key, value)
                first.setdefault(key, partition)
                last[key] = partition
        for key, partition in first.items():
            if last[key] != partition:
                self._write(key, partition)
        self._known = {
            parse_key(key.removeprefix(self._prefix)): partition for key, partition in first.items()
        }
        return self._known

    def covering(self, instruments: Iterable[Instrument]) -> Mapping[Instrument, int]:
        """The map, read again if it lacks any of these.

        A record is sent only after its symbol was placed, so a reader that finds a symbol the map
        lacks, and reads the map again, judges it as everybody else does.
        """
        known = self._known
        return known if all(each in known for each in instruments) else self.refresh()

    def place(self, instrument: Instrument) -> int:
        """The partition of an instrument, chosen now if it has none.

        Raises:
            Unavailable: TAPE_UNAVAILABLE; nothing may be sent for it yet.
        """
        known = self._known.get(instrument)
        if known is None:
            known = self.refresh().get(instrument)
        if known is None:
            key = f"{self._prefix}{instrument.key}"
            self._write(key, first_partition(instrument, self._partitions_per_tier))
            known = self.refresh()[instrument]
        return known

    def _write(self, key: str, partition: int) -> None:
        self._board.put(key, {"partition": partition}, wait_s=limits.BOARD_WAIT_S)

    def _checked(self, key: str, value: Mapping[str, Any]) -> int:
        partition = value.get("partition")
        count = len(Tier) * self._partitions_per_tier
        try:
            parse_key(key.removeprefix(self._prefix))
        except Invalid as error:
            raise Data(Reason.PARTITIONS_CHANGED, f"the partition map has the key {key}") from error
        if type(partition) is not int or not 0 <= partition < count:
            raise Data(
                Reason.PARTITIONS_CHANGED,
                f"the partition map puts {key} on {partition!r}; this tape has {count} partitions",
                metadata={"key": key, "partitions": str(count)},
            )
        return partition
