"""A session holds one subscription for ever: connect, renew, back off, all without IO."""

import itertools

import numpy as np
import pytest

from k2.feed.connection.session import Action, Session, SessionTimes, State

TUNING = SessionTimes(
    stale_s=30, quiet_max_s=200, backoff_min_s=1, backoff_max_s=30, renew_s=1000, overlap_s=10
)


def started(now_s=0.0, tuning=TUNING):
    session = Session(np.random.default_rng(1), tuning)
    assert session.state is State.IDLE
    assert session.due_s is None
    assert session.tick(now_s) == []
    assert [command[:2] for command in session.start(now_s)] == [(Action.CONNECT, 1)]
    assert session.state is State.CONNECTING
    return session


def live(now_s=0.0):
    session = started(now_s)
    session.opened(1, now_s)
    session.received(1, now_s)
    assert session.state is State.LIVE
    return session


def ticked(session, now_s):
    return [(command.action.name, command.link) for command in session.tick(now_s)]


def kept_alive(session, link, until_s, step_s=10.0):
    """Frames come until a time, and nothing but the planned renewal is asked for."""
    now_s = 0.0
    while now_s < until_s:
        now_s += step_s
        session.received(link, now_s)
        assert ticked(session, now_s) == []
    return now_s


def test_a_lost_connection_comes_back_after_the_backoff():
    session = live()
    session.lost(1, 100)
    assert session.state is State.WAITING
    assert 100.5 <= session.due_s <= 101
    assert ticked(session, session.due_s - 0.01) == []
    assert ticked(session, session.due_s) == [("CONNECT", 2)]
    assert (session.connects, session.reconnects, session.renewals) == (2, 1, 0)


def test_backoff_grows_to_its_maximum_and_never_ends():
    session = started()
    now_s, waits = 0.0, []
    for link in range(1, 60):
        session.lost(link, now_s)
        waits.append(session.due_s - now_s)
        now_s = session.due_s
        assert ticked(session, now_s) == [("CONNECT", link + 1)]
    for attempt, wait in enumerate(waits):
        longest = min(30, 2**attempt)
        assert longest / 2 <= wait <= longest
    assert len(set(waits)) == len(waits), "jittered"


def test_a_venue_that_cuts_at_once_is_not_hammered():
    session = started()
    for link in range(1, 8):
        session.opened(link, 0)
        session.received(link, 0)
        session.lost(link, 0)
        assert session.due_s >= min(30, 2 ** (link - 1)) / 2
        assert ticked(session, session.due_s) == [("CONNECT", link + 1)]


def test_a_connection_that_lasted_ends_the_growth():
    session = started()
    for link in range(1, 6):
        session.lost(link, 0)
        session.tick(session.due_s)
    session.opened(6, 1000)
    session.lost(6, 1030)
    assert session.due_s - 1030 <= TUNING.backoff_min_s


def test_an_attempt_that_is_never_answered_is_given_up():
    session = started()
    assert session.due_s == TUNING.connect_s
    assert ticked(session, TUNING.connect_s) == [("CLOSE", 1)]
    assert session.state is State.WAITING


def test_silence_is_asked_about_then_given_up():
    session = live()
    assert session.due_s == 15
    assert ticked(session, 14.9) == []
    assert ticked(session, 15) == [("PING", 1)]
    assert ticked(session, 16) == []
    assert ticked(session, 30) == [("CLOSE", 1)]
    assert session.state is State.WAITING
    session.lost(1, 31)  # the socket says so too, later: known already
    assert session.state is State.WAITING


def test_a_sign_of_life_saves_the_connection():
    session = live()
    session.tick(15)
    session.alive(1, 15.2)
    assert ticked(session, 29) == []
    assert session.state is State.LIVE


def test_a_venue_that_answers_but_sends_nothing_is_renewed_with_growing_patience():
    session = live()
    now_s, link, renewed_at = 0.0, 1, []
    while now_s < 2000:
        now_s += 1
        for action, number in ticked(session, now_s):
            if action == "PING":
                session.alive(number, now_s)
            elif action == "CONNECT":
                renewed_at.append(now_s)
                link = number
                session.opened(number, now_s)
            else:
                assert number == link - 1, "the older one is closed, after the overlap"
    assert renewed_at[0] == TUNING.stale_s
    waits = [after - before for before, after in itertools.pairwise(renewed_at)]
    assert waits[:3] == [60, 120, 200]
    assert set(waits[3:]) == {200}
    assert session.reconnects == 0
    session.received(link, now_s)
    assert session.due_s <= now_s + TUNING.stale_s


