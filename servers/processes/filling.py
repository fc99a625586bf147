"""Joins what keeps the ledger of a feed and fills its gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from k2.feed.gaps.backfill_thread import Backfill
from k2.feed.gaps.filler import Filler
from k2.feed.gaps.recorder import GapRecorder
from k2.feed.gaps.sender import Place, Sender
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.feed.venues.binance_history import BinanceHistory, rest_url
from k2.feed.venues.history import HttpFetch
from k2.feed.venues.rate_limit import WeightBudget
from k2.market.events import Trade
from k2.settings import Settings
from k2.tape.ports import DocumentTopic, GapEventLog, RecordSender
from servers.runtime import Runtime


def sender_of(
    tape: RecordSender,
    lines: Iterable[InstrumentStream],
    encode: Callable[[Trade], bytes],
    runtime: Runtime,
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
    settings: Settings, runtime: Runtime, sender: Sender, log: GapEventLog, requests: DocumentTopic
) -> Backfill:
    """The keeper and filler of a feed, not started.

    Raises:
        Invalid: BAD_SETTING when the venue's address is none.
    """
    keeper = GapRecorder(log=log, requests=requests, feed=settings.feed.name, clock=runtime.clock)
    budget = WeightBudget(settings.feed.rest_weight_per_minute)
    url = settings.feed.rest_url or rest_url(settings.feed.venue_url)
    filler = Filler(
        recorder=keeper,
        history=BinanceHistory(url, HttpFetch(runtime.clock), budget, runtime.clock),
        budget=budget,
        sender=sender,
        clock=runtime.clock,
    )
    return Backfill(
        recorder=keeper, filler=filler, instruments=sender.instruments, stopping=runtime.stopping
    )
