"""A few seeds with every change; `make sim SEEDS=500` runs many."""

import pytest

pytestmark = pytest.mark.timeout(180)
SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_doubled_or_answered_wrongly(runs, seed):
    world, error = runs.run(seed)
    if error is not None:
        raise AssertionError(f"seed {seed}: {world.swarm}") from error
    assert world.oracle.snapshots


def test_a_seed_is_one_history(runs):
    (one, _), (again, _), (other, _) = (
        runs.run(seed, maintainers=2, ops_writers=2) for seed in (8, 8, 7)
    )
    assert one.history == again.history
    assert one.event_count == again.event_count > 500
    assert one.history != other.history
