"""Runs worlds one after the other with one query executor, which is costly to make."""

import shutil

from k2.clock import ManualClock
from k2.query.execute import Executor
from tests.sim.world import World


class Runs:
    """See the module.

    Args:
        folder: for the files that a query reads.
    """

    def __init__(self, folder):
        self._folder = folder
        # Its clock stands still: no query of the simulation takes too long.
        self._executor = Executor(
            clock=ManualClock(), warehouse=f"file://{folder}", temp_dir=folder / "tmp", threads=1
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._executor.close()

    def run(self, seed, **parts):
        """One world; it, and what went wrong."""
        world = World(seed, self._executor, self._folder, **parts)
        try:
            world.run()
        except Exception as error:  # noqa: BLE001 whatever it is, it is the finding
            return world, error
        finally:
            shutil.rmtree(self._folder / str(seed), ignore_errors=True)
        return world, None
