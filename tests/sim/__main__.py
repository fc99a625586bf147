"""Runs many seeds: `python -m tests.sim --seeds 200`; prints the first that fails, and how.

A failing seed fails again, alike: `python -m tests.sim --first SEED --seeds 1 --events`.
"""

import argparse
import os
import sys
from collections import Counter
from contextlib import closing

from k2.clock import SystemClock
from tests.sim.many import outcomes

PROGRESS_SEEDS = 50


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seconds", type=float, default=None, help="stop after so long")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--events", action="store_true", help="print the last events of each seed")
    parser.add_argument("--keep-going", action="store_true", help="go on after a seed that fails")
    asked = parser.parse_args(argv)
    clock = SystemClock()
    began_s, failed, done, switches, said = clock.monotonic_s(), 0, 0, 0, Counter()
    seeds = range(asked.first, asked.first + asked.seeds)
    with closing(outcomes(seeds, min(asked.workers, len(seeds)))) as lived:
        for outcome in lived:
            done += 1
            switches += outcome.switches
            said += outcome.said
            if outcome.failure or asked.events:
                print(*outcome.events, sep="\n")
            if outcome.failure:
                failed += 1
                print(outcome.failure)
                print(f"again: python -m tests.sim --first {outcome.seed} --seeds 1", flush=True)
            if done % PROGRESS_SEEDS == 0:
                print(f"{done} seeds", file=sys.stderr, flush=True)
            late = asked.seconds is not None and clock.monotonic_s() - began_s > asked.seconds
            if late or (failed and not asked.keep_going):
                break
    took_s = clock.monotonic_s() - began_s
    print("K2 said:", *(f"{count:7} {what}" for what, count in said.most_common()), sep="\n")
    print(
        f"{done} seeds from {asked.first}, {failed} failed; {took_s:.1f} s,"
        f" {done / took_s:.2f} seeds/s, {switches / max(1, done):.0f} steps a seed"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
