"""The history of tape epochs, as every snapshot carries it.

An epoch is one life of the tape. It begins at the positions of its first records, with the ids of
all rows of earlier epochs, and ends when an operator ends it (`epoch_transition.py`): its last
snapshot names the reason, and the next snapshot is the first of the next epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from k2.market.offsets import OffsetVector


@dataclass(frozen=True)
class EpochHistory:
    """The epoch of a snapshot and the epochs before it.

    Attributes:
        past: end positions of each earlier epoch, oldest first: the lake holds the records below.
        past_topics: the id of the topic that each of those read.
        start: the first positions of this epoch; None where every partition began at 0.
        start_state: the file with the fold's state at `start`; empty where there was none.
        ended: why this epoch has ended and the next one awaits its tape; empty while it lasts.
        marks: of the last record below the position of each partition (`tape/truncation_check.py`),
            empty where there is none; no entries at all before the first commit of the epoch.
        rules: the version of `fold.RULES` that judges the epoch's records; 0 where a K2 without the
            number began it, and in the ops tables.
    """

    past: tuple[OffsetVector, ...] = ()
    past_topics: tuple[str, ...] = ()
    start: OffsetVector | None = None
    start_state: str = ""
    ended: str = ""
    marks: tuple[str, ...] = ()
    rules: int = 0

    def marked(self, partition: int, mark: str, partitions: int) -> EpochHistory:
        """Return the history with another mark of one partition."""
        marks = [*(self.marks or ("",) * partitions)]
        marks[partition] = mark
        return replace(self, marks=tuple(marks))

    def properties(self) -> dict[str, str]:
        """Encode as properties of a snapshot's summary and of the table; `epochs_of` decodes."""
        return {
            "k2.past-epochs": ";".join(end.encode() for end in self.past),
            "k2.past-topics": ",".join(self.past_topics),
            "k2.epoch-start": self.start.encode() if self.start else "",
            "k2.epoch-state": self.start_state,
            "k2.epoch-ended": self.ended,
            "k2.marks": ",".join(self.marks),
            "k2.rules": str(self.rules),
        }


def epochs_of(properties: Mapping[str, Any]) -> EpochHistory:
    """Decode what `EpochHistory.properties` encoded; commits without it are of the first epoch.

    Raises:
        ValueError: a property has another form.
    """
    past = str(properties.get("k2.past-epochs", ""))
    topics = str(properties.get("k2.past-topics", ""))
    start = str(properties.get("k2.epoch-start", ""))
    marks = str(properties.get("k2.marks", ""))
    return EpochHistory(
        past=tuple(OffsetVector.decode(end) for end in past.split(";") if end),
        past_topics=tuple(topics.split(",")) if topics else (),
        start=OffsetVector.decode(start) if start else None,
        start_state=str(properties.get("k2.epoch-state", "")),
        ended=str(properties.get("k2.epoch-ended", "")),
        marks=tuple(marks.split(",")) if marks else (),
        rules=int(properties.get("k2.rules", 0)),
    )
