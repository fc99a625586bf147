"""Readings become pressures between two thresholds, and an unreadable one is not a calm one."""

import math

import pytest

from k2 import limits
from k2.degrade.signals import SOFT_AT_MOST, UNREADABLE, Scale, Signal, pressure, pressures, scales


def test_linear_between_the_thresholds():
    scale = Scale(10, 20)
    assert [pressure(value, scale) for value in (0, 10, 15, 20, 99)] == [0, 0, 0.5, 1, 1]


def test_a_signal_may_get_worse_as_it_shrinks():
    scale = Scale(calm=4, full=1)
    assert [pressure(value, scale) for value in (9, 4, 2.5, 1, 0)] == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize("value", [None, math.nan])
def test_what_cannot_be_read_counts_as_high(value):
    assert pressure(value, Scale(0, 1)) == UNREADABLE


def test_infinite_readings_are_the_ends():
    assert pressure(math.inf, Scale(0, 1)) == 1
    assert pressure(-math.inf, Scale(0, 1)) == 0


def test_a_signal_without_a_scale_counts_as_high():
    assert pressures({"who knows": 0.0}, scales()) == {"who knows": UNREADABLE}


def test_every_signal_has_a_scale():
    assert set(scales()) == set(Signal)
    assert pressures({Signal.DISK_FREE_BYTES: 0.0}, scales())[Signal.DISK_FREE_BYTES] == 1


def test_the_settings_are_the_scales():
    half = limits.TAIL_BYTES_MAX / 2
    assert scales(tail_bytes_max=half)[Signal.TAIL_BYTES] == Scale(half / 4, half)
    slow = scales(commit_interval_s=60.0)
    assert slow[Signal.WRITER_LAG_S] == Scale(180.0, 1800.0)
    assert slow[Signal.COMMIT_LATENCY_S] == Scale(6.0, 60.0)
    assert scales(commit_interval_s=5.0)[Signal.WRITER_LAG_S] == Scale(15.0, 150.0)


def test_a_very_short_commit_interval_makes_no_pressure_of_ordinary_commits():
    often = scales(commit_interval_s=0.1)
    readings = {Signal.WRITER_LAG_S: 5.0, Signal.COMMIT_LATENCY_S: 1.0}
    assert set(pressures(readings, often).values()) == {0.0}


def test_a_scale_has_a_length():
    with pytest.raises(AssertionError):
        Scale(1, 1)


def test_what_the_settings_let_a_process_hold_is_no_pressure():
    full = limits.PROCESS_RSS_MAX
    assert scales(tail_bytes_max=1)[Signal.RSS_BYTES].full == full
    large = scales(tail_bytes_max=limits.TAIL_BYTES_MAX + 100, commit_bytes_max=2**40)
    assert large[Signal.RSS_BYTES].full == full + 100 + 2 * (2**40 - limits.COMMIT_BYTES_MAX)


@pytest.mark.parametrize("signal", [Signal.CPU_PRESSURE, Signal.IO_PRESSURE, Signal.LOOP_LAG_S])
def test_a_busy_machine_means_a_little_at_most(signal):
    assert pressures({signal: 1e9}, scales()) == {signal: SOFT_AT_MOST}
