"""Whatever happens, a session is never stuck, never floods, and never forgets a connection."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from k2.feed.connection.session import Action, Session, SessionTimes, State

TUNING = SessionTimes(
    stale_s=30,
    quiet_max_s=100,
    backoff_min_s=0.5,
    backoff_max_s=30,
    renew_s=300,
    overlap_s=10,
    connect_s=10,
)
LINK = st.integers(min_value=1, max_value=12)


class SessionMachine(RuleBasedStateMachine):
    """A venue that does anything, at any time, also to connections that are long gone."""

    def __init__(self):
        super().__init__()
        self.now_s = 0.0
        self.session = Session(np.random.default_rng(3), TUNING)
        self.held = set()  # connections that we would hold, by the commands
        self.attempts = []
        self.do(self.session.start(0.0))

    def do(self, commands):
        for command in commands:
            if command.action is Action.CONNECT:
                assert command.link not in self.held
                self.held.add(command.link)
                self.attempts.append(self.now_s)
            elif command.action is Action.CLOSE:
                assert command.link in self.held
                self.held.discard(command.link)
            else:
                assert command.link in self.held

    @rule(link=LINK)
    def opened(self, link):
        self.session.opened(link, self.now_s)

    @rule(link=LINK)
    def received(self, link):
        self.session.received(link, self.now_s)

    @rule(link=LINK)
    def alive(self, link):
        self.session.alive(link, self.now_s)

    @rule(link=LINK)
    def lost(self, link):
        self.session.lost(link, self.now_s)
        self.held.discard(link)

    @rule()
    def held_up(self):
        self.session.held_up(self.now_s)

    @rule(link=LINK)
    def shutdown(self, link):
        self.session.shutdown_announced(link, self.now_s)

    @rule(seconds=st.floats(min_value=0, max_value=400))
    def time_passes(self, seconds):
        self.now_s += seconds
        self.do(self.session.tick(self.now_s))

    @precondition(lambda self: self.session.due_s is not None)
    @rule()
    def time_passes_until_due(self):
        self.now_s = max(self.now_s, self.session.due_s)
        self.do(self.session.tick(self.now_s))

    @invariant()
    def never_stuck(self):
        if self.session.state is not State.STOPPED:
            assert self.session.due_s is not None
            assert self.session.due_s <= self.now_s + max(TUNING.stale_s, TUNING.backoff_max_s)

    @invariant()
    def at_most_two_connections_and_the_session_knows_them(self):
        assert len(self.held) <= 2
        expected = {
            State.WAITING: 0,
            State.CONNECTING: 1,
            State.LIVE: 1,
            State.RENEWING: 2,
            State.STOPPED: 0,
        }
        assert len(self.held) == expected[self.session.state]

    @invariant()
    def a_tick_that_did_all_that_is_due_is_not_due_again(self):
        before = self.session.due_s
        if before is not None and before > self.now_s:
            assert self.session.tick(self.now_s) == []

    def teardown(self):
        """Left alone, a session that lost everything asks for a connection within a backoff."""
        if self.session.state is State.WAITING:
            self.now_s += TUNING.backoff_max_s
            self.do(self.session.tick(self.now_s))
            assert self.session.state is State.CONNECTING
        self.do(self.session.stop())
        assert self.session.tick(self.now_s + 1e6) == []


SessionMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestSession = SessionMachine.TestCase


def test_connects_stay_below_what_a_venue_allows():
    """A venue that accepts and cuts at once sees far fewer than its 300 connects in 5 minutes."""
    session = Session(np.random.default_rng(5), TUNING)
    now_s, connects = 0.0, 1
    session.start(now_s)
    while now_s < 300:
        session.opened(connects, now_s)
        session.received(connects, now_s)
        session.lost(connects, now_s)
        now_s = session.due_s
        connects += sum(command.action is Action.CONNECT for command in session.tick(now_s))
    assert connects < 30
