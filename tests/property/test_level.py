"""Whatever the pressures, levels rise only when confirmed and fall by one after a dwell."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from k2.degrade.level import Level, LevelState, Tuning, level_of, step
from k2.degrade.signals import Signal, pressures, scales

TUNING = Tuning(confirm_s=2, dwell_s=10)
histories = st.lists(st.tuples(st.floats(0.1, 8), st.floats(0, 1)), min_size=1, max_size=80)


def states_of(history):
    now, state, states = 0.0, LevelState(), []
    for gap, pressure in history:
        now += gap
        state = step(state, pressure, now, TUNING)
        states.append((now, pressure, state))
    return states


@given(histories)
def test_a_rise_was_held_for_the_confirm_time(history):
    states = states_of(history)
    for index, ((_, _, before), (now, _, after)) in enumerate(pairwise(states), start=1):
        if after.level > before.level:
            entry = TUNING.entries[after.level - 1]
            held = [at for at, pressure, _ in _suffix(states, index, entry)]
            assert held
            assert now - held[0] >= TUNING.confirm_s


def _suffix(states, last, entry):
    """The unbroken run of observations up to `last` at or above `entry`."""
    run = []
    for observation in reversed(states[: last + 1]):
        if observation[1] < entry:
            break
        run.insert(0, observation)
    return run


@given(histories)
def test_a_fall_is_one_level_below_its_exit_and_a_dwell_after_the_last_change(history):
    states = states_of(history)
    changed = None
    for (_, _, before), (now, pressure, after) in pairwise(states):
        if after.level < before.level:
            assert after.level == before.level - 1
            assert pressure < TUNING.exits[before.level - 1]
            assert changed is None or now - changed >= TUNING.dwell_s
        if after.level != before.level:
            changed = now


@given(histories)
def test_calm_always_ends_in_normal_and_pressure_in_its_level(history):
    now, _, state = states_of(history)[-1]
    pressed, calm = state, state
    for _ in range(99):
        now += 1
        calm = step(calm, 0.0, now, TUNING)
        pressed = step(pressed, 0.99, now, TUNING)
    assert calm.level is Level.NORMAL
    assert pressed.level is level_of(0.99)


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=60))
def test_waiting_for_a_cpu_alone_never_lifts_above_soft(readings):
    state, by_name = LevelState(), scales()
    for now, share in enumerate(readings):
        pressure = pressures({Signal.CPU_PRESSURE: share}, by_name)[Signal.CPU_PRESSURE]
        state = step(state, pressure, now, Tuning(confirm_s=0))
        assert state.level <= Level.SOFT
