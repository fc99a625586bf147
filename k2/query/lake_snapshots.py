"""Holds the lake's snapshots for queries: what was read of them stays in memory.

A warm plan does no I/O.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from k2 import limits
from k2.errors import Data, NotFound, Reason, Unavailable
from k2.lake.commit.committer import assert_same_rules, assert_same_topic, written_from
from k2.lake.iceberg.epochs import EpochHistory
from k2.lake.iceberg.snapshot import LakeSnapshot, SnapshotReader
from k2.market.files import FileIndex
from k2.market.fold import FoldState
from k2.market.offsets import OffsetVector, ReadToken
from k2.query.plan import LakeFacts, TailFacts
from k2.query.request import TradesRequest
from k2.tail.window import TailView
from k2.tape.consumer import lost_position

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class PlannableSnapshot:
    """A snapshot ready to be planned on; `snapshot` is None while the lake is empty."""

    snapshot: LakeSnapshot | None
    facts: LakeFacts

    @property
    def snapshot_id(self) -> int:
        """The snapshot's id; 0 while the lake is empty."""
        return self.snapshot.snapshot_id if self.snapshot else 0

    @property
    def retained_from_us(self) -> int | None:
        """The time below which retention has removed rows; None where it has not."""
        return self.snapshot.retained_from_us if self.snapshot else None


