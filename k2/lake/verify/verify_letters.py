"""Compares the table of dead letters with the letters of the tape: each once, unchanged.

The comparison is made at the table's own position. A letter may be on the tape twice, because a
writer that was killed publishes again: then the table holds the first. Letters that retention
removed from the tape, and those of earlier epochs, whose tapes are gone, are only checked for
doubles. Of letters that were judged before the table's retained time, only the existing rows are
compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from k2 import limits
from k2.lake.commit.event_files import OpsView
from k2.lake.ingest.event_rows import LETTER_COLUMNS, LETTER_COLUMNS_LISTED, letter_of
from k2.lake.verify.report import Problem
from k2.tape import topics
from k2.tape.dead_letter_topic import DeadLetter, Posted


@dataclass(frozen=True)
class LetterSources:
    """The sources of the comparison.

    Attributes:
        view: opens the table's newest snapshot.
        posted: reads all letters of the tape.
    """

    view: Callable[[], OpsView | None]
    posted: Callable[[], Iterable[Posted]]


@dataclass(frozen=True)
class ComparedLetters:
    """The result of the comparison.

    Attributes:
        problems: LETTER_ROW_MISSING, LETTER_ROW_DOUBLED, LETTER_ROW_UNDUE, LETTER_ROW_CHANGED;
            their offsets are those of the letters on their own topic.
        rows: in the table.
        waiting: letters on the tape that the table does not hold yet, as often as they were
            published.
    """

    problems: tuple[Problem, ...]
    rows: int
    waiting: int


def compare_letters(sources: LetterSources) -> ComparedLetters:
    """Compare the table with the tape.

    Raises:
        Unavailable: TAPE_UNAVAILABLE, LAKE_UNAVAILABLE.
        Data: LAKE_CORRUPT.
    """
    view = sources.view()
    epoch, position = (view.epoch, view.position) if view else (0, 0)
    retained_from_us = (view.retained_from_us if view else None) or 0
    first_of: dict[str, tuple[int, int]] = {}
    prints: dict[int, bytes] = {}
    waiting = 0
    for offset, letter in sources.posted():
        if offset < position:
            first_of.setdefault(letter.name, (offset, letter.at_us))
            prints[offset] = _print(letter)
        else:
            waiting += 1
    left = min(prints, default=position)
    held: set[str] = set()
    doubled, undue, changed = [], [], []
    rows = 0
    for row in view.newest(LETTER_COLUMNS) if view else ():
        letter, offset = letter_of(row), int(row["tape_offset"])
        rows += 1
        if letter.name in held:
            doubled.append(offset)
        held.add(letter.name)
        if row["tape_epoch"] != epoch:
            continue
        if offset >= position or (offset >= left and not _is_posted(letter, offset, prints)):
            undue.append(offset)
        elif prints.get(offset, _print(letter)) != _print(letter):
            changed.append(offset)
    missing = [
        offset
        for name, (offset, at_us) in first_of.items()
        if name not in held and at_us >= retained_from_us
    ]
    problems = (
        *_problem(
            "LETTER_ROW_MISSING", missing, "dead letters of the tape that ops.dead_letters lacks"
        ),
        *_problem(
            "LETTER_ROW_DOUBLED", doubled, "dead letters that ops.dead_letters has more than once"
        ),
        *_problem(
            "LETTER_ROW_UNDUE", undue, "rows of ops.dead_letters that the tape does not have"
        ),
        *_problem(
            "LETTER_ROW_CHANGED", changed, "rows of ops.dead_letters that are not as on the tape"
        ),
    )
    return ComparedLetters(problems, rows, waiting)


def stored_letters(sources: LetterSources, topic: str, epoch: int) -> Iterator[DeadLetter]:
    """Read the letters of a tape that the table holds, without their values.

    Raises:
        Unavailable: LAKE_UNAVAILABLE.
        Data: LAKE_CORRUPT.
    """
    view = sources.view()
    conditions = [("origin", "==", topic), ("origin_epoch", "==", epoch)]
    for row in view.newest(LETTER_COLUMNS_LISTED, conditions) if view else ():
        yield letter_of(row)


def _is_posted(letter: DeadLetter, offset: int, prints: dict[int, bytes]) -> bool:
    """Return whether the tape has a letter there; a record that is no letter has a row too."""
    return offset in prints or letter.topic == topics.DEAD_LETTERS


def _print(letter: DeadLetter) -> bytes:
    values = (letter.name, letter.schema_id, letter.fault.name, letter.error, letter.at_us)
    content = repr(values).encode() + (b"-" if letter.value is None else b"+" + letter.value)
    return blake2b(content, digest_size=16).digest()


def _problem(kind: str, offsets: list[int], what: str) -> list[Problem]:
    listed = tuple(sorted(offsets)[: limits.VERIFY_OFFSETS_LISTED])
    return [Problem(kind, None, len(offsets), listed, what)] if offsets else []
