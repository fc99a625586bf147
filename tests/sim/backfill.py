"""What a feed's process does beside its loop: K2's keeper of gaps, its filler, and their world.

The ledger's topic and the venue's past are asked as everything outside a process is: it may pause,
die or fail there. The past has every printed trade, perhaps a moment later than the stream had it,
and its answers may be slow, fail, or say that the venue is busy.
"""

from k2.errors import Reason
from k2.feed.gaps.backfill_thread import Backfill
from k2.feed.gaps.sender import Place
from k2.feed.venues.binance import BinanceSource
from k2.feed.venues.history import HistoryPage, RateLimited
from k2.feed.venues.rate_limit import WeightBudget
from k2.market.instrument import Instrument
from k2.market.ledger import GapState
from k2.tape import topics
from tests.sim.ops import GapTeller
from tests.sim.process import Flag
from tests.sim.tape import Board
from tests.sim.violation import require

EXCHANGE = "BINANCE"
BEHIND_S = 6.0  # less than `limits.FEED_ABSENT_S`
SLOW_S = (1.0, 9.0)
BUSY_S = (1.0, 10.0)


class GapLog(GapTeller):
    """The ledger's topic to a feed, which reads on from where it was."""

    def __init__(self, process):
        super().__init__(process)
        self._reached = 0

    def publish(self, events, wait_s):
        for event in events:
            self._judge(event)
        super().publish(events)

    def advance(self):
        self._process.ask_tape("read the ledger on")
        events = self._process.world.ops.events
        new, self._reached = events[self._reached :], len(events)
        return new

    def _judge(self, event):
        """What is called filled is on the tape."""
        world = self._process.world
        if event.state is GapState.FILLED and not world.awaits_epoch:
            lost = world.reference.lacks(event.instrument, event.first_id, event.last_id)
            require(not lost, "called filled, and not on the tape", event.instrument, lost[:5])


class Past:
    """`History` of the simulated venue."""

    page_max = 30
    weight = 25

    def __init__(self, process, venue, budget):
        self._process = process
        self._venue = venue
        self._budget = budget
        self._source = BinanceSource(
            url="wss://sim", exchange=EXCHANGE, symbols=venue.symbols, source="backfill"
        )

    def trades(self, instrument, from_id, count):
        return self._ask(instrument, from_id, count)

    def newest(self, instrument):
        return self._ask(instrument, None, 1)

    def _ask(self, instrument, from_id, count):
        process, world = self._process, self._process.world
        self._budget.spend(self.weight, process.now_us())
        process.before("ask the venue")
        if world.happens("rest.busy"):
            wait_s = world.chance.uniform(*BUSY_S)
            self._budget.block(wait_s, process.now_us())
            raise RateLimited(Reason.VENUE_UNAVAILABLE, "busy", retry_after_s=wait_s)
        answer = self._answer(instrument.symbol, from_id, count)
        if world.happens("rest.slow"):
            process.sleep(world.chance.uniform(*SLOW_S))
        process.fail("rest.away", Reason.VENUE_UNAVAILABLE, "ask the venue")
        return answer

    def _answer(self, symbol, from_id, count):
        """Trades from an id on, or the newest, as far as the past has them."""
        world, printed = self._process.world, self._venue.printed[symbol]
        behind_s = world.chance.uniform(0.0, BEHIND_S) if world.happens("rest.behind") else 0.0
        end = self._venue.next_id[symbol]
        while end - 1 in printed and printed[end - 1].at_s > world.scheduler.now_s - behind_s:
            end -= 1
        first = end - 1 if from_id is None else from_id
        now_us = self._process.now_us()
        trades = [
            trade
            for one in range(first, min(first + count, end))
            if one in printed
            for trade in self._source.decode(printed[one].frame, now_us)
        ]
        return HistoryPage(tuple(trades), {}, trades[-1].trade_id if trades else None)


class Beside(Backfill):
    """The real one, whose thread is a second task of the process."""

    def start(self):
        self._process.beside(self._run)

    def __init__(self, process, **given):
        super().__init__(stopping=Flag(process), **given)
        self._process = process


def backfill_of(process, venue, producer, lines, encode):
    """The keeper and filler of a feed's life, started.

    Args:
        process: of the feed.
        venue: whose past it asks.
        producer: of the feed, which its loop polls.
        lines: of the feed.
        encode: a trade as the bytes of a message.
    """
    parts = process.world.parts
    keeper = parts.keeper(
        log=GapLog(process),
        requests=Board(process, process.world.tape, topics.BACKFILLS),
        feed=process.identity,
        clock=process,
    )
    sender = parts.sender(
        tape=producer,
        places={line.instrument: Place(line.key, line.partition) for line in lines},
        encode=encode,
        clock=process,
        pause=Flag(process).wait,
    )
    budget = WeightBudget()
    filler = parts.filler(
        recorder=keeper, history=Past(process, venue, budget), budget=budget, sender=sender,
        clock=process,
    )  # fmt: skip
    made = Beside(process, recorder=keeper, filler=filler, instruments=sender.instruments)
    made.start()
    return made


def is_settled(world):
    """Whether K2 knows of nothing missing: no request waits, no id rests, no gap is open.

    The ids of a symbol that was reset may stay missing: the venue has them no more.
    """
    waiting = Board(world.asked, world.tape, topics.BACKFILLS).current()
    venue = world.venue
    instruments = [Instrument(EXCHANGE, one) for one in venue.symbols if one not in venue.reset]
    return (
        not waiting
        and all(feed.body.has_told for feed in world.feeds)
        and not any(world.ops.ledger.open(one) for one in instruments)
    )


def audit_gaps(world):
    """At rest every gap is filled, and its ids are rows: the venue has them all."""
    for gap in world.ops.ledger.gaps():
        filled = gap.state is GapState.FILLED
        if not filled and gap.instrument.symbol in world.venue.reset:
            continue
        require(filled, "a gap that is not filled", gap)
        lost = world.reference.lacks(gap.instrument, gap.first_id, gap.last_id)
        require(not lost, "filled, and not in the lake", gap, lost[:5])
