"""Follows what feeds and ledger say of trade ids, so that answers are compared with it from memory.

A thread reads, about twice a second, which feeds listen, what they have promised, what the ledger
says, and then where the tape ends. So every record promised by such an *observation* lies below its
end, and an answer cut at E may be compared with the newest observation that ended at or below E:
ids that it promises and the fold has not accepted are missing. Answering does no I/O.

An observation vouches for what follows it only until the next one, and for a few seconds at most:
where the next came late, or not at all, nothing is known. Older observations are kept, some seconds
apart, for as long as a ticket may be opened.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from k2 import limits
from k2.clock import Clock
from k2.errors import K2Error
from k2.feed.publish.coverage_topic import coverage_in
from k2.market.coverage import Coverage, hull
from k2.market.events import Int64s
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapEvent, GapState, Ledger
from k2.market.offsets import OffsetVector
from k2.query.provenance import Expected, united
from k2.tape.ports import DocumentTopic, GapEventLog

_KEPT_S: Final = limits.TICKET_LIFE_S + limits.QUERY_DEADLINE_S
_APART_S: Final = limits.HEARTBEAT_STALE_S / 2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Observation:
    """What was known at a moment.

    Attributes:
        at_s: when, monotonic seconds, before anything was read.
        ends: where the tape ended, after all else was read.
        expected: what was read.
    """

    at_s: float
    ends: tuple[int, ...]
    expected: Mapping[Instrument, Expected]


@dataclass(frozen=True)
class GapCounts:
    """How many gaps the ledger has of each state, and how many ids are in them."""

    count: Mapping[str, int]
    ids: Mapping[str, int]


class ExpectedIds:
    """The expected ids of all instruments at recent moments. One thread follows; any thread asks.

    Args:
        promises: of feeds: `CompactedTopic(bootstrap, topics.COVERAGE)`.
        gaps: the ledger's log; used by this object alone.
        listened: which instruments a feed hears now, without a break since their newest trade.
        ends: asks the broker for the end of every partition of the tape.
        clock: monotonic time of observations.

    Attributes:
        ends: as given.
    """

    def __init__(
        self,
        *,
        promises: DocumentTopic,
        gaps: GapEventLog,
        listened: Callable[[], Collection[Instrument]],
        ends: Callable[[], tuple[int, ...]],
        clock: Clock,
    ) -> None:
        self.ends = ends
        self._promises = promises
        self._gaps = gaps
        self._listened = listened
        self._clock = clock
        self._ledger = Ledger()
        self._gaps_of: dict[Instrument, GapCounts] = {}
        self._of_ledger: dict[Instrument, Expected] = {}
        self._observations: tuple[_Observation, ...] = ()
        self._followed = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="coverage", daemon=True)

    def start(self) -> None:
        """Follow, in a thread of its own, from now to `close`; once."""
        self._thread.start()

    def close(self) -> None:
        """Stop following; afterwards the sources may be closed."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def wait(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` for the first observation; return whether there is one."""
        return self._followed.wait(timeout_s)

    def at(
        self, end: OffsetVector, partitions: Collection[int], *, now: bool = False
    ) -> Mapping[Instrument, Expected] | None:
        """Return what an answer cut at an end of the tape is compared with; None where not known.

        Args:
            end: of the epoch that the tape is in.
            partitions: the ones that matter.
            now: whether the end is a reader's present position, not a moment that may be over.
        """
        observations, until_s = self._observations, self._clock.monotonic_s()
        for observation in reversed(observations):
            if all(observation.ends[p] <= end[p] for p in partitions):
                known = until_s - observation.at_s <= limits.HEARTBEAT_STALE_S
                return observation.expected if known else None
            until_s = until_s if now else observation.at_s
        return None

    def gaps(self) -> GapCounts:
        """Count the gaps of the ledger, as of the last observation."""
        parts = list(self._gaps_of.values())
        return GapCounts(
            {state: sum(part.count[state] for part in parts) for state in GapState},
            {state: sum(part.ids[state] for part in parts) for state in GapState},
        )

    def follow(self) -> None:
        """Take one observation; the thread repeats this until `close`.

        Raises:
            Unavailable: TAPE_UNAVAILABLE, REGISTRY_UNAVAILABLE; there is no observation then.
        """
        at_s = self._clock.monotonic_s()
        listened = self._listened()
        promises = coverage_in(self._promises.current_to_end())
        self._advance()
        expected = dict(self._of_ledger)
        for instrument, of_feeds in promises.items():
            known = expected.get(instrument, _NOTHING)
            of_all = hull(of_feeds.values())
            promised, since = united(_ids(of_all), known.promised), of_all.began_after + 1
            expected[instrument] = replace(known, promised=promised, since=since)
        for instrument in listened:
            expected[instrument] = replace(expected.get(instrument, _NOTHING), listened=True)
        self._keep(_Observation(at_s, self.ends(), expected))
        self._followed.set()

    def _advance(self) -> None:
        changed = set()
        for event in self._gaps.advance():
            self._ledger.apply(event)
            changed.add(event.instrument)
        for instrument in changed:
            gaps = list(self._ledger.gaps([instrument]))
            self._gaps_of[instrument] = _counted(gaps)
            self._of_ledger[instrument] = Expected(
                _ranges(gap for gap in gaps if _is_missing(gap)),
                _ranges(gap for gap in gaps if gap.state is GapState.VOID),
                _ranges(gap for gap in gaps if gap.state is GapState.OPEN),
            )

    def _keep(self, newest: _Observation) -> None:
        """Keep the newest observation beside older ones that lie some time apart."""
        kept = [*self._observations]
        if len(kept) > 1 and newest.at_s - kept[-2].at_s < _APART_S:
            del kept[-1]
        self._observations = tuple(
            observation
            for observation in (*kept, newest)
            if newest.at_s - observation.at_s <= _KEPT_S
        )

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.follow()
            except K2Error as error:
                log.warning("not followed: %s", error.message, extra={"reason": error.reason})
            except Exception:  # the next reading may succeed
                log.exception("what feeds promise could not be followed")
            self._stopping.wait(limits.SNAPSHOT_POLL_S)


def _counted(gaps: Iterable[GapEvent]) -> GapCounts:
    count, ids = Counter[str](), Counter[str]()
    for gap in gaps:
        count[gap.state] += 1
        ids[gap.state] += gap.last_id - gap.first_id + 1
    return GapCounts(count, ids)


def _ids(promise: Coverage) -> Int64s:
    """Return the ids of a promise, as one range or none."""
    first = promise.began_after + 1
    return _array([(first, promise.trade_id)] if first <= promise.trade_id else [])


def _is_missing(gap: GapEvent) -> bool:
    """Tell whether the ledger expects ids that may lie outside of all promises.

    Ids that were requested by an operator are not known to be missing.
    """
    return gap.state is GapState.OPEN and gap.cause is not Cause.REQUESTED


def _ranges(gaps: Iterable[GapEvent]) -> Int64s:
    return united(_array([(gap.first_id, gap.last_id) for gap in gaps]))


def _array(ranges: list[tuple[int, int]]) -> Int64s:
    return np.array(ranges, dtype=np.int64).reshape(-1, 2)


_NOTHING = Expected()
