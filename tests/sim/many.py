"""Many seeds side by side: each is a history of its own, so processes share nothing."""

import signal
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.sim.runs import Runs

FRAMES_TOLD = 12


@dataclass(frozen=True)
class Outcome:
    """What became of a seed.

    Attributes:
        seed: which.
        switches: steps of its scheduler.
        said: how often K2 logged each message.
        events: the last of its history.
        failure: how it failed; empty when all was right.
    """

    seed: int
    switches: int
    said: Counter
    events: tuple[str, ...]
    failure: str


def outcomes(seeds, workers):
    """What becomes of seeds, in their order; whoever stops taking them stops the rest.

    Args:
        seeds: which.
        workers: processes.
    """
    with (
        TemporaryDirectory() as folder,
        ProcessPoolExecutor(
            workers, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
        ) as pool,
    ):
        yield from pool.map(partial(_live, Path(folder)), seeds)


def _live(folder, seed):
    own = folder / str(seed)
    own.mkdir()
    with Runs(own) as runs:
        world, error = runs.run(seed)
    failure = ""
    if error is not None:
        told = "".join(traceback.format_exception(error)[-FRAMES_TOLD:])
        failure = f"seed {seed} failed: {world.swarm}\n{told}"
    return Outcome(seed, world.scheduler.switches, runs.said, tuple(world.events), failure)
