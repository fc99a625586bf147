"""Which ids to ask a venue for next, and what its answer says of each. Pure.

**Newest first.** A page ends at the newest missing id and reaches down as far as one answer holds,
so that many small gaps are filled by one request, and what people ask for most, the last minutes,
is whole again before an outage of hours is. Venues keep their past by id; age does not hurry us.

An id that a venue does not have is *absent*. It is believed only when the id has been missing for a
while (`lately.py`): a venue's REST may be behind its own stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from k2.feed.history import Answer
from k2.market.gaps import GapEvent
from k2.market.instrument import Instrument
from k2.market.ledger import cut, unfillable, void

IdRun = tuple[int, int]  # first and last id, both inclusive


class Page(NamedTuple):
    """What one request asks for.

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


class Verdict(NamedTuple):
    """What an answer says of the ids of a page that cannot be put on the tape.

    Attributes:
        settled: events that settle them, UNFILLABLE or VOID.
        deferred: runs to ask for again soon: they have not been missing for long.
    """

    settled: tuple[GapEvent, ...]
    deferred: tuple[IdRun, ...]


def newest_page(gaps: Sequence[GapEvent], deferred: Iterable[IdRun], page_max: int) -> Page | None:
    """The next page of an instrument; None when nothing is to be asked now.

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
    return Page(wanted[0].instrument, wanted[0].first_id, last, wanted)


def without(gap: GapEvent, run: IdRun) -> list[GapEvent]:
    """The parts of a gap that lie outside a run."""
    first, last = run
    if last < gap.first_id or first > gap.last_id:
        return [gap]
    parts = (replace(gap, last_id=first - 1), replace(gap, first_id=last + 1))
    return [part for part in parts if part.first_id <= part.last_id]


def judge(
    page: Page, answer: Answer, newest_id: int | None, is_young: Callable[[int, int], bool]
) -> Verdict:
    """Judge the wanted ids that an answer does not give as trades.

    Args:
        page: what was asked for.
        answer: what the venue gave.
        newest_id: the highest id the venue is known to have; None: it has none.
        is_young: whether any of a run of ids, first and last, may still come.
    """
    settled: list[GapEvent] = []
    deferred: list[IdRun] = []
    here = frozenset(trade.trade_id for trade in answer.trades)
    for gap in page.wanted:
        ids = [each for each in range(gap.first_id, gap.last_id + 1) if each not in here]
        for reason, run in _by_reason(ids, answer, newest_id):
            part = cut(gap, *run)
            if reason is None:
                settled.append(void(part))
            elif is_young(*run):
                deferred.append(run)
            else:
                settled.append(unfillable(part, reason))
    return Verdict(tuple(settled), tuple(deferred))


def _by_reason(
    ids: list[int], answer: Answer, newest_id: int | None
) -> Iterator[tuple[str | None, IdRun]]:
    """Runs of consecutive ids that are absent for the same reason."""
    start = 0
    reasons = [_reason(each, answer, newest_id) for each in ids]
    for at in range(1, len(ids) + 1):
        if at < len(ids) and ids[at] == ids[at - 1] + 1 and reasons[at] == reasons[start]:
            continue
        yield reasons[start], (ids[start], ids[at - 1])
        start = at


def _reason(trade_id: int, answer: Answer, newest_id: int | None) -> str | None:
    """Why an id cannot be stored; None for one that was printed without a trade."""
    if trade_id in answer.void:
        return None
    if trade_id in answer.malformed:
        return f"the venue's answer cannot be stored: {answer.malformed[trade_id].error}"
    if newest_id is None or trade_id > newest_id:
        newest = "none" if newest_id is None else str(newest_id)
        return f"the venue has not printed it: its newest id is {newest}"
    return "the venue does not have it"


def runs_of(ids: Iterable[int]) -> Iterator[IdRun]:
    """Ascending ids as runs."""
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
