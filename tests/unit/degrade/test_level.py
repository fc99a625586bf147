"""Levels rise after a confirm and fall one by one after a dwell."""

import itertools

import pytest

from k2.degrade.level import Level, LevelState, Tuning, level_of, step
from k2.settings import DegradeSettings

TUNING = Tuning(confirm_s=2, dwell_s=10)


def run(pairs, state=None):
    levels = []
    state = state or LevelState()
    for now, pressure in pairs:
        state = step(state, pressure, now, TUNING)
        levels.append(state.level)
    return levels


def test_a_short_peak_is_not_confirmed():
    assert run([(0, 1.0), (1, 1.0), (1.5, 0.0), (2, 1.0), (3, 1.0)])[-1] is Level.NORMAL


def test_a_held_pressure_rises_at_once_to_its_level():
    assert run([(0, 0.75), (1, 0.9), (2, 0.72)]) == [0, 0, Level.GRACEFUL]


def test_the_highest_pressure_breaks_the_circuit():
    assert run([(0, 1.0), (2, 1.0)])[-1] is Level.CIRCUIT_BREAK


def test_it_falls_one_level_a_dwell():
    calm = [(t, 0.0) for t in range(3, 60)]
    levels = run([(0, 1.0), (2, 1.0), *calm])
    falls = [t for t, (a, b) in enumerate(itertools.pairwise(levels)) if b < a]
    assert levels[-1] is Level.NORMAL
    assert len(falls) == 4
    assert min(b - a for a, b in itertools.pairwise(falls)) >= TUNING.dwell_s


def test_between_exit_and_entry_nothing_changes():
    between = (TUNING.exits[0] + TUNING.entries[0]) / 2
    assert run([(0, 0.5), (2, 0.5), *[(t, between) for t in range(3, 99)]])[-1] is Level.SOFT


def test_a_break_in_the_calm_starts_the_dwell_again():
    pairs = [(0, 0.5), (2, 0.5), (3, 0.0), (12, 0.45), (13, 0.0), (22, 0.0)]
    assert run(pairs)[-1] is Level.SOFT
    assert run([*pairs, (23, 0.0)])[-1] is Level.NORMAL


def test_level_of_a_pressure_alone():
    assert [level_of(p) for p in (0, 0.5, 0.7, 0.9, 1)] == list(Level)


def test_the_times_of_a_tuning_come_from_the_settings():
    tuning = Tuning.of(DegradeSettings(confirm_s=1.5, dwell_s=4.0))
    assert (tuning.confirm_s, tuning.dwell_s) == (1.5, 4.0)
    assert tuning.entries == Tuning().entries


def test_defaults_apply_without_a_tuning():
    assert step(LevelState(), 0.0, 0.0) == LevelState()


@pytest.mark.parametrize(
    "wrong",
    [{"entries": (0.7, 0.5, 0.8, 0.9)}, {"exits": (0.5, 0.6, 0.75, 0.9)}],
)
def test_thresholds_that_would_flap_are_refused(wrong):
    with pytest.raises(AssertionError):
        Tuning(**wrong)
