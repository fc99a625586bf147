"""Joins what keeps the ledger of a feed and fills its gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from k2.feed.backfill import Backfill
from k2.feed.binance_history import BinanceHistory, rest_url
from k2.feed.filler import Filler
from k2.feed.history import HttpFetch
from k2.feed.keeper import GapLog, Keeper, Requests
from k2.feed.line import Line
from k2.feed.sender import Place, Sender, Tape
from k2.feed.weight import WeightBudget
from k2.market.events import Trade
from k2.settings import Settings
from servers.runtime import Runtime


def sender_of(
    tape: Tape, lines: Iterable[Line], encode: Callable[[Trade], bytes], runtime: Runtime
) -> Sender:
    """Sends trades of the past beside the lines of a feed, whose loop polls the producer."""
    return Sender(
        tape=tape,
        places={line.instrument: Place(line.key, line.partition) for line in lines},
        encode=encode,
        clock=runtime.clock,
        pause=runtime.stopping.wait,
    )


def backfill_of(
    settings: Settings, runtime: Runtime, sender: Sender, log: GapLog, requests: Requests
) -> Backfill:
    """The keeper and filler of a feed, not started.

    Raises:
        Invalid: BAD_SETTING when the venue's address is none.
    """
    keeper = Keeper(log=log, requests=requests, feed=settings.feed.name, clock=runtime.clock)
    budget = WeightBudget(settings.feed.rest_weight_per_minute)
    url = settings.feed.rest_url or rest_url(settings.feed.venue_url)
    filler = Filler(
        keeper=keeper,
        history=BinanceHistory(url, HttpFetch(runtime.clock), budget, runtime.clock),
        budget=budget,
        sender=sender,
        clock=runtime.clock,
    )
    return Backfill(
        keeper=keeper, filler=filler, instruments=sender.instruments, stopping=runtime.stopping
    )
