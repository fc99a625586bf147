"""Whatever a feed suffers: nothing is lost in silence, and FILLED is only what is on the tape.

A venue prints ids; some are dropped on the way, some come late, some are no trades, some its REST
does not have; the tape, the ledger and the venue's REST go away and come back; records are not
acknowledged; the feed is killed at any moment, inside a turn as well. At every moment, between the
steps of a turn too, where the feed's loop goes on:

* an id that the ledger calls FILLED is on the tape;
* of the ids up to the published promise, each is on the tape or in the ledger.

And once everything is back, every id from the first to the last is on the tape, but those that are
no trades, which are VOID, and those that the venue does not have, which are UNFILLABLE.
"""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from k2.errors import Reason, Unavailable
from k2.market.ledger import GapState, Ledger
from tests.support.fill_world import BTC, FillWorld

FAILED = Unavailable(Reason.VENUE_UNAVAILABLE, "no answer")
SPANS = st.integers(0, 6)
ACTIONS = st.one_of(
    st.tuples(st.just("hear"), SPANS, st.integers(1, 4)),
    st.tuples(st.just("miss"), st.integers(2, 6), st.sampled_from(["", "lacks", "void"])),
    st.tuples(st.just("late"), SPANS),
    st.tuples(st.just("voided")),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 0.6, 3.0, 12.0])),
    st.tuples(st.sampled_from(["turn", "turn", "turn", "exchange", "kill"])),
    st.tuples(st.just("killed"), st.integers(0, 30)),
    st.tuples(st.sampled_from(["tape", "ledger"]), st.booleans()),
    st.tuples(st.just("lands"), st.sampled_from([None, None, 0, 1, 2])),
    st.tuples(st.just("venue"), st.integers(1, 3)),
)


class Killed(BaseException):
    """The process ended inside a call."""


class Story:
    """One venue, its feed's lives, and what each id has become."""

    def __init__(self):
        self.calls_left = None
        self.printed = 99
        self.dropped = []
        self.heard = set()
        self.promise = None
        self.live(FillWorld({BTC: range(10_000)}))

    def live(self, world):
        self.world = world
        world.meanwhile = self.meanwhile

    def act(self, name, *given):
        getattr(self, name)(*given)

    def hear(self, dropped, count):
        self.dropped += range(self.printed + 1, self.printed + 1 + dropped)
        self.printed += dropped
        ids = range(self.printed + 1, self.printed + 1 + count)
        self.printed += count
        self.heard.update(ids)
        self.world.hear(*ids)

    def miss(self, dropped, which):
        """Ids are dropped, and found missing; the lowest is no trade, or the venue lacks it."""
        self.hear(dropped, 1)
        history, lowest = self.world.history, self.dropped[-dropped]
        if which == "lacks":
            history.ids[BTC].remove(lowest)
        elif which == "void":
            history.void |= {lowest}
        self.world.find()

    def late(self, at):
        if at < len(self.dropped):
            trade_id = self.dropped.pop(at)
            self.heard.add(trade_id)
            self.world.hear(trade_id)

    def voided(self):
        self.printed += 1
        self.world.history.void |= {self.printed}
        self.world.lines[0].voided(self.printed, self.world.clock.now_us())

    def wait(self, seconds):
        self.world.clock.advance(seconds)

    def turn(self):
        try:
            self.world.turn()
        except Unavailable:
            self.world.clock.advance(0.5)

    def exchange(self):
        self.world.exchange()

    def meanwhile(self):
        """The feed's loop goes on while its other thread waits; or the process ends there."""
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise Killed
        self.world.exchange()
        self.publish()

    def publish(self):
        promised = self.world.lines[0].covered_through or self.promise
        if promised != self.promise:
            self.promise = promised
            self.check()

    def killed(self, calls):
        self.calls_left = calls
        try:
            self.turn()
        except Killed:
            pass
        finally:
            self.calls_left = None
        self.kill()

    def kill(self):
        self.live(self.world.again({} if self.promise is None else {BTC: self.promise}))

    def tape(self, away):
        self.world.tape.away = away

    def ledger(self, away):
        self.world.log.refusing = away

    def lands(self, records):
        """A turn of which the tape acknowledges no more records, and the turns after it."""
        self.world.producer.lands = records
        self.turn()

    def venue(self, times):
        self.world.history.failures += [FAILED] * times

    def check(self):
        there = self.heard | set(self.world.ids())
        told = self.world.tape.gaps
        for event in told:
            if event.state is GapState.FILLED:
                assert set(range(event.first_id, event.last_id + 1)) <= there
        known = {each for event in told for each in range(event.first_id, event.last_id + 1)}
        if self.promise is not None:
            assert set(range(min(self.heard), self.promise + 1)) <= there | known

    def heal(self):
        self.tape(False)
        self.ledger(False)
        self.world.producer.lands = None
        self.world.history.failures.clear()
        self.hear(0, 1)
        for _ in range(40):
            self.world.clock.advance(5.0)
            self.world.exchange()
            self.world.turn()
        assert not self.world.keeper.ledger.open(BTC)
        there = self.heard | set(self.world.ids())
        for trade_id in set(range(min(self.heard), self.printed + 1)) - there:
            history = self.world.history
            state = GapState.VOID if trade_id in history.void else GapState.UNFILLABLE
            assert (trade_id in history.void) or (trade_id not in history.ids[BTC])
            assert self.state(trade_id) is state
        assert self.world.lines[0].covered_through == self.printed

    def state(self, trade_id):
        """What the ledger says of an id."""
        ledger = Ledger()
        for event in self.world.tape.gaps:
            ledger.apply(event)
        (gap,) = ledger.within(BTC, trade_id, trade_id)
        return gap.state


@settings(max_examples=100)
@example([("miss", 4, ""), ("lands", 1)])
@example([("miss", 4, ""), ("lands", 0), ("wait", 12.0), ("turn",), ("turn",), ("kill",)])
@given(st.lists(ACTIONS, max_size=40))
def test_nothing_is_lost_in_silence(actions):
    story = Story()
    story.hear(0, 1)
    story.publish()
    for action in actions:
        story.act(*action)
        story.publish()
        story.check()
    story.heal()
