"""What control says survives its restart, and ends by the wall clock."""

import pytest

from k2.clock import ManualClock
from k2.degrade.level import Level
from servers.degradation_topic import DegradationTopic, Override
from tests.fakes.wire import MemoryBoard


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def board():
    return MemoryBoard()


@pytest.fixture
def said(board, clock):
    return DegradationTopic(board, clock)


def test_at_first_the_level_is_normal_and_nothing_is_overridden_or_injected(said):
    assert (said.level(), said.platform(), said.override()) == (Level.NORMAL, Level.NORMAL, None)
    assert said.injected("lake") == {}


def test_the_level_survives_a_restart(said, board, clock):
    said.put_platform(Level.SOFT)
    assert DegradationTopic(board, clock).level() is Level.SOFT


@pytest.mark.parametrize("document", [{}, {"level": "NO_LEVEL"}, {"level": 3}])
def test_what_is_no_level_is_normal(said, board, document):
    board.put("platform", document)
    board.put("override", document)
    assert (said.level(), said.override()) == (Level.NORMAL, None)


def test_an_override_replaces_the_level_until_it_ends(said, board, clock):
    said.put_platform(Level.GRACEFUL)
    now_us = clock.now_us()
    override = Override(Level.SOFT, "a test", now_us, now_us + 2_000_000)
    said.put_override(override)
    after = DegradationTopic(board, clock)
    assert after.standing_override() == override
    assert (after.level(), after.platform()) == (Level.SOFT, Level.GRACEFUL)
    clock.advance(2)
    assert (after.level(), after.override()) == (Level.GRACEFUL, None)


def test_the_level_is_published_with_the_override_beside_it(said):
    assert said.recorded_override() is None
    override = Override(Level.SOFT, "a test", 1, 2)
    said.put_platform(Level.NORMAL, override)
    assert said.recorded_override() == override
    said.put_platform(Level.NORMAL)
    assert said.recorded_override() is None


def test_an_override_is_cleared(said, clock):
    now_us = clock.now_us()
    said.put_override(Override(Level.SOFT, "a test", now_us, now_us + 2_000_000))
    said.put_override(None)
    assert said.standing_override() is None


def test_injected_pressures_add_up_and_end_each_by_itself(said, clock):
    now_us = clock.now_us()
    said.inject("*", "rss_bytes", 0.5, now_us + 1_000_000)
    said.inject("lake", "rss_bytes", 0.9, now_us + 2_000_000)
    said.inject("lake", "writer_lag_s", 0.7, now_us + 3_000_000)
    assert said.injected("lake") == {"rss_bytes": 0.9, "writer_lag_s": 0.7}
    assert said.injected("query") == {"rss_bytes": 0.5}
    clock.advance(2)
    assert said.injected("query") == {}
    assert said.injected("lake") == {"writer_lag_s": 0.7}
    said.inject("query", "rss_bytes", 0.1, now_us + 9_000_000)
    assert said.injected("lake") == {"writer_lag_s": 0.7}


def test_what_is_no_injection_is_passed_over(said, board, clock):
    board.put("injected", {"lake": {"rss_bytes": 7}, "*": "all"})
    assert said.injected("lake") == {}
    said.inject("lake", "rss_bytes", 0.5, clock.now_us() + 1)
    assert said.injected("lake") == {"rss_bytes": 0.5}
