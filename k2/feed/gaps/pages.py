"""Chooses which ids to request from a venue, and judges each id of its answer. Pure.

**Newest first.** A page ends at the newest missing id and reaches down as far as one answer holds.
So one request fills many small gaps, and the last minutes, which queries read most, are whole
again before an outage of hours is. Venues keep their past by id; age does not hurry K2.

An id that a venue does not have is *absent*. Its absence counts only when the id has been missing
for a while (`recorder.RecentGaps`), because a venue's REST may lag its own stream. What REST has
not reached at all is not absent while a higher id is on the tape, however far REST lags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from k2 import limits
from k2.feed.venues.history import HistoryPage
from k2.market.instrument import Instrument
from k2.market.ledger import GapEvent, cut, unfillable, void

IdRun = tuple[int, int]  # first and last id, both inclusive


class FillPage(NamedTuple):
    """The ids of one request.

    Attributes:
        instrument: whose ids.
        first_id, last_id: what is asked for.
        wanted: the gaps in it, ascending, cut to it.
    """

    instrument: Instrument
    first_id: int
    last_id: int
    wanted: tuple[GapEvent, ...]

    @property
    def wanted_ids(self) -> Iterator[int]:
        """Every id that is wanted, ascending."""
        for gap in self.wanted:
            yield from range(gap.first_id, gap.last_id + 1)


class PageVerdict(NamedTuple):
    """What becomes of the ids of a page that the answer does not give as trades.

    Attributes:
        settled: events that settle them, UNFILLABLE or VOID.
        young: runs to ask for again soon: they have not been missing for long.
        behind: runs that the venue is certain to have, and does not give yet.
        untimely: runs whose times cannot be: no trade of that id, and no proof that there is none.
    """

    settled: tuple[GapEvent, ...]
    young: tuple[IdRun, ...]
    behind: tuple[IdRun, ...]
    untimely: tuple[IdRun, ...]


class IdReach(NamedTuple):
    """The highest ids of an instrument, by REST and on the tape.

    Attributes:
        newest_id: the highest id that REST is known to have; None: it has none.
        tape_id: the highest id that this feed knows to be on the tape; None: of none.
    """

    newest_id: int | None
    tape_id: int | None

    def proves(self, trade_id: int) -> bool:
        """Return whether the venue must have printed an id, because a higher one is on the tape.

        One that lies absurdly high proves nothing.
        """
        if self.tape_id is None or self.tape_id <= trade_id:
            return False
        last = trade_id if self.newest_id is None else self.newest_id
        return self.tape_id - last <= limits.SEQUENCE_JUMP_MAX


def newest_page(
    gaps: Sequence[GapEvent], deferred: Iterable[IdRun], page_max: int
) -> FillPage | None:
    """Return the next page of an instrument; None when nothing is to be requested now.

    Args:
        gaps: open ones of one instrument, ascending.
        deferred: runs not to ask for.
        page_max: ids of one answer.
    """
    free = gaps
    for run in deferred:
        free = [part for gap in free for part in without(gap, run)]
    if not free:
        return None
    last = free[-1].last_id
    floor = last - page_max + 1
    wanted = tuple(
        replace(gap, first_id=max(gap.first_id, floor)) for gap in free if gap.last_id >= floor
    )
    return FillPage(wanted[0].instrument, wanted[0].first_id, last, wanted)


def without(gap: GapEvent, run: IdRun) -> list[GapEvent]:
    """Return the parts of a gap that lie outside a run."""
    first, last = run
    if last < gap.first_id or first > gap.last_id:
        return [gap]
    parts = (replace(gap, last_id=first - 1), replace(gap, first_id=last + 1))
    return [part for part in parts if part.first_id <= part.last_id]


def judge(
    page: FillPage,
    opened: Iterable[GapEvent],
    answer: HistoryPage,
    reach: IdReach,
    is_young: Callable[[int, int], bool],
) -> PageVerdict:
    """Judge the wanted ids that an answer does not give as trades.

    Args:
        page: what was asked for.
        opened: all open gaps of the instrument; those that REST has not reached are judged at once,
            up to the end of the page.
        answer: what the venue gave.
        reach: how far REST and the tape are.
        is_young: whether any of a run of ids, first and last, may still come.
    """
    verdict = PageVerdict((), (), (), ())
    here = frozenset(trade.trade_id for trade in answer.trades)
    newest = -1 if reach.newest_id is None else reach.newest_id
    for gap in page.wanted:
        last = min(gap.last_id, newest)
        ids = [each for each in range(gap.first_id, last + 1) if each not in here]
        for absence, run in _by_absence(ids, answer):
            verdict = _with(verdict, cut(gap, *run), absence, is_young)
    for gap in opened:
        part = cut(gap, newest + 1, page.last_id)
        if part.first_id <= part.last_id:
            shown = "none" if reach.newest_id is None else reach.newest_id
            why = f"the venue has not printed it: its newest id is {shown}"
            absence = _Absence("behind" if reach.proves(part.first_id) else "never", why)
            verdict = _with(verdict, part, absence, is_young)
    return verdict


class _Absence(NamedTuple):
    """Why an answer has an id not as a trade: void, untimely, behind, never; and in words."""

    kind: str
    reason: str


def _with(
    verdict: PageVerdict, gap: GapEvent, absence: _Absence, is_young: Callable[[int, int], bool]
) -> PageVerdict:
    """Return the verdict with one more run added."""
    run = (gap.first_id, gap.last_id)
    if absence.kind == "void":
        return verdict._replace(settled=(*verdict.settled, void(gap)))
    if is_young(*run):
        return verdict._replace(young=(*verdict.young, run))
    if absence.kind == "untimely":
        return verdict._replace(untimely=(*verdict.untimely, run))
    if absence.kind == "behind":
        return verdict._replace(behind=(*verdict.behind, run))
    return verdict._replace(settled=(*verdict.settled, unfillable(gap, absence.reason)))


def _by_absence(ids: list[int], answer: HistoryPage) -> Iterator[tuple[_Absence, IdRun]]:
    """Group consecutive ids that are absent for the same reason."""
    start = 0
    absences = [_absence(each, answer) for each in ids]
    for at in range(1, len(ids) + 1):
        if at < len(ids) and ids[at] == ids[at - 1] + 1 and absences[at] == absences[start]:
            continue
        yield absences[start], (ids[start], ids[at - 1])
        start = at


def _absence(trade_id: int, answer: HistoryPage) -> _Absence:
    if trade_id in answer.void:
        return _Absence("void", "")
    malformed = answer.malformed.get(trade_id)
    if malformed is None:
        return _Absence("never", "the venue does not have it")
    kind = "untimely" if malformed.of_time else "never"
    return _Absence(kind, f"the venue's answer cannot be stored: {malformed.error}")


def runs_of(ids: Iterable[int]) -> Iterator[IdRun]:
    """Group ascending ids into runs."""
    first = last = None
    for each in ids:
        if last is not None and each == last + 1:
            last = each
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = each
    if first is not None and last is not None:
        yield first, last