class LakeSide:
    """One published snapshot of the lake, and some older ones kept in memory.

    Args:
        snapshots: reads the lake.
        partitions: number of partitions of the tape.
        topic_id: of the tape's topic.
        commit_interval_s: how often the lake is committed.

    Attributes:
        failure: why this process cannot continue: the lake is in another epoch of the tape. What
            this process knows of the tape is of the epoch it started in, so it must be restarted.
    """

    def __init__(
        self,
        snapshots: SnapshotReader,
        partitions: int,
        topic_id: str,
        commit_interval_s: float = limits.COMMIT_INTERVAL_S,
    ) -> None:
        self.partitions = partitions
        self.topic_id = topic_id
        self.commit_interval_s = commit_interval_s
        self.failure: Data | None = None
        self._snapshots = snapshots
        zero = OffsetVector.zero(0, partitions)
        self._empty = PlannableSnapshot(None, LakeFacts(zero, FileIndex(())))
        self._published: PlannableSnapshot | None = None
        self._kept: dict[int, PlannableSnapshot] = {}
        self._states: dict[int, Mapping[int, FoldState]] = {}
        self._refreshing = threading.Lock()

    def published(self) -> PlannableSnapshot:
        """Return the snapshot to plan on, without I/O.

        Raises:
            Unavailable: STARTING before the first `refresh`.
        """
        if self._published is None:
            raise Unavailable(
                Reason.STARTING, "the lake was not read yet", retry_after_s=limits.SNAPSHOT_POLL_S
            )
        return self._published

    def newer_than(self, lake: PlannableSnapshot) -> PlannableSnapshot | None:
        """Return the published snapshot where it reaches further than another; else None."""
        published = self.published()
        other = published.snapshot_id != lake.snapshot_id
        return (
            published if other and published.facts.positions.covers(lake.facts.positions) else None
        )

    def refresh(self) -> PlannableSnapshot:
        """Read the newest snapshot and publish it.

        Raises:
            Unavailable: LAKE_UNAVAILABLE; STARTING while the next epoch awaits its tape; the
                snapshot published before stays.
            Data: EPOCH_ENDED when the lake is in another epoch than before; PARTITIONS_CHANGED,
                TOPIC_RECREATED when it was written from another tape.
        """
        with self._refreshing:
            snapshot = self._snapshots.current()
            if snapshot:
                self._assert_goes_on(snapshot)
            self._published = self._ready(snapshot) if snapshot else self._empty
            return self._published

    def pinned(self, request: TradesRequest) -> PlannableSnapshot:
        """Return the snapshot that COMMITTED or AS_OF means.

        Raises:
            NotFound: UNKNOWN_SNAPSHOT.
            Unavailable: LAKE_UNAVAILABLE.
        """
        if request.as_of_snapshot is not None:
            return self._ready(self._snapshots.get(request.as_of_snapshot))
        if request.as_of_time_us is not None:
            return self._ready(self._snapshots.as_of(request.as_of_time_us))
        return self.refresh()

    def covering(self, token: ReadToken) -> PlannableSnapshot | None:
        """Return the oldest snapshot that holds all rows of a token; None when the tail holds some.

        The oldest holds the fewest other rows.

        Raises:
            NotFound: UNKNOWN_TOKEN when the token is of another tape; OUT_OF_RANGE when it is of an
                epoch that ended below it.
            Unavailable: LAKE_UNAVAILABLE; STARTING.
        """
        end = token.end
        tape, ended = self._tape_in(end.epoch)
        if (token.topic_id, len(end.offsets)) != tape:
            raise NotFound(
                Reason.UNKNOWN_TOKEN,
                f"the read token is of a tape with topic id {token.topic_id} and"
                f" {len(end.offsets)} partitions in epoch {end.epoch}; this lake has another there,"
                " or none",
                metadata={"topic_id": token.topic_id},
            )
        if ended is not None and not ended.covers(end):
            raise NotFound(
                Reason.OUT_OF_RANGE,
                f"the read token ends at {end.encode()}, its epoch of the tape at"
                f" {ended.encode()}: the records between were lost with it",
            )
        snapshot = self._snapshots.covering(end)
        if snapshot is None and ended is not None:
            return self.published()
        return self._ready(snapshot) if snapshot else None

    def commits_of(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Return the traceparents of the commits that wrote files, where they were traced."""
        return self._snapshots.traces(paths)

    def topic_in(self, epoch: int) -> str:
        """Return the id of the topic that an epoch read; empty where that is not known."""
        (topic_id, _), _ = self._tape_in(epoch)
        return topic_id

    def _tape_in(self, epoch: int) -> tuple[tuple[str, int], OffsetVector | None]:
        """Return topic id and partition count of an epoch, and its end; None while it lasts."""
        published = self.published()
        if epoch == published.facts.positions.epoch:
            return (self.topic_id, self.partitions), None
        epochs = published.snapshot.epochs if published.snapshot else EpochHistory()
        if not 0 <= epoch < len(epochs.past_topics):
            return ("", 0), None
        end = epochs.past[epoch]
        return (epochs.past_topics[epoch], len(end.offsets)), end

    def named_or_newer(self, snapshot_id: int) -> PlannableSnapshot:
        """Return a snapshot by its id, or the published one where it is no longer kept.

        A newer snapshot holds the same rows below the same positions, so it answers as well.
        """
        kept = self._kept.get(snapshot_id)
        if kept is not None or snapshot_id == 0:
            return kept or self.published()
        try:
            return self._ready(self._snapshots.get(snapshot_id))
        except (NotFound, Unavailable):
            return self.published()

    def assert_answers(self, lake: PlannableSnapshot, end: OffsetVector, *, union: bool) -> None:
        """Refuse an end E that a snapshot, and for UNION the tail, can no longer be cut at.

        The lake alone answers any older end; the tail reads no epoch but the published one.

        Raises:
            Data: EPOCH_ENDED.
        """
        now, holds = self.published().facts.positions, lake.facts.positions
        of_another = end.epoch == holds.epoch and len(end.offsets) != len(holds.offsets)
        if of_another or end.epoch > holds.epoch or (union and end.epoch != now.epoch):
            raise Data(
                Reason.EPOCH_ENDED,
                f"the query was planned in epoch {end.epoch} of the tape, the lake is in epoch"
                f" {now.epoch}: plan it again",
            )

    def states(self, of: PlannableSnapshot) -> Mapping[int, FoldState]:
        """Return the fold's states at a snapshot; none while the lake is empty."""
        if of.snapshot is None:
            return {}
        states = self._states.get(of.snapshot_id)
        if states is None:
            states = self._snapshots.states(of.snapshot)
            self._states = _newest(self._states) | {of.snapshot_id: states}
        return states

    def states_at(
        self, end: OffsetVector, of: PlannableSnapshot, partitions: Collection[int]
    ) -> Mapping[int, FoldState] | None:
        """Return the fold's states at `end`; None where this snapshot's are of another moment.

        Later states do not answer: an id that was missing at `end` may have arrived since.
        """
        held = of.facts.positions
        same = held.epoch == end.epoch and all(
            held[partition] == end[partition] for partition in partitions
        )
        return self.states(of) if same else None

    def _assert_goes_on(self, newest: LakeSnapshot) -> None:
        if newest.epochs.ended:
            raise Unavailable(
                Reason.STARTING,
                "the tape epoch has ended; the next begins when the lake's writer has started",
                retry_after_s=limits.SNAPSHOT_POLL_S,
            )
        before, now = self._published and self._published.snapshot, newest.positions
        if before and before.positions.epoch != now.epoch:
            self.failure = Data(
                Reason.EPOCH_ENDED,
                f"the lake has moved from epoch {before.positions.epoch} of the tape to epoch"
                f" {now.epoch}: start this process again",
            )
            raise self.failure
        written = written_from(newest)
        tape = replace(written, topic_id=self.topic_id, partitions=self.partitions)
        assert_same_topic(written, tape)
        assert_same_rules(newest)

    def _ready(self, snapshot: LakeSnapshot) -> PlannableSnapshot:
        kept = self._kept.get(snapshot.snapshot_id)
        if kept is None:
            files = FileIndex(self._snapshots.files(snapshot.snapshot_id))
            kept = PlannableSnapshot(snapshot, LakeFacts(snapshot.positions, files))
            self._kept = _newest(self._kept) | {snapshot.snapshot_id: kept}
        return kept


def tail_facts(
    view: TailView, request: TradesRequest, deferred: frozenset[int] = frozenset()
) -> TailFacts:
    """Reduce a view of the tail to what a plan of the request needs.

    Args:
        view: of the tail.
        request: to be planned.
        deferred: partitions that the tail reads later.
    """
    ranges = (chunk.range for chunk in view.held.values())
    return TailFacts(
        view.position,
        view.low,
        view.released,
        {name: time_us for name, time_us in view.time_max_below.items() if request.names(name)},
        tuple(chunk for chunk in ranges if request.names(chunk.instrument)),
        deferred,
    )


def assert_not_truncated(end: OffsetVector, known: Iterable[OffsetVector]) -> None:
    """Refuse an end of the tape that lies below what was read before it was requested.

    A query cut there would be answered as if the rows above had never existed.

    Raises:
        Data: TAPE_TRUNCATED.
    """
    for positions in known:
        for partition, position in enumerate(positions.offsets):
            if end[partition] < position:
                raise lost_position(partition, position, 0, end[partition])


def _newest(kept: Mapping[int, Kept]) -> dict[int, Kept]:
    """Drop the oldest entries, so that there is room for one more."""
    return dict([*kept.items()][1 - limits.FILE_LISTS_KEPT :])
