import pytest

from k2 import limits
from k2.feed.venues.rate_limit import WeightBudget

MINUTE_US = 60_000_000
NOW_US = 1_000 * MINUTE_US + 20_000_000  # 20 s into a minute


def test_within_the_budget_nothing_waits_above_it_until_the_minute_is_over():
    budget = WeightBudget(100)
    for _ in range(4):
        assert budget.wait_s(25, NOW_US) == 0
        budget.spend(25, NOW_US)
    assert budget.wait_s(25, NOW_US) == 40
    assert budget.wait_s(25, NOW_US + 40_000_000) == 0
    assert (budget.used(NOW_US), budget.used(NOW_US + MINUTE_US), budget.spent) == (100, 0, 100)


def test_what_others_use_of_the_address_counts():
    budget = WeightBudget(100)
    budget.spend(25, NOW_US)
    budget.correct(90, NOW_US)
    assert budget.wait_s(25, NOW_US) == 40
    budget.correct(10, NOW_US)
    assert budget.used(NOW_US) == 90, "a late answer does not take anything back"


def test_a_venue_that_says_later_is_left_alone():
    budget = WeightBudget(100)
    budget.block(90, NOW_US)
    budget.block(5, NOW_US)
    assert budget.wait_s(25, NOW_US + 30_000_000) == 60
    assert budget.wait_s(25, NOW_US + 90_000_000) == 0


def test_no_block_is_longer_than_a_venue_may_ban():
    budget = WeightBudget(100)
    budget.block(1e12, NOW_US)
    assert budget.wait_s(25, NOW_US) == limits.FEED_REST_BLOCKED_MAX_S


def test_a_clock_that_is_set_back_makes_no_block_longer():
    budget = WeightBudget(100)
    budget.block(90, NOW_US)
    assert budget.wait_s(25, NOW_US + 30_000_000) == 60
    hour_back_us = NOW_US - 3600_000_000
    assert budget.wait_s(25, hour_back_us) == 60
    assert budget.wait_s(25, hour_back_us + 60_000_000) == 0
    budget.block(5, hour_back_us)
    assert budget.wait_s(25, hour_back_us) == 5


def test_a_request_above_the_whole_budget_has_a_minute_of_its_own():
    budget = WeightBudget(10)
    assert budget.wait_s(25, NOW_US) == 0
    budget.spend(25, NOW_US)
    assert budget.wait_s(25, NOW_US) == 40


@pytest.mark.parametrize(("requests", "seconds"), [(0, 0), (4, 0), (8, 60), (10, 90)])
def test_the_eta_is_what_the_budget_allows(requests, seconds):
    assert WeightBudget(100).eta_s(requests, 25, NOW_US) == seconds
