"""Finds dead letters that a commit superseded: faults that depend on what was known when judging.

Most faults depend only on the record's bytes, so every reader reaches the same verdict. Others are
*retriable*: a schema id that the registry does not know may be registered later, and a symbol
without a partition may be placed later. So two writers may judge one record differently: the first
published its dead letter and was killed before its commit, or is a zombie that publishes the letter
when the second has judged already.

**The commit decides.** A letter is published before the commit that passes its record, so alone it
only shows what one writer was about to commit. Where the lake has a row at the letter's place on
the tape, the letter is *superseded*: the record was taken. Every use of a letter looks up that row.
Letters cannot bind later writers instead: however late a writer reads them, a slower one may
publish its own after that. A committed row is visible to all.

A record without a row is what its letter says, or was a duplicate to the writer that committed. No
row tells these two apart, and none has to: replayed, the record is a duplicate in either case.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import numpy as np
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError

from k2.lake.commit.event_files import OpsView
from k2.lake.iceberg.catalog import reaching_lake
from k2.lake.iceberg.snapshot import current_of
from k2.lake.iceberg.tables import TRADES
from k2.market.events import RETRIABLE_FAULTS, Bools, Bytes, Fault, Int64s, TradeColumns
from k2.tape.dead_letter_topic import DeadLetter


@dataclass(frozen=True)
class PartitionLetters:
    """The dead letters of one partition, by offset, each once.

    Attributes:
        offsets: ascending. int64[n]
        faults: of each. uint8[n]
    """

    offsets: Int64s
    faults: Bytes

    @property
    def retriable(self) -> PartitionLetters:
        """Those whose fault depends on what was known."""
        return self.of(RETRIABLE_FAULTS)

    def of(self, faults: Collection[Fault]) -> PartitionLetters:
        """Select those of these faults."""
        return self._where(np.isin(self.faults, np.array(sorted(faults), dtype=np.uint8)))

    def without(self, offsets: Int64s) -> PartitionLetters:
        """Select all but those at these offsets."""
        return self._where(~np.isin(self.offsets, offsets))

    def _where(self, chosen: Bools) -> PartitionLetters:
        return PartitionLetters(self.offsets[chosen], self.faults[chosen])


def apply_recorded_faults(
    columns: TradeColumns, letters: PartitionLetters, beside: Collection[Fault] = ()
) -> tuple[TradeColumns, int]:
    """Give records the faults that the writer found by what it knew then.

    Args:
        columns: checked by what is known today, at least one.
        letters: of their partition, none of them superseded.
        beside: faults that letters decide as well as the retriable ones.

    Returns:
        The records, and how many of them are good today and dead by their letter alone.
    """
    low, high = np.searchsorted(letters.offsets, (columns.offset[0], columns.offset[-1] + 1))
    if low == high:
        return columns, 0
    here = PartitionLetters(letters.offsets[low:high], letters.faults[low:high]).of(
        {*RETRIABLE_FAULTS, *beside}
    )
    _, rows, places = np.intersect1d(
        columns.offset, here.offsets, assume_unique=True, return_indices=True
    )
    doubtful = int((columns.fault[rows] == Fault.NONE).sum())
    fault = columns.fault.copy()
    fault[rows] = here.faults[places]
    return replace(columns, fault=fault), doubtful


class SupersededLetters:
    """Finds letters that the lake superseded. Thread-safe; every call reads the table again."""

    def __init__(self, catalog: SqlCatalog) -> None:
        self._catalog = catalog

    def among(self, letters: Iterable[DeadLetter]) -> frozenset[str]:
        """Name those letters at whose place the newest snapshot has a row.

        Data files are read for retriable letters alone, and only those that may hold their places.

        Raises:
            Unavailable: LAKE_UNAVAILABLE.
            Data: LAKE_CORRUPT.
        """
        retriable = [letter for letter in letters if letter.fault in RETRIABLE_FAULTS]
        if not retriable:
            return frozenset()
        try:
            with reaching_lake():
                table = self._catalog.load_table(TRADES)
        except NoSuchTableError:
            return frozenset()
        snapshot = current_of(table.metadata)
        if snapshot is None:
            return frozenset()
        names: dict[tuple[int, int], dict[int, str]] = {}
        for letter in retriable:
            if letter.topic == snapshot.topic:
                names.setdefault((letter.epoch, letter.partition), {})[letter.offset] = letter.name
        view = OpsView(snapshot.positions.epoch, 0, table, snapshot.snapshot_id)
        return frozenset(
            of[int(row["tape_offset"])]
            for (epoch, partition), of in names.items()
            for row in view.newest(
                ["tape_offset"],
                [
                    ("tape_epoch", "==", epoch),
                    ("tape_partition", "==", partition),
                    ("tape_offset", ">=", min(of)),  # these two exclude files
                    ("tape_offset", "<", max(of) + 1),
                    ("tape_offset", "in", sorted(of)),
                ],
            )
        )
