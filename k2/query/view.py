"""Holds lake and tail together: plans requests, and holds the rows that an answer reads.

One snapshot at a time is published for planning; a maintainer polls for newer ones, publishes each
*before* the tail evicts what it covers, and keeps its file list in memory. So planning does no I/O
except one request to the broker for the end of the tape (E). An answer is planned again when it is
opened, after the tail has reached E, and then holds its chunks to the end of the stream.

A read token is an earlier E. It is planned like any union, on the oldest snapshot that holds all
below it, so that the tail adds nothing; where there is none yet, beside the tail as when it was
made. Rows below E never change, so the answer does not either, whatever became of files and
snapshots.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from k2 import limits, metrics, tracing
from k2.clock import Clock
from k2.degrade.level import Tuning
from k2.errors import Data, K2Error, NotFound, Reason, Unavailable
from k2.market.fold import FoldState
from k2.market.instrument import Instrument
from k2.market.offsets import OffsetVector, ReadToken
from k2.query.expected_ids import ExpectedIds
from k2.query.lake_snapshots import (
    LakeSide,
    PlannableSnapshot,
    assert_not_truncated,
    tail_facts,
)
from k2.query.plan import MissingReason, Plan, plan_lake, plan_union
from k2.query.provenance import (
    RETENTION,
    Assurance,
    Estimate,
    Expected,
    Holes,
    MissingPart,
    Provenance,
    Vouched,
    assurance_of,
    below_retention,
    completeness,
    failure_of,
    holes_of,
    part_of,
    since,
)
from k2.query.request import Consistency, TradesRequest, validated
from k2.query.scope import Scope, is_settled, judged_otherwise, scope_of
from k2.tail.chunk import ChunkView
from k2.tail.tail import Tail
from k2.tail.window import TailView
from k2.tape.partition_map import PartitionMap

log = logging.getLogger(__name__)

DEFERRED = metrics.counter(
    "k2_query_deferred_total", "Queries that lack rows of a deferred partition, refused or partial."
)


@dataclass(frozen=True)
class PlannedQuery:
    """A request with everything that fixes its answer.

    Attributes:
        request: normalised, with `last` resolved.
        snapshot_id: S; 0 while the lake is empty.
        end: E; O(S) where the lake alone answers.
        estimate: the estimated cost of reading it.
        provenance: where the rows will come from.
        commits: traceparents of the commits that brought them, while the plan is traced.
    """

    request: TradesRequest
    snapshot_id: int
    end: OffsetVector
    estimate: Estimate
    provenance: Provenance
    commits: tuple[str, ...] = ()


@dataclass(frozen=True)
class OpenQuery:
    """A plan with the rows of the tail that it reads, held as long as this object is.

    Attributes:
        request, plan: what to answer, and how.
        held: the tail's rows, by chunk id.
        provenance: where the rows come from.
        commits: as in a plan.
        vouched: what is vouched for of each instrument, where the shape judges.
        newest_us: when each instrument traded last, at or below E or later; None where that is not
            known, or not asked.
    """

    request: TradesRequest
    plan: Plan
    held: Mapping[int, ChunkView]
    provenance: Provenance
    commits: tuple[str, ...] = ()
    vouched: Mapping[Instrument, Vouched] = field(default_factory=dict)
    newest_us: Mapping[Instrument, int] | None = None


class QueryView:
    """Plans and opens requests over lake and tail. Thread-safe once started.

    Args:
        lake: the lake's snapshots.
        tail: the tail; the view starts and closes it.
        coverage: where the tape ends, and what feeds and ledger say of trade ids.
        placement: the partition map.
        clock: of this process.
        source: what the rows are: live, recorded or simulated.
        dwell_s: how soon a level falls; when to ask again for rows that it defers.
    """

    def __init__(  # noqa: PLR0913 the parts, each by name
        self,
        *,
        lake: LakeSide,
        tail: Tail,
        coverage: ExpectedIds,
        placement: PartitionMap,
        clock: Clock,
        source: str,
        dwell_s: float = Tuning.dwell_s,
    ) -> None:
        self._lake = lake
        self._tail = tail
        self._ends = coverage.ends
        self._coverage = coverage
        self._placement = placement
        self._clock = clock
        self._source = source
        self._dwell_s = dwell_s
        self.restarts = 0  # of the tail
        self._must_restart = False  # the tail; it could not be restarted when it was due
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    # --- life -----------------------------------------------------------------------------------

    def start(self, *, maintain: bool = True) -> None:
        """Read the newest snapshot, start the tail there, and keep both fresh in a thread.

        Args:
            maintain: whether to start that thread (tests call `maintain` themselves).

        Raises:
            Unavailable: LAKE_UNAVAILABLE, TAPE_UNAVAILABLE.
        """
        self._placement.refresh()
        self._restart_tail()
        if maintain:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="view", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop the maintainer and the tail; open answers can still be read."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._tail.close()

    def maintain(self) -> None:
        """Publish the newest snapshot, then let the tail evict what it covers."""
        if self._tail.catches_up():
            with contextlib.suppress(Unavailable):
                self._tail.note_end(OffsetVector(self._tail.position().epoch, self._ends()))
        before = self._lake.published().facts.positions
        lake = self._lake.refresh()
        moved_back = not lake.facts.positions.covers(before)  # an older lake was put in its place
        if moved_back or self._tail.failure is not None or judged_otherwise(self._tail, lake):
            self._must_restart = True
        if self._must_restart:
            self._restart_tail()
            self.restarts += 1
            return
        self._tail.evict(lake.facts.positions)
        if self._tail.released():
            self._tail.restore(lake.facts.positions, self._lake.states(lake))

    def _run(self) -> None:
        while not self._stopping.wait(limits.SNAPSHOT_POLL_S):
            try:
                self.maintain()
            except K2Error as error:
                log.warning("not maintained: %s", error.message, extra={"reason": error.reason})
            except Exception:
                log.exception("the view could not be maintained")

    def _restart_tail(self) -> None:
        lake = self._lake.refresh()
        self._tail.start(lake.facts.positions, self._lake.states(lake))
        self._must_restart = False

    # --- requests -------------------------------------------------------------------------------

    def plan(self, request: TradesRequest) -> PlannedQuery:
        """Fix the answer of a request: its times, its snapshot S, its end E.

        For UNION every record acknowledged before this call lies below E.

        Raises:
            Invalid: what is wrong with the request.
            NotFound: UNKNOWN_SYMBOL, UNKNOWN_SNAPSHOT, UNKNOWN_TOKEN, OUT_OF_RANGE.
            Unavailable: TAPE_UNAVAILABLE, LAKE_UNAVAILABLE, STARTING; DEFERRED when a level paused
                partitions that have newer rows of the answer.
            Overloaded: TAIL_FULL when the tail has released rows that the answer needs.
            Data: TAPE_TRUNCATED when the tape lost records that were read earlier.
        """
        request = validated(request).resolved(self._clock.now_us())
        self._scope(request)
        lake, end, missing = self._pinned(request)
        if self._is_of_lake(request, end):
            opened = self._lake_only(request, lake, end)
        else:
            opened = self._union(request, lake, end, missing, waited=False)
        estimate = _estimate_of(opened.plan)
        return PlannedQuery(
            request, lake.snapshot_id, end, estimate, opened.provenance, opened.commits
        )

    def rough(self, request: TradesRequest) -> Estimate:
        """Estimate from the newest snapshot's file list alone: no request to tape or lake.

        Raises:
            Invalid: what is wrong with the request.
        """
        request = validated(request).resolved(self._clock.now_us())
        lake = self._lake.published().facts
        return _estimate_of(plan_lake(request, lake, lake.positions))

    def _pinned(
        self, request: TradesRequest
    ) -> tuple[PlannableSnapshot, OffsetVector, tuple[MissingPart, ...]]:
        """Return S and E of a request, and what is missing when E had to be estimated."""
        if request.as_of_token is not None:
            return self._covering(request, request.as_of_token), request.as_of_token.end, ()
        if request.needs_lake_alone:
            lake = self._lake.pinned(request)
            return lake, lake.facts.positions, ()
        lake = self._lake.published()
        return lake, *self._end(request, lake)

    def _is_of_lake(self, request: TradesRequest, end: OffsetVector) -> bool:
        """Tell whether one snapshot answers; the tail holds nothing of an older epoch's token."""
        older = end.epoch < self._lake.published().facts.positions.epoch
        return request.needs_lake_alone or (request.as_of_token is not None and older)

    def _covering(self, request: TradesRequest, token: ReadToken) -> PlannableSnapshot:
        """Return the snapshot to plan a token on, after checking that the tape reaches its end."""
        lake = self._lake.covering(token)
        if lake is not None:
            return lake
        with contextlib.suppress(*((Unavailable,) if request.allow_partial else ())):
            end = OffsetVector(token.end.epoch, self._ends())
            if not end.covers(token.end):
                raise NotFound(
                    Reason.OUT_OF_RANGE,
                    f"the read token ends at {token.end.encode()}, the tape at {end.encode()}: it"
                    " lost records, or was restored from before the token",
                )
        return self._lake.published()

    def open(self, request: TradesRequest, snapshot_id: int, end: OffsetVector) -> OpenQuery:
        """Prepare the answer that `plan` fixed, in this process or another.

        Waits, bounded, until the tail has reached E. Where the tail has evicted rows above O(S), or
        S is no longer kept, a newer snapshot answers, cut at E: the rows are the same.

        Args:
            request: of a `PlannedQuery`.
            snapshot_id: S.
            end: E.

        Raises:
            NotFound: UNKNOWN_SYMBOL.
            Unavailable: TAIL_BEHIND, DEFERRED, LAKE_UNAVAILABLE, STARTING.
            Overloaded: TAIL_FULL.
            Data: EPOCH_ENDED when E is of an epoch that can no longer answer.
        """
        lake = self._lake.named_or_newer(snapshot_id)
        alone = self._is_of_lake(request, end)
        self._lake.assert_answers(lake, end, union=not alone)
        if alone:
            return self._lake_only(request, lake, end)
        with tracing.begin(tracing.TAIL):
            self._wait(request, lake, end)
        to_now = request.consistency is Consistency.UNION
        missing = self._end(request, lake)[1] if to_now and request.allow_partial else ()
        return self._union(request, lake, end, missing, waited=True)

    def _lake_only(
        self, request: TradesRequest, lake: PlannableSnapshot, end: OffsetVector
    ) -> OpenQuery:
        plan = plan_lake(request, lake.facts, end)
        parts = list(self._accepted(request, plan, waited=True))
        states = self._lake.states_at(end, lake, range(len(end.offsets)))
        assurance = self._pinned_assurance(request, self._scope(request), states)
        parts += below_retention(lake.retained_from_us, plan.times)
        provenance = replace(
            self._provenance(request, lake, end, assurance.holes),
            completeness=completeness(assurance.holes, parts),
            missing=tuple(parts),
        )
        opened = OpenQuery(request, plan, {}, provenance, self._commits_of(plan))
        return _judged(opened, assurance, lake.retained_from_us)

    def _union(
        self,
        request: TradesRequest,
        lake: PlannableSnapshot,
        end: OffsetVector,
        missing: Sequence[MissingPart],
        *,
        waited: bool,
    ) -> OpenQuery:
        scope = self._scope(request)
        view, plan, lake = self._best_plan(request, scope, lake, end)
        parts = [*missing, *self._accepted(request, plan, waited=waited)]
        parts += () if plan.skips_lake else below_retention(lake.retained_from_us, plan.times)
        to_now = request.consistency is Consistency.UNION
        if to_now:
            assurance = self._assurance_to_now(request, scope, end)
        else:
            states = self._lake.states_at(end, lake, scope.partitions)
            assurance = self._pinned_assurance(request, scope, states)
        provenance = replace(
            self._provenance(request, lake, end, assurance.holes),
            newest_receive_us=view.receive_max_us if to_now else None,
            completeness=completeness(assurance.holes, parts),
            missing=tuple(parts),
        )
        opened = OpenQuery(request, plan, view.held, provenance, self._commits_of(plan))
        return _judged(opened, assurance, lake.retained_from_us)

    def _commits_of(self, plan: Plan) -> tuple[str, ...]:
        return self._lake.commits_of(plan.files.paths) if tracing.recording() else ()

    def _assurance_to_now(
        self, request: TradesRequest, scope: Scope, end: OffsetVector
    ) -> Assurance:
        """Find the holes of an answer up to E; its edges are unknown until the tail is there."""
        position, released = self._tail.position(), self._tail.released()
        reached = all(position[p] >= end[p] and p not in released for p in scope.partitions)
        states = self._tail.states()
        expected = self._coverage.at(end, scope.partitions) if reached else None
        holes = holes_of(states, scope.instruments, request.complete_range, expected)
        covered = self._lake.published().facts.positions
        settled = is_settled(self._tail, covered, end, scope)
        holes = holes if settled else replace(holes, all_known=False)
        vouches = expected if settled and request.shape.judges else None
        return assurance_of(holes, states if reached else None, scope.instruments, vouches)

    def _pinned_assurance(
        self, request: TradesRequest, scope: Scope, states: Mapping[int, FoldState] | None
    ) -> Assurance:
        """Find the holes of an answer cut below the end of the tape; None where not known.

        Rows of AS_OF never change, so it does not depend on whether a feed listens now.
        """
        if states is None:
            return Assurance(None)
        expected = self._coverage.at(self._tail.position(), scope.partitions, now=True)
        now = self._tail.states()  # at least as far as the position before
        if expected is not None and request.consistency is Consistency.AS_OF:
            seen = {instrument for state in states.values() for instrument in state.seen}
            expected = {
                instrument: replace(expected.get(instrument, Expected()), listened=True)
                for instrument in seen
                if scope.instruments is None or instrument in scope.instruments
            }
        holes = holes_of(states, scope.instruments, request.complete_range, expected, now)
        vouches = expected if request.shape.judges else None
        return assurance_of(holes, states, scope.instruments, vouches, now)

    def _accepted(
        self, request: TradesRequest, plan: Plan, *, waited: bool
    ) -> Iterator[MissingPart]:
        """Yield what a plan lacks, where the caller accepts that; else raise the first of it."""
        for side in plan.missing:
            if side.reason is MissingReason.BEHIND and not waited:
                continue
            stopped = self._tail.failure or self._tail.waiting_for(side.partitions)
            interval_s = self._lake.commit_interval_s
            failure = failure_of(side, stopped, interval_s, self._dwell_s)
            if failure.reason is Reason.DEFERRED and not (waited and request.allow_partial):
                DEFERRED.inc()  # once a query: a partial one is planned before it is opened
            if not request.allow_partial:
                raise failure
            yield part_of(side, failure)

    def _best_plan(
        self, request: TradesRequest, scope: Scope, lake: PlannableSnapshot, end: OffsetVector
    ) -> tuple[TailView, Plan, PlannableSnapshot]:
        """Plan with as little missing as possible: on a newer snapshot where the tail lacks rows.

        What the tail has evicted, a snapshot published before covers; so the snapshot published
        after the tail was viewed reaches up to what the tail still holds.
        """
        view = self._tail.view(scope.instruments, end)
        facts = tail_facts(view, request, self._tail.deferred())
        plan = plan_union(request, scope.partitions, lake.facts, facts, end)
        if plan.missing and (newer := self._lake.newer_than(lake)):
            lake = newer
            plan = plan_union(request, scope.partitions, lake.facts, facts, end)
        if request.allow_partial and not _readable(plan):
            plan = plan_union(request, scope.partitions, None, facts, end)
        return view, plan, lake

    def _provenance(
        self,
        request: TradesRequest,
        lake: PlannableSnapshot,
        end: OffsetVector,
        holes: Holes | None,
    ) -> Provenance:
        """Make the provenance of an answer that lacks no side."""
        now_us = self._clock.now_us()
        return Provenance(
            snapshot_id=lake.snapshot_id,
            committed_at_us=lake.snapshot.committed_at_us if lake.snapshot else None,
            positions=lake.facts.positions,
            end=end,
            topic_id=self._lake.topic_in(end.epoch),
            planned_at_us=now_us,
            newest_receive_us=None,
            source=self._source,
            completeness=completeness(holes, ()),
            gaps=holes.listed if holes else (),
            gaps_total=holes.total if holes else 0,
            missing=(),
            range=request.range,
            covered_until_us=holes.covered_until_us if holes else None,
            as_of_ahead_us=_ahead_us(request, now_us),
        )

    # --- tape and tail --------------------------------------------------------------------------

    def _scope(self, request: TradesRequest) -> Scope:
        return scope_of(request, self._placement, self._tail, self._lake.partitions)

    def _end(
        self, request: TradesRequest, lake: PlannableSnapshot
    ) -> tuple[OffsetVector, tuple[MissingPart, ...]]:
        """Return E; where the broker gives none and that is allowed, the position of the tail."""
        position = self._tail.position()
        try:
            end = OffsetVector(position.epoch, self._ends())
            assert_not_truncated(end, (position, lake.facts.positions))
        except (Unavailable, Data) as error:
            if not request.allow_partial:
                raise
            return position, (MissingPart("tail", error.reason, error.message),)
        if self._tail.catches_up():
            self._tail.note_end(end)  # sooner than `maintain` does
        return end, ()

    def _wait(self, request: TradesRequest, lake: PlannableSnapshot, end: OffsetVector) -> None:
        """Wait for the rows below E that the lake lacks; the plan then names what is missing.

        Without a named exchange a symbol may be new on another one, in any partition. Where the
        others are not at E shortly after those that are known, the partition map decides: a symbol
        is placed before its first record is sent.
        """
        partitions = self._scope(request).partitions
        if not self._wait_for(partitions, lake, end, limits.WAIT_FOR_TAIL_S):
            return
        everywhere = range(self._lake.partitions)
        if request.exchanges or self._wait_for(everywhere, lake, end, limits.WAIT_FOR_OTHERS_S):
            return
        with contextlib.suppress(*((Unavailable,) if request.allow_partial else ())):
            self._placement.refresh()
        self._wait_for(self._scope(request).partitions, lake, end, limits.WAIT_FOR_TAIL_S)

    def _wait_for(
        self, partitions: Iterable[int], lake: PlannableSnapshot, end: OffsetVector, wait_s: float
    ) -> bool:
        released = self._tail.released()
        if released:
            self._placement.refresh()
        needed = [p for p in partitions if lake.facts.positions[p] < end[p] and p not in released]
        return self._tail.wait_until(end, wait_s, needed)


def _judged(opened: OpenQuery, assurance: Assurance, retained_from_us: int | None) -> OpenQuery:
    """Return the answer with what is vouched for: nothing where it lacks more than old trades."""
    if not opened.request.shape.judges:
        return opened
    lacks = any(part.part != RETENTION for part in opened.provenance.missing)
    vouched = {} if lacks else since(assurance.vouched, retained_from_us)
    return replace(opened, vouched=vouched, newest_us=assurance.newest_us)


def _estimate_of(plan: Plan) -> Estimate:
    return Estimate(len(plan.files), len(plan.chunks), plan.files.size_bytes, plan.rows_estimated)


def _ahead_us(request: TradesRequest, now_us: int) -> int | None:
    """Return how far the requested time lies in the future; None where it does not."""
    time_us = request.as_of_time_us
    return time_us - now_us if time_us is not None and time_us > now_us else None


def _readable(plan: Plan) -> bool:
    """Tell whether the files of a plan exist; used only where a partial answer is allowed."""
    return all(Path(path.removeprefix("file://")).exists() for path in plan.files.paths)
