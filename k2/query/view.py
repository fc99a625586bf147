"""Holds lake and tail together: plans questions, and holds what an answer reads.

One snapshot at a time is published for planning; a maintainer polls for newer ones, publishes each
*before* the tail evicts what it covers, and keeps its file list in memory. So planning does no I/O
but one question to the broker: where the tape ends (E). An answer is planned again when it is
opened, after the tail has reached E, and then holds its chunks to the end of the stream.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from k2 import limits
from k2.clock import Clock
from k2.errors import Data, K2Error, NotFound, Overloaded, Reason, Unavailable
from k2.market.instrument import Instrument
from k2.market.offsets import OffsetVector
from k2.query.plan import Lack, Missing, Plan, TailFacts, plan_lake, plan_union
from k2.query.provenance import (
    Estimate,
    Holes,
    MissingPart,
    Provenance,
    completeness,
    holes_of,
)
from k2.query.request import Consistency, TradesRequest, validated
from k2.query.sides import Homes, LakeSide, PlannableSnapshot, TailSource
from k2.tape.chunk import Held
from k2.tape.window import TailView

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedQuery:
    """A question with everything that fixes its answer.

    Attributes:
        request: normalised, with `last` resolved.
        snapshot_id: S; 0 while the lake is empty.
        end: E; O(S) where the lake alone answers.
        estimate: what reading it will cost, about.
        provenance: where the rows will come from.
    """

    request: TradesRequest
    snapshot_id: int
    end: OffsetVector
    estimate: Estimate
    provenance: Provenance


@dataclass(frozen=True)
class OpenQuery:
    """A plan with the rows of the tail that it reads, held as long as this object is.

    Attributes:
        request, plan: what to answer, and how.
        held: the tail's rows, by chunk id.
        provenance: where the rows come from.
    """

    request: TradesRequest
    plan: Plan
    held: Mapping[int, Held]
    provenance: Provenance


@dataclass(frozen=True)
class _Asked:
    """Whom a request is about; `instruments` is None for all."""

    instruments: frozenset[Instrument] | None
    partitions: frozenset[int]


class QueryView:
    """See the module. Thread-safe once started.

    Args:
        lake: the lake's side.
        tail: the tail's side; the view starts and closes it.
        ends: asks the broker for the end of every partition; called by many threads.
        placement: the partition map.
        clock: of this process.
        source: where the data come from: live, recorded or simulated.
    """

    def __init__(
        self,
        *,
        lake: LakeSide,
        tail: TailSource,
        ends: Callable[[], tuple[int, ...]],
        placement: Homes,
        clock: Clock,
        source: str,
    ) -> None:
        self._lake = lake
        self._tail = tail
        self._ends = ends
        self._placement = placement
        self._clock = clock
        self._source = source
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
        lake = self._lake.refresh()
        if self._tail.failure is not None:
            self._restart_tail()
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

    # --- asking ---------------------------------------------------------------------------------

    def plan(self, request: TradesRequest) -> PlannedQuery:
        """Fix the answer of a request: its times, its snapshot S, its end E.

        For UNION every record acknowledged before this call lies below E.

        Raises:
            Invalid: what is wrong with the request.
            NotFound: UNKNOWN_SYMBOL, UNKNOWN_SNAPSHOT.
            Unavailable: TAPE_UNAVAILABLE, LAKE_UNAVAILABLE, STARTING.
            Overloaded: TAIL_FULL when the tail let rows go that the answer needs.
        """
        request = validated(request).resolved(self._clock.now_us())
        self._asked(request)
        if request.consistency is Consistency.UNION:
            lake = self._lake.published()
            end, missing = self._end(request)
            opened = self._union(request, lake, end, missing, waited=False)
        else:
            lake = self._lake.pinned(request)
            end = lake.facts.positions
            opened = self._lake_only(request, lake, end)
        plan = opened.plan
        estimate = Estimate(
            len(plan.files), len(plan.chunks), plan.files.size_bytes, plan.rows_estimated
        )
        return PlannedQuery(request, lake.snapshot_id, end, estimate, opened.provenance)

    def open(self, request: TradesRequest, snapshot_id: int, end: OffsetVector) -> OpenQuery:
        """Get ready to answer what `plan` fixed, in this process or another.

        Waits, bounded, until the tail has reached E. Where the tail has let go rows above O(S), or
        S is no longer kept, a newer snapshot answers, cut at E: the rows are the same.

        Args:
            request: of a `PlannedQuery`.
            snapshot_id: S.
            end: E.

        Raises:
            NotFound: UNKNOWN_SYMBOL.
            Unavailable: TAIL_BEHIND, LAKE_UNAVAILABLE, STARTING.
            Overloaded: TAIL_FULL.
            Data: PARTITIONS_CHANGED when E is of another tape.
        """
        lake = self._lake.named_or_newer(snapshot_id)
        if len(end.offsets) != self._lake.partitions or end.epoch != lake.facts.positions.epoch:
            raise Data(
                Reason.PARTITIONS_CHANGED,
                f"the query was planned on another tape: it ends at {end.encode()}",
            )
        if request.consistency is not Consistency.UNION:
            return self._lake_only(request, lake, end)
        self._wait(request, lake, end)
        missing = self._end(request)[1] if request.allow_partial else ()
        return self._union(request, lake, end, missing, waited=True)

    def _lake_only(
        self, request: TradesRequest, lake: PlannableSnapshot, end: OffsetVector
    ) -> OpenQuery:
        plan = plan_lake(request, lake.facts, end)
        holes = holes_of(self._lake.states(lake), self._asked(request).instruments, request.range)
        return OpenQuery(
            request, plan, {}, self._provenance(lake, end, holes, newest_us=None, missing=())
        )

    def _union(
        self,
        request: TradesRequest,
        lake: PlannableSnapshot,
        end: OffsetVector,
        missing: Sequence[MissingPart],
        *,
        waited: bool,
    ) -> OpenQuery:
        asked = self._asked(request)
        view, plan, lake = self._best_plan(request, asked, lake, end)
        parts = [*missing]
        for one in plan.missing:
            if one.lack is Lack.BEHIND and not waited:
                continue
            failure = _failure(one, self._tail.failure)
            if not request.allow_partial:
                raise failure
            part = "lake" if one.lack in (Lack.LAKE, Lack.EVICTED) else "tail"
            parts.append(MissingPart(part, failure.reason, failure.message))
        holes = holes_of(self._tail.states(), asked.instruments, request.range)
        provenance = self._provenance(
            lake, end, holes, newest_us=view.receive_max_us, missing=parts
        )
        return OpenQuery(request, plan, view.held, provenance)

    def _best_plan(
        self, request: TradesRequest, asked: _Asked, lake: PlannableSnapshot, end: OffsetVector
    ) -> tuple[TailView, Plan, PlannableSnapshot]:
        """A plan that lacks as little as can be: on a newer snapshot where rows were evicted.

        What the tail has evicted, a snapshot published before covers; so the one published after
        the tail was looked at reaches up to what the tail still holds.
        """
        view = self._tail.view(asked.instruments, end)
        facts = _facts(view, request)
        plan = plan_union(request, asked.partitions, lake.facts, facts, end)
        if plan.needs_newer_snapshot:
            lake = self._lake.published()
            plan = plan_union(request, asked.partitions, lake.facts, facts, end)
        if request.allow_partial and not _readable(plan):
            plan = plan_union(request, asked.partitions, None, facts, end)
        return view, plan, lake

    def _provenance(
        self,
        lake: PlannableSnapshot,
        end: OffsetVector,
        holes: Holes | None,
        *,
        newest_us: int | None,
        missing: Sequence[MissingPart],
    ) -> Provenance:
        return Provenance(
            snapshot_id=lake.snapshot_id,
            committed_at_us=lake.snapshot.committed_at_us if lake.snapshot else None,
            positions=lake.facts.positions,
            end=end,
            planned_at_us=self._clock.now_us(),
            newest_receive_us=newest_us,
            source=self._source,
            completeness=completeness(holes, missing),
            gaps=holes.listed if holes else (),
            gaps_total=holes.total if holes else 0,
            missing=tuple(missing),
        )

    # --- tape and tail --------------------------------------------------------------------------

    def _asked(self, request: TradesRequest) -> _Asked:
        """Whom the request is about, now.

        Raises:
            NotFound: UNKNOWN_SYMBOL when a symbol or exchange named was never seen.
        """
        everything = frozenset(range(self._lake.partitions))
        if not request.symbols and not request.exchanges:
            return _Asked(None, everything)
        homes = self._placement.known()
        read = filter(request.names, self._tail.instruments())
        if _unknown(request, homes) or any(one not in homes for one in read):
            homes = self._placement.refresh()
        unknown = _unknown(request, homes)
        if unknown:
            raise NotFound(
                Reason.UNKNOWN_SYMBOL,
                f"no trade of {', '.join(unknown)} was ever seen",
                metadata={"unknown": ",".join(unknown)},
            )
        instruments = frozenset(filter(request.names, homes))
        return _Asked(instruments, frozenset(homes[one] for one in instruments))

    def _end(self, request: TradesRequest) -> tuple[OffsetVector, tuple[MissingPart, ...]]:
        """E; where the broker does not answer and that is allowed, what the tail has."""
        position = self._tail.position()
        try:
            return OffsetVector(position.epoch, self._ends()), ()
        except Unavailable as error:
            if not request.allow_partial:
                raise
            return position, (MissingPart("tail", error.reason, error.message),)

    def _wait(self, request: TradesRequest, lake: PlannableSnapshot, end: OffsetVector) -> None:
        """Wait for the rows below E that the lake does not have; the plan says what is missing.

        Without an exchange named, all partitions are waited for: a symbol may be new on another
        exchange, and is known once the tail has read its first trade.
        """
        partitions: Collection[int] = range(self._lake.partitions)
        if request.exchanges:
            partitions = self._asked(request).partitions
        released = self._tail.released()
        if released:
            self._placement.refresh()
        needed = [p for p in partitions if lake.facts.positions[p] < end[p] and p not in released]
        self._tail.wait_until(end, limits.WAIT_FOR_TAIL_S, needed)


def _facts(view: TailView, request: TradesRequest) -> TailFacts:
    """What a plan may know of a view: only what the request names."""
    ranges = (one.range for one in view.held.values())
    return TailFacts(
        view.position,
        view.low,
        view.released,
        {one: time for one, time in view.time_max_below.items() if request.names(one)},
        tuple(one for one in ranges if request.names(one.instrument)),
    )


def _unknown(request: TradesRequest, homes: Mapping[Instrument, int]) -> list[str]:
    """Symbols and exchanges named of which nothing is known."""
    named = [one for one in homes if request.names(one)]
    symbols, exchanges = {one.symbol for one in named}, {one.exchange for one in named}
    return [name for name in request.symbols if name not in symbols] + [
        name for name in request.exchanges if name not in exchanges
    ]


def _readable(plan: Plan) -> bool:
    """Whether the files of a plan are there; asked only where a partial answer is allowed."""
    return all(Path(path.removeprefix("file://")).exists() for path in plan.files.paths)


def _failure(missing: Missing, stopped: K2Error | None) -> K2Error:
    """What a plan lacks, as the error that whoever does not accept that gets."""
    partitions = ", ".join(map(str, missing.partitions))
    detail = {"partitions": partitions}
    if missing.lack is Lack.RELEASED:
        return Overloaded(
            Reason.TAIL_FULL,
            f"rows of partitions {partitions} are not in the lake yet, and the tail is full",
            metadata=detail,
            retry_after_s=limits.COMMIT_INTERVAL_S,
        )
    if missing.lack is Lack.BEHIND:
        cause = f": {stopped.message}" if stopped else ""
        return Unavailable(
            Reason.TAIL_BEHIND,
            f"the tail has not reached the end of partitions {partitions}{cause}",
            metadata=detail,
            retry_after_s=limits.TAIL_RETRY_S,
        )
    return Unavailable(
        Reason.LAKE_UNAVAILABLE,
        "the lake cannot be read, or not far enough",
        metadata=detail,
        retry_after_s=limits.SNAPSHOT_POLL_S,
    )
