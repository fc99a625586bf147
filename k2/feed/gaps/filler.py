"""Fills open gaps: requests pages of trades from the venue, sends them, and records the outcome.

Each `step` does one page, or returns how long nothing can be done. A page writes only what is
certain to the ledger: FILLED for ids that the tape has acknowledged, UNFILLABLE for ids that the
venue does not have, VOID for ids that it printed without a trade. Every other id stays OPEN and is
requested again without limit, after a pause that grows with each failure. There is no other state:
a feed that is killed reads the ledger and goes on. UNFILLABLE ids are opened again every few hours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from k2 import limits
from k2.clock import Clock
from k2.errors import K2Error, NotFound, Unavailable
from k2.feed.gaps.pages import FillPage, IdReach, IdRun, judge, newest_page, runs_of
from k2.feed.gaps.recorder import GapRecorder
from k2.feed.gaps.sender import Sender
from k2.feed.venues.history import History, HistoryPage, RateLimited
from k2.feed.venues.rate_limit import WeightBudget
from k2.market.instrument import Instrument
from k2.market.ledger import (
    GapEvent,
    GapState,
    cut,
    filled,
    reopened,
    unfillable,
)

_log = logging.getLogger(__name__)


@dataclass
class _Turn:
    """One instrument's place in the rotation.

    Attributes:
        not_before_s: nothing is asked before, monotonic.
        failures: in a row.
        deferred: runs not to be asked for before a time, monotonic.
        unknown: answers in a row that the venue does not know the instrument.
        unknown_s: when the first of them came, monotonic.
        probe_s: while nothing comes of the instrument, whether the venue knows it is not asked
            before, monotonic.
    """

    not_before_s: float = 0.0
    failures: int = 0
    unknown: int = 0
    unknown_s: float = 0.0
    probe_s: float = 0.0
    deferred: list[tuple[IdRun, float]] = field(default_factory=list)


class Filler:
    """Fills the gaps of one feed. Not thread-safe; `counters` may be read from any thread.

    Args:
        recorder: its ledger says what is wanted.
        history: the venue's past.
        budget: of requests to the venue; the history charges it.
        sender: puts trades on the tape; its instruments are filled.
        clock: time.
        absent_s: for how long this feed must have known that an id is missing before the venue's
            word that it has it not is believed.

    Attributes:
        fills: whether gaps of an instrument are filled now, those of others wait; set before the
            first step.
    """

    def __init__(
        self,
        *,
        recorder: GapRecorder,
        history: History,
        budget: WeightBudget,
        sender: Sender,
        clock: Clock,
        absent_s: float = limits.FEED_ABSENT_S,
    ) -> None:
        self.fills: Callable[[Instrument], bool] = lambda _: True
        self._recorder = recorder
        self._history = history
        self._budget = budget
        self._sender = sender
        self._clock = clock
        self._absent_s = absent_s
        probe_s = clock.monotonic_s() + limits.FEED_STALE_S
        self._turns = {each: _Turn(probe_s=probe_s) for each in sorted(sender.instruments)}
        counted = ("requests", "failures", "filled_ids", "unfillable_ids", "void_ids")
        self._counts = dict.fromkeys(counted, 0)
        self._last_error = ""
        self._look_s = 0.0  # for what to ask for again, monotonic; not before
        self._open = (0, 0, 0)

    def step(self) -> float:
        """Fill one page; returns the seconds until another step may do something.

        Raises:
            K2Error: the tape or the ledger does not answer; step again later.
        """
        try:
            return self._step()
        finally:
            self._survey()

    def _step(self) -> float:
        wait_s = self._budget.wait_s(self._history.weight, self._clock.now_us())
        if wait_s > 0 or self._sender.held_up:
            return max(wait_s, limits.FEED_TICK_S)
        self._ask_again()
        page = self._next_page()
        if page is None:
            self._probe()
            return limits.BACKFILL_STEP_S
        try:
            self._fill(page)
        except NotFound as error:
            self._unknown(page, error)
        except RateLimited as error:
            self._note(error)  # the budget knows until when
        except _VenueFailed as failed:
            self._back_off(page.instrument, failed.error)
        return 0.0

    def counters(self) -> dict[str, Any]:
        """Count what was done and what is left, and estimate how long that takes."""
        gaps, ids, requests = self._open
        now_us = self._clock.now_us()
        weight = self._history.weight
        return {
            **self._counts,
            "open_gaps": gaps,
            "open_ids": ids,
            "eta_s": round(self._budget.eta_s(requests, weight, now_us), 1),
            "weight_used": self._budget.used(now_us),
            "weight_per_minute": self._budget.per_minute,
            "weight_per_request": weight,
            "ids_per_request": self._history.page_max,
            "last_error": self._last_error,
            "unknown_symbols": [
                each.symbol for each in sorted(self._recorder.silent()) if self._turns[each].unknown
            ],
        }

    # --- one page ---------------------------------------------------------------------------------

    def _survey(self) -> None:
        gaps = ids = requests = 0
        for instrument in self._turns:
            opened = self._recorder.wanted(instrument)
            gaps += len(opened)
            ids += sum(gap.last_id - gap.first_id + 1 for gap in opened)
            requests += _requests_for(opened, self._history.page_max)
        self._open = (gaps, ids, requests)

    def _next_page(self) -> FillPage | None:
        """Return the newest page of the next instrument, which goes to the end of the queue."""
        now_s = self._clock.monotonic_s()
        for instrument, turn in list(self._turns.items()):
            turn.deferred = [(run, until_s) for run, until_s in turn.deferred if until_s > now_s]
            if turn.not_before_s > now_s or not self.fills(instrument):
                continue
            runs = [run for run, _ in turn.deferred]
            opened = self._recorder.wanted(instrument)
            page = newest_page(opened, runs, self._history.page_max)
            if page is not None:
                self._turns[instrument] = self._turns.pop(instrument)
                return page
        return None

    def _fill(self, page: FillPage) -> None:
        asked_s = self._clock.monotonic_s()  # what the answer lacks may have come while it was sent
        answer, newest_id = self._ask(page)
        wanted = frozenset(page.wanted_ids)
        trades = [trade for trade in answer.trades if trade.trade_id in wanted]
        acknowledged = self._sender.send(trades)
        self._settle(_filled(page, acknowledged, self._clock.now_us()))
        now_s = self._clock.monotonic_s()
        is_young = partial(
            self._recorder.recent.overlaps, page.instrument, since_s=asked_s - self._absent_s
        )
        reach = IdReach(newest_id, self._recorder.on_tape(page.instrument))
        opened = self._recorder.wanted(page.instrument)
        verdict = judge(page, opened, answer, reach, is_young)
        self._settle(verdict.settled)
        turn = self._turns[page.instrument]
        turn.failures = turn.unknown = 0
        if not self._recorder.wanted(page.instrument):
            turn.not_before_s = now_s + limits.BACKFILL_GATHER_S
        for runs, pause_s in (
            (verdict.young, self._absent_s / 2),
            (verdict.behind, limits.FEED_REST_BACKOFF_MAX_S),
            (verdict.untimely, limits.FEED_ASK_AGAIN_S),
        ):
            turn.deferred += [(run, now_s + pause_s) for run in runs]

    def _ask(self, page: FillPage) -> tuple[HistoryPage, int | None]:
        """Ask for a page; return the answer and the highest id that the venue is known to have."""
        count = page.last_id - page.first_id + 1
        try:
            self._counts["requests"] += 1
            answer = self._history.trades(page.instrument, page.first_id, count)
            newest_id = answer.newest_id
            if newest_id is None or (newest_id < page.last_id):
                self._counts["requests"] += 1
                known = self._history.newest(page.instrument).newest_id
                newest_id = known if newest_id is None else max(newest_id, known or 0)
        except RateLimited:
            raise
        except Unavailable as error:
            raise _VenueFailed(error) from error
        return answer, newest_id

    def _settle(self, events: list[GapEvent] | tuple[GapEvent, ...]) -> None:
        self._recorder.publish(events)
        for gap in events:
            self._counts[f"{gap.state.value.lower()}_ids"] += gap.last_id - gap.first_id + 1

    def _unknown(self, page: FillPage, error: NotFound) -> None:
        """Believe that the venue does not know an instrument once it has said so for a while."""
        turn = self._turns[page.instrument]
        self._count_unknown(turn, error)
        long = self._clock.monotonic_s() - turn.unknown_s >= limits.FEED_UNKNOWN_S
        if long and turn.unknown >= limits.FEED_UNKNOWN_ANSWERS:
            self._settle([unfillable(gap, error.message) for gap in page.wanted])
        else:
            self._back_off(page.instrument, error)

    def _count_unknown(self, turn: _Turn, error: NotFound) -> None:
        if not turn.unknown:
            turn.unknown_s = self._clock.monotonic_s()
            _log.warning("%s", error.message)
        turn.unknown += 1

    def _probe(self) -> None:
        """Ask whether the venue knows one of the instruments of which nothing comes."""
        now_s = self._clock.monotonic_s()
        due = [
            each
            for each in self._recorder.silent()
            if self._turns[each].probe_s <= now_s and self.fills(each)
        ]
        if not due:
            return
        turn = self._turns[min(due)]
        turn.probe_s = now_s + limits.FEED_UNKNOWN_S
        self._counts["requests"] += 1
        try:
            self._history.newest(min(due))
            turn.unknown = 0
        except NotFound as error:
            self._count_unknown(turn, error)
        except Unavailable as error:
            self._note(error)

    def _ask_again(self) -> None:
        """Open what a venue did not have long ago: its REST may have been wrong."""
        now_s, now_us = self._clock.monotonic_s(), self._clock.now_us()
        if now_s < self._look_s:
            return
        due = [
            reopened(gap)
            for gap in self._recorder.ledger.gaps(self._turns)
            if gap.state is GapState.UNFILLABLE
            and gap.last_id - gap.first_id < limits.BACKFILL_IDS_MAX
            and abs(now_us - gap.recorded_us) >= limits.FEED_ASK_AGAIN_S * 1e6
        ]
        self._recorder.publish(due)
        self._look_s = now_s + limits.FEED_REST_BACKOFF_MAX_S

    def _back_off(self, instrument: Instrument, error: K2Error) -> None:
        self._note(error)
        turn = self._turns[instrument]
        pause_s = limits.FEED_REST_BACKOFF_MIN_S * 2.0 ** min(turn.failures, 16)
        turn.failures += 1
        turn.not_before_s = self._clock.monotonic_s() + min(pause_s, limits.FEED_REST_BACKOFF_MAX_S)

    def _note(self, error: K2Error) -> None:
        self._counts["failures"] += 1
        self._last_error = error.message


class _VenueFailed(Exception):
    """The venue, and not the tape, did not answer."""

    def __init__(self, error: Unavailable) -> None:
        super().__init__(error.message)
        self.error = error


def _requests_for(gaps: tuple[GapEvent, ...], page_max: int) -> int:
    """Count the pages that gaps take; an upper bound, as small ones share a page."""
    requests, reached = 0, -1
    for gap in gaps:
        first = max(gap.first_id, reached + 1)
        if first <= gap.last_id:
            pages = -(-(gap.last_id - first + 1) // page_max)
            requests += pages
            reached = first + pages * page_max - 1
    return requests


def _filled(page: FillPage, acknowledged: frozenset[int], now_us: int) -> list[GapEvent]:
    """Events for exactly the acknowledged ids, with what is known of the gaps they were in."""
    events = []
    for gap in page.wanted:
        ids = (each for each in range(gap.first_id, gap.last_id + 1) if each in acknowledged)
        for first, last in runs_of(ids):
            events.append(filled(cut(gap, first, last), now_us))
    return events
