"""Pauses of partitions: a set of reasons for each, read again when no reason is left."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum

from k2.tape.ports import BatchReader


class PauseReason(Enum):
    """Why a partition is not read."""

    MEMORY = "memory"  # commits fail, and the bound on what is held is reached
    WAITING = "waiting"  # records are left to be judged in a later step, or when a part is back
    LEVEL = "level"  # the degradation level defers its tier
    TURN = "turn"  # partitions that are read before it are behind


class PartitionPauses:
    """The reasons of each partition of one reader. One thread uses it.

    Args:
        reader: is paused and resumed.
    """

    def __init__(self, reader: BatchReader) -> None:
        self._reader = reader
        self._reasons: dict[int, set[PauseReason]] = {}

    def of(self, partition: int) -> frozenset[PauseReason]:
        """Return why a partition is not read; empty when it is."""
        return frozenset(self._reasons.get(partition, ()))

    def pause(self, reason: PauseReason, partitions: Collection[int]) -> None:
        """Stop reading partitions for a reason."""
        stopping = [partition for partition in partitions if not self._reasons.get(partition)]
        for partition in partitions:
            self._reasons.setdefault(partition, set()).add(reason)
        if stopping:
            self._reader.pause(stopping)

    def resume(self, reason: PauseReason, partitions: Iterable[int]) -> None:
        """Drop a reason; read those partitions again that are left without one."""
        resuming = []
        for partition in partitions:
            reasons = self._reasons.get(partition, set())
            if reason in reasons:
                reasons.discard(reason)
                if not reasons:
                    resuming.append(partition)
        if resuming:
            self._reader.resume(resuming)

    def hold(self, reason: PauseReason, partitions: Collection[int], among: Iterable[int]) -> None:
        """Make a reason hold for exactly these partitions of those among which they are."""
        self.resume(reason, [each for each in among if each not in partitions])
        self.pause(reason, [p for p in partitions if reason not in self._reasons.get(p, ())])

    def forget(self, partition: int) -> None:
        """Forget a partition that is assigned or revoked: the reader reads it from the start."""
        self._reasons.pop(partition, None)