def test_renewal_overlaps_and_then_closes_the_old_connection():
    session = live()
    now_s = kept_alive(session, 1, 990)
    assert ticked(session, now_s + 10) == [("CONNECT", 2)]
    assert session.state is State.RENEWING
    session.opened(2, 1001)
    session.received(2, 1002)
    session.received(1, 1003)
    assert ticked(session, 1010) == []
    assert ticked(session, 1011) == [("CLOSE", 1)]
    assert session.state is State.LIVE
    assert session.renewals == 1
    session.lost(1, 1012)
    assert session.state is State.LIVE


def test_a_new_connection_that_stays_silent_does_not_replace_one_that_speaks():
    session = live()
    session.shutdown_announced(1, 5)
    assert ticked(session, 5) == [("CONNECT", 2)]
    session.opened(2, 6)
    session.received(1, 10)
    assert ticked(session, 16) == [("CLOSE", 2)]
    assert session.state is State.LIVE
    assert session.due_s > 16
    assert ticked(session, session.due_s) == [("CONNECT", 3)], "tried again after a backoff"


def test_an_announced_shutdown_renews_at_once():
    session = live()
    session.shutdown_announced(7, 3)  # of a connection that is gone: nothing
    assert ticked(session, 3) == []
    session.shutdown_announced(1, 4)
    assert session.due_s <= 4
    assert ticked(session, 4) == [("CONNECT", 2)]
    session.lost(1, 4.5)
    assert session.state is State.CONNECTING, "the renewal goes on as the only connection"
    session.opened(2, 5)
    assert session.state is State.LIVE
    assert session.reconnects == 0


def test_a_refused_renewal_keeps_the_old_connection_and_is_tried_again():
    session = live()
    session.shutdown_announced(1, 4)
    session.tick(4)
    session.lost(2, 5)
    assert session.state is State.LIVE
    assert 5 < session.due_s <= 6
    assert ticked(session, session.due_s) == [("CONNECT", 3)]


@pytest.mark.parametrize("opened", [False, True])
def test_stopping_closes_what_is_there_and_asks_for_nothing_more(opened):
    session = started()
    if opened:
        session.opened(1, 0)
    assert [command[:2] for command in session.stop()] == [(Action.CLOSE, 1)]
    assert session.state is State.STOPPED
    session.opened(1, 1)
    session.received(1, 1)
    session.alive(1, 1)
    session.lost(1, 1)
    assert (session.tick(99), session.due_s, session.stop()) == ([], None, [])


def test_what_is_said_of_unknown_connections_changes_nothing():
    session = live()
    due_s = session.due_s
    session.opened(9, 1)
    session.received(9, 1)
    session.alive(9, 1)
    session.lost(9, 1)
    assert (session.state, session.due_s) == (State.LIVE, due_s)


def test_an_overlap_lasts_until_both_were_read():
    session = live()
    session.shutdown_announced(1, 4)
    session.tick(4)
    session.opened(2, 5)
    session.received(2, 6)
    for now_s in range(6, 60):
        session.held_up(now_s)
    assert ticked(session, 60) == []
    assert session.state is State.RENEWING
    session.received(1, 68)
    session.received(2, 68)
    assert ticked(session, 69) == [("CLOSE", 1)]


def test_a_pause_closes_and_is_no_failure():
    session = live()
    assert [command[:2] for command in session.pause()] == [(Action.CLOSE, 1)]
    assert (session.state, session.due_s) == (State.PAUSED, None)
    session.lost(1, 5)  # the socket says that it ended
    assert ticked(session, 10_000) == []
    assert [command[:2] for command in session.resume(10_000)] == [(Action.CONNECT, 2)]
    session.opened(2, 10_000)
    assert session.state is State.LIVE
    assert (session.connects, session.reconnects, session.renewals) == (2, 0, 0)


def test_a_pause_ends_both_connections_of_a_renewal():
    session = live()
    session.shutdown_announced(1, 5)
    assert ticked(session, 5) == [("CONNECT", 2)]
    assert [command[:2] for command in session.pause()] == [(Action.CLOSE, 1), (Action.CLOSE, 2)]
    assert [command[:2] for command in session.resume(6)] == [(Action.CONNECT, 3)]


def test_a_pause_in_the_middle_of_connecting_forgets_the_attempt():
    session = started()
    assert [command[:2] for command in session.pause()] == [(Action.CLOSE, 1)]
    session.opened(1, 1)
    assert session.state is State.PAUSED
    session.resume(2)
    session.opened(1, 2)
    assert session.state is State.CONNECTING, "an earlier attempt is not this one"


def test_a_pause_does_not_shorten_a_backoff():
    session = live()
    for link in range(1, 7):
        session.lost(link, 100)
        if link < 6:
            session.tick(session.due_s)
    due_s = session.due_s
    assert session.pause() == []
    assert session.resume(101) == []
    assert (session.state, session.due_s) == (State.WAITING, due_s)
    assert ticked(session, due_s) == [("CONNECT", 7)]


def test_a_paused_session_can_end():
    session = live()
    session.pause()
    assert session.stop() == []
    assert session.state is State.STOPPED
