"""A process obeys the higher of two levels, or an override that its own needs may exceed."""

import itertools

import pytest

from k2.degrade.level import Level
from k2.degrade.platform import (
    LOST_LONG,
    LOST_LONG_S,
    LOST_SOON,
    Levels,
    lost_pressure,
    own_need,
)
from k2.degrade.policy import POLICIES
from k2.degrade.signals import Signal


@pytest.mark.parametrize(("own", "platform"), [*itertools.product(Level, Level)])
def test_the_higher_of_own_and_platform_holds(own, platform):
    levels = Levels(own, platform)
    assert levels.effective is levels.prescribed is max(own, platform)
    assert levels.policy is POLICIES[max(own, platform)]


@pytest.mark.parametrize(("override", "demanded"), [*itertools.product(Level, Level)])
def test_an_override_replaces_both_downward_too_but_not_what_is_demanded(override, demanded):
    levels = Levels(Level.CIRCUIT_BREAK, Level.SOFT, override, demanded)
    assert levels.effective is max(override, demanded)


def test_in_shadow_mode_nothing_is_obeyed_and_all_is_said():
    levels = Levels(Level.AGGRESSIVE, shadow=True)
    assert (levels.effective, levels.prescribed) == (Level.NORMAL, Level.AGGRESSIVE)
    assert levels.policy is POLICIES[Level.NORMAL]


def test_memory_and_disk_are_needs_and_nothing_else_is():
    assert own_need({}) == 0.0
    assert own_need({Signal.WRITER_LAG_S: 1.0}) == 0.0
    assert own_need({Signal.RSS_BYTES: 0.5, Signal.DISK_FREE_BYTES: 0.99}) == 0.99
    assert own_need({Signal.RSS_BYTES: 0.5, Signal.CGROUP_BYTES: 0.9}) == 0.9


def test_a_process_that_is_lost_for_longer_presses_more():
    assert [lost_pressure(s) for s in (5, LOST_LONG_S - 0.1, LOST_LONG_S)] == [
        *(LOST_SOON, LOST_SOON, LOST_LONG),
    ]
