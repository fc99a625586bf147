"""Positions on the tape, and the plain records a query plan is made from.

A position is (epoch, partition, offset); an offset names the *next* record to read, so a vector
covers exactly the records below it. The partition count of an epoch never changes. Every record of
an epoch lies below every position of the epochs after it.
"""

from __future__ import annotations

from dataclasses import dataclass

from k2.market.instrument import Instrument


@dataclass(frozen=True)
class OffsetVector:
    """One next offset per partition of an epoch, indexed by partition."""

    epoch: int
    offsets: tuple[int, ...]

    @classmethod
    def zero(cls, epoch: int, partitions: int) -> OffsetVector:
        """Make the vector that covers nothing."""
        return cls(epoch, (0,) * partitions)

    def __getitem__(self, partition: int) -> int:
        return self.offsets[partition]

    def covers(self, other: OffsetVector) -> bool:
        """Return whether every record below `other` is below this vector too."""
        if self.epoch != other.epoch:
            return self.epoch > other.epoch
        return all(mine >= theirs for mine, theirs in zip(self.offsets, other.offsets, strict=True))

    def advanced(self, partition: int, offset: int) -> OffsetVector:
        """Return this vector with one partition's next offset set."""
        changed = list(self.offsets)
        changed[partition] = offset
        return OffsetVector(self.epoch, tuple(changed))

    def encode(self) -> str:
        """`epoch:o0,o1,...`, the form in snapshot summaries and messages."""
        return f"{self.epoch}:{','.join(map(str, self.offsets))}"

    @classmethod
    def decode(cls, text: str) -> OffsetVector:
        """Read what `encode` wrote.

        Raises:
            ValueError: when `text` has another form.
        """
        epoch, colon, offsets = text.partition(":")
        if not colon:
            raise ValueError(f"{text!r} is not an offset vector")
        return cls(int(epoch), tuple(int(part) for part in offsets.split(",") if part))


@dataclass(frozen=True)
class ReadToken:
    """A permanent name for the rows of an answer: those below `end`, on one tape.

    Attributes:
        topic_id: of the tape's topic; changes when a topic of the same name is made again.
        end: E.
        snapshot_id: S, the snapshot that the answer pinned; a hint for readers, 0 for none.
    """

    topic_id: str
    end: OffsetVector
    snapshot_id: int = 0


@dataclass(frozen=True)
class TimeRange:
    """Half-open event times in microseconds; None is unbounded."""

    start_us: int | None = None
    end_us: int | None = None

    def overlaps(self, low_us: int, high_us: int) -> bool:
        """Return whether any time in the closed range [low, high] lies in this one."""
        return (self.start_us is None or high_us >= self.start_us) and (
            self.end_us is None or low_us < self.end_us
        )


@dataclass(frozen=True)
class FileStat:
    """The metadata of one data file of a snapshot.

    Attributes:
        path: where it is (a local path or a URI).
        size_bytes: its size.
        rows: rows in it.
        exchange: the exchange of all its rows (a partition value).
        symbol_min, symbol_max: least and greatest symbol, inclusive.
        time_min_us, time_max_us: least and greatest event_time, inclusive.
        lacks: optional columns that it was written without; they are null in all its rows.
        narrow: whether every quantity is known to fit into `schema.NARROW_QUANTITY`.
    """

    path: str
    size_bytes: int
    rows: int
    exchange: str
    symbol_min: str
    symbol_max: str
    time_min_us: int
    time_max_us: int
    lacks: tuple[str, ...] = ()
    narrow: bool = False


@dataclass(frozen=True)
class ChunkRange:
    """The metadata of one chunk of the tail: rows of one instrument from one partition.

    Attributes:
        chunk_id: names the chunk in its view.
        instrument: whose rows.
        partition: where they sit on the tape.
        offset_low, offset_high: least and greatest tape offset, inclusive.
        time_min_us, time_max_us: least and greatest event_time, inclusive.
        rows: rows in it.
    """

    chunk_id: int
    instrument: Instrument
    partition: int
    offset_low: int
    offset_high: int
    time_min_us: int
    time_max_us: int
    rows: int


@dataclass(frozen=True)
class PartitionCut:
    """Where one partition is cut: the lake answers below `low`, the tail from `low` to `end`."""

    partition: int
    low: int
    end: int
