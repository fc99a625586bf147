"""Dead letters as one list: the table's, and from the tape those above the table's position.

A letter may be on the tape again above the position (its writer was killed before it committed);
letters that the table holds are listed once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from k2 import limits
from k2.errors import Invalid, NotFound, Reason
from k2.lake.commit.event_files import Condition, OpsView, Row, place
from k2.lake.ingest.event_rows import LETTER_COLUMNS, LETTER_COLUMNS_LISTED, letter_of
from k2.lake.ingest.letter_identity import Origin
from k2.market.events import Fault
from k2.market.offsets import TimeRange
from k2.tape.dead_letter_topic import DeadLetter, Posted


@dataclass(frozen=True)
class StoredLetter:
    """A dead letter of the table or the tape.

    Attributes:
        letter: in a list, without its value.
        offset: its own, on the topic of letters.
        stored: whether the table holds it.
        epoch: of the topic of letters.
    """

    letter: DeadLetter
    offset: int
    stored: bool
    epoch: int

    @property
    def place(self) -> int:
        """Its place on the topic of letters, in the order of all its epochs."""
        return place(self.epoch, self.offset)


@dataclass(frozen=True)
class LetterFilter:
    """Selects letters by the time of judging, the fault and the origin; None selects all."""

    times: TimeRange
    fault: Fault | None = None
    origin: str | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Return whether it selects a letter."""
        start, end = self.times.start_us, self.times.end_us
        return (
            (start is None or letter.at_us >= start)
            and (end is None or letter.at_us < end)
            and (self.fault is None or letter.fault is self.fault)
            and (self.origin is None or letter.topic == self.origin)
        )

    def conditions(self) -> list[Condition]:
        """Return the filter as conditions on the table."""
        conditions: list[Condition] = []
        if self.times.start_us is not None:
            conditions.append(("judged", ">=", _time(self.times.start_us)))
        if self.times.end_us is not None:
            conditions.append(("judged", "<", _time(self.times.end_us)))
        if self.fault is not None:
            conditions.append(("fault", "==", self.fault.name))
        if self.origin is not None:
            conditions.append(("origin", "==", self.origin))
        return conditions


class LetterReader:
    """Lists and finds letters. Thread-safe; every call reads table and tape again.

    Args:
        view: opens the table's newest snapshot.
        posted: reads the letters of the tape from an offset on.
        superseded: names of those of these letters whose record the lake took; see `superseded.py`.
    """

    def __init__(
        self,
        view: Callable[[], OpsView | None],
        posted: Callable[[int], Iterable[Posted]],
        superseded: Callable[[Iterable[DeadLetter]], Collection[str]],
    ) -> None:
        self._view = view
        self._posted = posted
        self._superseded = superseded

    def newest(self, wanted: LetterFilter, below: int | None) -> Iterator[StoredLetter]:
        """Iterate over letters, newest on the tape first, without their values; read as needed.

        Args:
            wanted: which letters.
            below: a place; letters at or above it are left out.

        Raises:
            Unavailable: LAKE_UNAVAILABLE, TAPE_UNAVAILABLE.
            Data: LAKE_CORRUPT.
        """
        view = self._view()
        for unstored in reversed(self._unstored(view)):
            if wanted.takes(unstored.letter) and (below is None or unstored.place < below):
                yield unstored
        if view is not None:
            for row in view.newest(LETTER_COLUMNS_LISTED, wanted.conditions(), below):
                yield _stored(row)

    def get(self, name: str) -> StoredLetter:
        """Find a letter with its value, by its name.

        Raises:
            Invalid: BAD_REQUEST when it is no name of a letter.
            NotFound: UNKNOWN_DEAD_LETTER.
            Unavailable, Data: see `newest`.
        """
        origin, offset = _parsed(name)
        view = self._view()
        if view is not None:
            for row in view.newest(LETTER_COLUMNS, _of(origin, offset, offset + 1)):
                return _stored(row)
        epoch, position = (view.epoch, view.position) if view else (0, 0)
        for posted in self._posted(position):
            if posted.letter.name == name:
                return StoredLetter(posted.letter, posted.offset, stored=False, epoch=epoch)
        raise NotFound(
            Reason.UNKNOWN_DEAD_LETTER,
            f"there is no dead letter {name}, or no longer",
            metadata={"name": name},
        )

    def superseded(self, letters: Iterable[StoredLetter]) -> Collection[str]:
        """Name those letters whose record is a row of the lake; see `superseded.py`.

        Raises:
            Unavailable, Data: see `newest`.
        """
        return self._superseded(stored.letter for stored in letters)

    def _unstored(self, view: OpsView | None) -> list[StoredLetter]:
        """List the letters that the table does not hold yet, oldest first, each once."""
        unstored: deque[StoredLetter] = deque(maxlen=limits.LETTERS_UNSTORED_MAX)
        ranges: dict[Origin, tuple[int, int]] = {}
        seen: set[str] = set()
        epoch, position = (view.epoch, view.position) if view else (0, 0)
        for offset, letter in self._posted(position):
            if letter.name not in seen:
                seen.add(letter.name)
                origin = Origin(letter.topic, letter.epoch, letter.partition)
                low, high = ranges.get(origin, (letter.offset, letter.offset))
                ranges[origin] = min(low, letter.offset), max(high, letter.offset)
                bare = replace(letter, value=None)
                unstored.append(StoredLetter(bare, offset, stored=False, epoch=epoch))
        if view is None:
            return list(unstored)
        stored = {
            letter_of(row).name
            for origin, (low, high) in ranges.items()
            for row in view.newest(LETTER_COLUMNS_LISTED, _of(origin, low, high + 1))
        }
        return [above for above in unstored if above.letter.name not in stored]


def _stored(row: Row) -> StoredLetter:
    return StoredLetter(letter_of(row), row["tape_offset"], stored=True, epoch=row["tape_epoch"])


def _of(origin: Origin, start: int, end: int) -> list[Condition]:
    return [
        ("origin", "==", origin.topic),
        ("origin_epoch", "==", origin.epoch),
        ("origin_partition", "==", origin.partition),
        ("origin_offset", ">=", start),
        ("origin_offset", "<", end),
    ]


def _parsed(name: str) -> tuple[Origin, int]:
    try:
        topic, *numbers = name.rsplit("/", 3)
        epoch, partition, offset = (int(number) for number in numbers)
    except ValueError:
        topic, epoch, partition, offset = "", 0, 0, 0
    small = 0 <= epoch < 2**31 and 0 <= partition < 2**31 and 0 <= offset < 2**63 - 1
    if not (topic and small):
        raise Invalid(
            Reason.BAD_REQUEST,
            f"{name!r} is no name of a dead letter: topic/epoch/partition/offset",
            metadata={"field": "name"},
        )
    return Origin(topic, epoch, partition), offset


def _time(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(
        microsecond=time_us % 1_000_000
    )
