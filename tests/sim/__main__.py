"""Runs many seeds: `python -m tests.sim --seeds 200`; prints the first that fails, and how.

A failing seed fails again, alike: `python -m tests.sim --first SEED --seeds 1 --events`.
"""

import argparse
import sys
import tempfile
import traceback
from pathlib import Path

from k2.clock import SystemClock
from tests.sim.runs import Runs

PROGRESS_SEEDS = 50


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seconds", type=float, default=None, help="stop after so long")
    parser.add_argument("--events", action="store_true", help="print the last events of each seed")
    parser.add_argument("--keep-going", action="store_true", help="go on after a seed that fails")
    asked = parser.parse_args(argv)
    clock = SystemClock()
    began_s, failed, done, switches = clock.monotonic_s(), 0, 0, 0
    with tempfile.TemporaryDirectory() as folder, Runs(Path(folder)) as runs:
        for seed in range(asked.first, asked.first + asked.seeds):
            if asked.seconds is not None and clock.monotonic_s() - began_s > asked.seconds:
                break
            world, error = runs.run(seed)
            done += 1
            if done % PROGRESS_SEEDS == 0:
                print(f"{done} seeds", file=sys.stderr, flush=True)
            switches += world.scheduler.switches
            if error is not None:
                failed += 1
                report(world, error)
            elif asked.events:
                print(*world.events, sep="\n")
            if failed and not asked.keep_going:
                break
        print(
            "K2 said:", *(f"{count:7} {what}" for what, count in runs.said.most_common()), sep="\n"
        )
    took_s = clock.monotonic_s() - began_s
    print(
        f"{done} seeds from {asked.first}, {failed} failed; {took_s:.1f} s,"
        f" {done / took_s:.2f} seeds/s, {switches / max(1, done):.0f} steps a seed"
    )
    return 1 if failed else 0


def report(world, error):
    """What a person needs to see of a seed that failed."""
    print(*world.events, sep="\n")
    print(f"seed {world.seed} failed: {world.swarm}")
    print("".join(traceback.format_exception(error)[-12:]))
    print(f"again: python -m tests.sim --first {world.seed} --seeds 1", flush=True)


if __name__ == "__main__":
    sys.exit(main())
