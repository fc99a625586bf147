"""Whatever a feed suffers: nothing is lost in silence, and FILLED is only what is on the tape.

A venue prints ids; some are dropped on the way, some come late; the tape, the ledger and the
venue's REST go away and come back; the feed is killed at any moment. At every moment:

* an id that the ledger calls FILLED is on the tape;
* of the ids up to the published promise, each is on the tape or in the ledger.

And once everything is back, every id from the first to the last is on the tape.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from k2.errors import Reason, Unavailable
from k2.market.gaps import GapState
from tests.fill_world import BTC, FillWorld

FAILED = Unavailable(Reason.VENUE_UNAVAILABLE, "no answer")
SPANS = st.integers(0, 6)
ACTIONS = st.one_of(
    st.tuples(st.just("hear"), SPANS, st.integers(1, 4)),
    st.tuples(st.just("hear"), SPANS, st.integers(1, 4)),
    st.tuples(st.just("late"), SPANS),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 0.6, 3.0])),
    st.tuples(st.sampled_from(["turn", "turn", "turn", "publish", "exchange", "kill"])),
    st.tuples(st.sampled_from(["tape", "ledger", "stuck"]), st.booleans()),
    st.tuples(st.just("venue"), st.integers(1, 3)),
)


class Story:
    """One venue, its feed's lives, and what each id has become."""

    def __init__(self):
        self.world = FillWorld({BTC: range(10_000)})
        self.printed = 99
        self.dropped = []
        self.heard = set()
        self.promise = None

    def act(self, name, *given):
        getattr(self, name)(*given)

    def hear(self, dropped, count):
        self.dropped += range(self.printed + 1, self.printed + 1 + dropped)
        self.printed += dropped
        ids = range(self.printed + 1, self.printed + 1 + count)
        self.printed += count
        self.heard.update(ids)
        self.world.hear(*ids)

    def late(self, at):
        if at < len(self.dropped):
            trade_id = self.dropped.pop(at)
            self.heard.add(trade_id)
            self.world.hear(trade_id)

    def wait(self, seconds):
        self.world.clock.advance(seconds)

    def turn(self):
        try:
            self.world.turn()
        except Unavailable:
            self.world.clock.advance(0.5)

    def exchange(self):
        self.world.exchange()

    def publish(self):
        self.promise = self.world.lines[0].promised or self.promise

    def kill(self):
        self.world = self.world.again({} if self.promise is None else {BTC: self.promise})

    def tape(self, away):
        self.world.tape.away = away

    def ledger(self, away):
        self.world.log.refusing = away

    def stuck(self, stuck):
        self.world.stuck = stuck

    def venue(self, times):
        self.world.history.failures += [FAILED] * times

    def check(self):
        away, self.world.tape.away = self.world.tape.away, False
        there = self.heard | set(self.world.ids())
        told = self.world.tape.gap_log().advance()
        self.world.tape.away = away
        for event in told:
            if event.state is GapState.FILLED:
                assert set(range(event.first_id, event.last_id + 1)) <= there
        known = {each for event in told for each in range(event.first_id, event.last_id + 1)}
        if self.promise is not None:
            assert set(range(min(self.heard), self.promise + 1)) <= there | known

    def heal(self):
        self.tape(False)
        self.ledger(False)
        self.stuck(False)
        self.world.history.failures.clear()
        self.hear(0, 1)
        for _ in range(40):
            self.world.clock.advance(5.0)
            self.world.exchange()
            self.world.turn()
        assert not self.world.keeper.ledger.open(BTC)
        there = self.heard | set(self.world.ids())
        assert set(range(min(self.heard), self.printed + 1)) <= there
        assert self.world.lines[0].promised == self.printed


@settings(max_examples=100)
@given(st.lists(ACTIONS, max_size=40))
def test_nothing_is_lost_in_silence(actions):
    story = Story()
    story.hear(0, 1)
    story.publish()
    for action in actions:
        story.act(*action)
        story.check()
    story.heal()
