"""When a process that died is started again."""

from k2 import limits
from servers.local.restarts import Deaths


def test_five_deaths_within_the_window_are_too_many():
    deaths = Deaths()
    for at_s in (0.0, 10.0, 20.0, 30.0):
        deaths = deaths.add(at_s)
        assert not deaths.too_many
    assert deaths.add(59.9).too_many


def test_deaths_outside_the_window_are_forgotten():
    deaths = Deaths()
    for number in range(20):
        deaths = deaths.add(number * limits.RESTARTS_WINDOW_S / (limits.RESTARTS_MAX - 1))
        assert not deaths.too_many


def test_pauses_grow_up_to_a_bound():
    deaths, pauses = Deaths(), []
    for _ in range(12):
        deaths = deaths.add(0.0)
        pauses.append(deaths.pause_s)
    assert pauses[0] == limits.RESTART_PAUSE_MIN_S
    assert pauses == sorted(pauses)
    assert pauses[-1] == limits.RESTART_PAUSE_MAX_S
