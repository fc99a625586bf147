"""When a process that died is started again."""

from k2 import limits
from servers.local.restart_budget import RestartBudget


def test_five_deaths_within_the_window_are_too_many():
    deaths = RestartBudget()
    for at_s in (0.0, 10.0, 20.0, 30.0):
        deaths = deaths.add(at_s, progressed=True)
        assert not deaths.too_many
    deaths = deaths.add(59.9, progressed=True)
    assert deaths.too_many
    assert deaths.summary == "5 times in 60 s"


def test_deaths_outside_the_window_are_forgotten():
    deaths = RestartBudget()
    for number in range(20):
        at_s = number * limits.RESTARTS_WINDOW_S / (limits.RESTARTS_MAX - 1)
        deaths = deaths.add(at_s, progressed=True)
        assert not deaths.too_many


def test_five_deaths_without_progress_in_between_are_too_many_however_far_apart():
    deaths = RestartBudget()
    for number in range(limits.RESTARTS_MAX - 1):
        deaths = deaths.add(number * 1000.0, progressed=False)
        assert not deaths.too_many
    deaths = deaths.add(1e6, progressed=True)  # it got something done: counted from here
    for number in range(1, limits.RESTARTS_MAX):
        assert not deaths.too_many
        deaths = deaths.add(1e6 + number * 25.0, progressed=False)
    assert deaths.too_many
    assert deaths.summary == "5 times and got nothing done in between"


def test_pauses_grow_up_to_a_bound():
    deaths, pauses = RestartBudget(), []
    for _ in range(12):
        deaths = deaths.add(0.0, progressed=True)
        pauses.append(deaths.pause_s)
    assert pauses[0] == limits.RESTART_PAUSE_MIN_S
    assert pauses == sorted(pauses)
    assert pauses[-1] == limits.RESTART_PAUSE_MAX_S
