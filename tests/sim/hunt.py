"""Finding out mutants: K2 with one thing wrong, in worlds of the kind that shows it."""

from k2.errors import K2Error
from tests.sim.parts import Parts
from tests.sim.violation import Violation

SEEDS = range(101, 111)
SHARP = {
    "seconds": 8, "rate": 20, "symbols": 2, "writers": 2, "servers": 1, "maintainers": 0,
    "retainers": 0, "retention_hours": None, "ops_writers": 0, "writer_rate": None,
    "commit_interval_s": 1, "tail_recent_s": 0, "every_s": {"rebalance": 10}, "disaster": None,
}  # fmt: skip


def name_of(given):
    """Of the mutant among parts."""
    if isinstance(given, Parts):
        made = (one for one in vars(given).values() if one.__module__.startswith("tests.sim.test_"))
        return next(made).__name__
    return ""


def seeds_until_found(runs, mutant, **fields):
    """The first seed that finds it, and what it finds; None when it takes too many."""
    for seed in SEEDS:
        _, error = runs.run(seed, mutant, **fields)
        if error is not None:
            return seed, error
    return None


def is_found_out(runs, mutant, **fields):
    """Check that a mutant is found, and that without it the same world is right."""
    found = seeds_until_found(runs, mutant, **fields)
    assert found, f"it lives after {len(SEEDS)} seeds"
    seed, error = found
    assert isinstance(error, Violation | K2Error | OSError), error
    _, error = runs.run(seed, **fields)
    assert error is None, "without the mutant, the same world is right"
