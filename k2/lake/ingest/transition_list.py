"""The level's changes as one list: the table's, and from the tape those above its position."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from k2.degrade.transition import Transition, transition_of
from k2.errors import Data, Reason
from k2.lake.commit.event_files import OpsView, Row, place, place_of
from k2.lake.iceberg.tables import TRANSITIONS_LAYOUT

_COLUMNS = tuple(TRANSITIONS_LAYOUT.event.columns)


@dataclass(frozen=True)
class PlacedTransition:
    """A transition with its place on its topic, in the order of all the topic's epochs."""

    transition: Transition
    place: int


class TransitionReader:
    """Lists transitions. Thread-safe; every call reads table and tape again.

    Args:
        view: opens the table's newest snapshot.
        posted: reads offsets and transitions of the tape from an offset on.
    """

    def __init__(
        self,
        view: Callable[[], OpsView | None],
        posted: Callable[[int], Iterable[tuple[int, Transition]]],
    ) -> None:
        self._view = view
        self._posted = posted

    def newest(self, below: int | None) -> Iterator[PlacedTransition]:
        """Iterate over transitions, the newest first, read as needed.

        Args:
            below: a place; transitions at or above it are left out.

        Raises:
            Unavailable: LAKE_UNAVAILABLE, TAPE_UNAVAILABLE.
            Data: LAKE_CORRUPT.
        """
        view = self._view()
        epoch, position = (view.epoch, view.position) if view else (0, 0)
        if below is None or below > place(epoch, position):
            for offset, transition in reversed([*self._posted(position)]):
                found = PlacedTransition(transition, place(epoch, offset))
                if below is None or found.place < below:
                    yield found
        if view is not None:
            for row in view.newest(_COLUMNS, (), below):
                yield _stored(row)


def _stored(row: Row) -> PlacedTransition:
    at_us = round(row["changed"].timestamp() * 1_000_000)
    transition = transition_of(row | {"changed": at_us})
    if transition is None:
        raise Data(Reason.LAKE_CORRUPT, f"a row of ops.transitions is none: {row}")
    return PlacedTransition(transition, place_of(row))
