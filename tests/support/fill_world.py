"""A venue's past and a tape in memory, for tests of keeping and filling gaps."""

from k2.clock import ManualClock
from k2.errors import NotFound, Reason
from k2.feed.gaps.filler import Filler
from k2.feed.gaps.recorder import GapRecorder
from k2.feed.gaps.sender import Place, Sender
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.feed.publish.pending_gaps import PendingGaps
from k2.feed.venues.history import HistoryPage
from k2.feed.venues.rate_limit import WeightBudget
from k2.market.events import Label
from k2.market.instrument import Instrument
from k2.tape import topics
from k2.tape.avro.trade_codec import Decoder, encode_trade
from tests.fakes.tape import FakeTape
from tests.support.messages import SCHEMA_ID, Schemas, raw, trade

BTC, ETH = Instrument("BINANCE", "BTCUSDT"), Instrument("BINANCE", "ETHUSDT")
GRACE_S = 1.0
ABSENT_S = 10.0
PAGE = 100


class FakeHistory:
    """`History` of a venue that has `ids`, and fails in turn with what is in `failures`."""

    page_max = PAGE
    weight = 25

    def __init__(self, ids, clock, budget):
        self.ids = {instrument: sorted(known) for instrument, known in ids.items()}
        self.malformed = {}
        self.void = frozenset()
        self.failures = []
        self.asked = []
        self._clock = clock
        self._budget = budget

    def trades(self, instrument, from_id, count):
        self._charge((instrument.symbol, from_id, count))
        known = [each for each in self._known(instrument) if each >= from_id][:count]
        return self._answer(instrument, known, from_id + count)

    def newest(self, instrument):
        self._charge((instrument.symbol, "newest"))
        return self._answer(instrument, self._known(instrument)[-1:], 2**63)

    def _charge(self, asked):
        self.asked.append(asked)
        self._budget.spend(self.weight, self._clock.now_us())
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure

    def _known(self, instrument):
        if instrument not in self.ids:
            raise NotFound(Reason.UNKNOWN_SYMBOL, f"the venue does not know {instrument.symbol}")
        return self.ids[instrument]

    def _answer(self, instrument, known, end):
        label = Label(*instrument, "BTC", "USDT", "crypto", "backfill")
        given = [each for each in known if each < end]
        apart = self.void | self.malformed.keys()
        trades = [trade(label=label, trade_id=each) for each in given if each not in apart]
        wrong = {each: self.malformed[each] for each in given if each in self.malformed}
        return HistoryPage(
            tuple(trades), wrong, known[-1] if known else None, self.void.intersection(given)
        )


class Watched:
    """A part of which `meanwhile` is called before and after each call, as other threads run."""

    def __init__(self, part, meanwhile):
        self._part = part
        self._meanwhile = meanwhile

    def __getattr__(self, name):
        found = getattr(self._part, name)

        def call(*given, **named):
            self._meanwhile()
            answer = found(*given, **named)
            self._meanwhile()
            return answer

        return call if callable(found) else found


class FillWorld:
    """One feed's keeper and filler; `again` is its next life, with the same ledger and tape."""

    def __init__(self, ids, tape=None, clock=None, promised=None):
        self.clock = clock or ManualClock()
        self.tape = tape or FakeTape()
        self.log = self.tape.gap_log()
        self.requests = self.tape.board(topics.BACKFILLS)
        self.budget = WeightBudget()
        self.history = FakeHistory(ids, self.clock, self.budget)
        self.producer = self.tape.producer()
        self.stuck = False  # acknowledgements do not come
        self.meanwhile = lambda: None  # what other threads do between the steps of a turn
        self.lines = [
            InstrumentStream(each, at, (promised or {}).get(each), PendingGaps(GRACE_S))
            for at, each in enumerate(self.history.ids)
        ]
        log, history, producer = (
            Watched(part, self._between) for part in (self.log, self.history, self.producer)
        )
        self.keeper = GapRecorder(log=log, requests=self.requests, feed="feed", clock=self.clock)
        self.sender = Sender(
            tape=producer,
            places={each.instrument: Place(each.key, each.partition) for each in self.lines},
            encode=lambda made: encode_trade(made, SCHEMA_ID),
            clock=self.clock,
            pause=self._pause,
        )
        self.filler = Filler(
            recorder=self.keeper,
            history=history,
            budget=self.budget,
            sender=self.sender,
            clock=self.clock,
            absent_s=ABSENT_S,
        )

    def _between(self):
        self.meanwhile()

    def _pause(self, seconds):
        self.clock.advance(1.0 if self.stuck or self.producer.lands == 0 else seconds)
        if not self.stuck:
            self.producer.poll()
        return False

    def again(self, promised=None):
        """The next life: lines go on after what was promised."""
        world = FillWorld(self.history.ids, self.tape, self.clock, promised)
        world.history.void = self.history.void
        return world

    def hear(self, *ids, line=0):
        """Let ids come as live trades do; what they jump over is found after the grace."""
        line = self.lines[line]
        for trade_id in ids:
            finding = line.sequence.observe(trade_id)
            line.note(trade_id, finding, self.clock.now_us())
            flight = line.prepare(trade_id, finding)
            line.sent(flight)
            flight(0, None)

    def exchange(self):
        self.keeper.exchange(self.lines, self.clock.monotonic_s())

    def find(self):
        """Let the grace pass and hand over what is missing."""
        self.exchange()
        self.clock.advance(GRACE_S)
        self.exchange()

    def turn(self):
        """What the thread does once."""
        self.keeper.record(self.sender.instruments)
        wait_s = self.filler.step()
        self.exchange()
        return wait_s

    def turns(self, most=200):
        """Turns until nothing is open; time passes as asked for."""
        for _ in range(most):
            self.clock.advance(self.turn())
            if not any(self.keeper.ledger.open(line.instrument) for line in self.lines):
                return
        raise AssertionError(f"still open: {list(self.keeper.ledger.gaps())}")

    def gaps(self, instrument=BTC):
        return [
            (gap.first_id, gap.last_id, gap.state.value)
            for gap in self.keeper.ledger.gaps([instrument])
        ]

    def ids(self, partition=0):
        """Ids of backfill on a partition, in the order of the tape."""
        values = list(self.tape.logs[partition].values)
        if not values:
            return []
        columns = Decoder(Schemas()).decode(raw(values))
        assert {label.source for label in columns.labels} == {"backfill"}
        return columns.trade_id.tolist()
