import numpy as np
import pytest

from k2.degrade.level import Level
from k2.degrade.platform import Levels
from k2.lake.ingest.quality import quality_of
from k2.lake.ingest.reading_order import Orders
from k2.metrics import EVENTS


def made(ids, prices):
    return quality_of(np.array(ids, dtype=np.int64), np.array(prices, dtype=np.int64))


def sample(name, **labels):
    return EVENTS.get_sample_value(name, labels) or 0.0


def test_late_trades_are_those_below_an_earlier_id():
    assert made([1, 2, 3], [5, 5, 5]).late_ratio == 0
    assert made([1, 4, 2, 3, 5], [5] * 5).late_ratio == pytest.approx(2 / 5)


def test_the_largest_jump_is_between_neighbours_by_id():
    assert made([1, 2, 3], [100, 110, 99]).jump_ratio == pytest.approx(0.1)
    assert made([1, 3, 2], [100, 102, 101]).jump_ratio == pytest.approx(0.01)
    assert made([7], [100]).jump_ratio == 0


def test_outliers_are_far_from_the_usual_return():
    steps = np.random.default_rng(1).uniform(-0.001, 0.001, 50)
    usual = (1e8 * np.exp(np.cumsum(steps))).tolist()
    assert made(range(50), usual).outliers == 0
    assert made(range(51), [*usual, 2e8]).outliers == 1
    assert made(range(52), [*usual, 2e8, 1e8]).outliers == 2


def test_where_prices_repeat_there_is_no_usual_return():
    assert made(range(5), [100, 100, 100, 100, 900]).outliers == 0


def test_each_commit_moves_the_metrics_of_its_symbols(world):
    pump = world.pump()
    world.put(1, 3, 2, price=100)
    world.put(1, symbol="ETHUSDT", price=100)
    world.put(2, symbol="ETHUSDT", price=150)
    pump.step()
    assert pump.commit()
    assert sample("k2_quality_late_ratio", symbol="BTCUSDT") == pytest.approx(1 / 3)
    assert sample("k2_quality_largest_jump_ratio", symbol="ETHUSDT") == pytest.approx(0.5)
    assert sample("k2_quality_late_ratio", symbol="ETHUSDT") == 0


def test_a_level_that_does_not_enrich_skips_it(world):
    before = sample("k2_quality_commits_skipped_total")
    pump = world.pump(orders=Orders(lambda: Levels(own=Level.SOFT)))
    world.put(1, price=100)
    world.put(2, price=400)
    pump.step()
    assert pump.commit()
    assert world.ids() == [1, 2]
    assert sample("k2_quality_commits_skipped_total") == before + 1
    assert sample("k2_quality_largest_jump_ratio", symbol="BTCUSDT") != 3
