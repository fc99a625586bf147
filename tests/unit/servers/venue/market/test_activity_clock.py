import numpy as np
import pytest

from servers.venue.market.activity_clock import BLOCK_US, MASS_BITS, Activity

START = (1_795_000_000_000_000 // BLOCK_US) * BLOCK_US
BLOCK = START // BLOCK_US


@pytest.fixture(scope="module")
def activity():
    return Activity(7, "BTCUSDT")


def test_every_block_has_the_same_mass(activity):
    for block in range(3):
        assert activity.position(START + block * BLOCK_US) == (BLOCK + block) << MASS_BITS


def test_positions_never_descend(activity):
    times = range(START - 50_000, START + 2 * BLOCK_US, 9973)
    positions = [activity.position(time) for time in times]
    assert positions == sorted(positions)


def test_times_never_descend_and_come_back_from_positions(activity):
    positions = np.arange(BLOCK << MASS_BITS, (BLOCK + 2) << MASS_BITS, 654_321, dtype=np.int64)
    times = activity.times(positions)
    assert (np.diff(times) >= 0).all()
    for position, time in zip(positions[::37].tolist(), times[::37].tolist(), strict=True):
        assert activity.position(time) <= position <= activity.position(time + 1)


def test_what_is_reached_at_a_time_is_the_last_position_of_that_time(activity):
    inside = range(START, START + BLOCK_US, 2_345_678)
    for time in (START + 1, START + BLOCK_US - 1, START + BLOCK_US, *inside):
        reached = activity.reached(time)
        around = activity.times(np.array([reached, reached + 1], np.int64))
        assert around[0] <= time < around[1]


def test_times_do_not_depend_on_what_is_asked_together(activity):
    positions = np.arange(BLOCK << MASS_BITS, (BLOCK + 2) << MASS_BITS, 54_321_000, dtype=np.int64)
    alone = [int(Activity(7, "BTCUSDT").times(positions[i : i + 1])[0]) for i in range(0, 40, 9)]
    assert alone == activity.times(positions)[0:40:9].tolist()


def test_no_positions_give_no_times(activity):
    assert len(activity.times(np.zeros(0, np.int64))) == 0


def test_it_bursts_at_every_scale(activity):
    """A steady stream has a relative deviation of 0 here; a Poisson one has it from counting."""
    for width_us, least in ((4_000_000, 0.1), (250_000, 0.3), (8_000, 0.7)):
        times = range(START, START + 8 * BLOCK_US, width_us)
        mass = np.diff([activity.position(time) for time in times])
        assert mass.std() / mass.mean() > least


def test_symbols_are_busy_together_yet_each_for_itself():
    clocks = [Activity(7, symbol) for symbol in ("BTCUSDT", "ETHUSDT")]
    seconds = range(START, START + 16 * BLOCK_US, 4_000_000)
    btc, eth = (np.diff([clock.position(time) for time in seconds]) for clock in clocks)
    assert 0.2 < np.corrcoef(btc, eth)[0, 1] < 0.95


def test_a_bounded_number_of_blocks_is_remembered(activity):
    for block in range(30):
        activity.position(START + block * BLOCK_US)
    assert len(activity._tables) <= 8
