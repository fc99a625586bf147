"""What degradation, metrics and traces cost: CPU of three stacks that run side by side.

    python -m tests.bench.cost_of_telemetry --pairs 24 --window 10 --rate 500

The first neither serves metrics nor obeys levels, the second is K2 as it comes, the third also
sends traces of 1 % to a collector. In each window the CPU of K2's own processes and the trades
they took are read of all three, and the same query is asked of each in turn, so that whatever else
the machine does concerns all alike. Printed is the median of the windows' ratios to the first, and
an interval of 95 % for it. A cost is missed only when the whole interval lies above its bound.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

import k2client
from tests.chaos.stack import CLOCK, Stack
from tests.support.otlp import collector

OFF = {"K2_TELEMETRY__METRICS": "false", "K2_DEGRADE__SHADOW": "true"}
PROCESSES = ("feed", "lake", "query", "control")
BOUNDS = {"default": 1.02, "traced": 1.03}
QUERY_BOUND = 1.05
QUERIES = 40
WARM_S = 20.0


class Window(NamedTuple):
    """What one stack used in a window."""

    cpu_s_per_million: float
    query_s: float


class Measured:
    """A stack and what it has used so far."""

    def __init__(self, stack: Stack) -> None:
        self._processes = [psutil.Process(stack.pid(name)) for name in PROCESSES]
        self._k2 = k2client.connect(str(stack.addresses["control"]))
        self._cpu_s, self._trades = self._read()

    def _read(self) -> tuple[float, int]:
        times = [process.cpu_times() for process in self._processes]
        trades = sum(feed.trades_acknowledged for feed in self._k2.feeds())
        return sum(used.user + used.system for used in times), trades

    def ask(self) -> float:
        """Ask for the newest thousand trades of a symbol; seconds it took."""
        began_s = CLOCK.monotonic_s()
        self._k2.trades("BTCUSDT", limit=1000, order="desc").to_arrow()
        return CLOCK.monotonic_s() - began_s

    def window(self, asked: list[float]) -> Window:
        """What was used since the window before."""
        cpu_s, trades = self._read()
        used = Window(
            (cpu_s - self._cpu_s) / max(trades - self._trades, 1) * 1e6, statistics.median(asked)
        )
        self._cpu_s, self._trades = cpu_s, trades
        return used


def windows(stacks: dict[str, Measured], pairs: int, window_s: float) -> dict[str, list[Window]]:
    """Measure so many windows of all stacks at once."""
    found: dict[str, list[Window]] = {name: [] for name in stacks}
    for number in range(pairs + 1):
        asked: dict[str, list[float]] = {name: [] for name in stacks}
        end_s = CLOCK.monotonic_s() + window_s
        for _ in range(QUERIES):
            for name, stack in stacks.items():
                asked[name].append(stack.ask())
            CLOCK.sleep(max(0.0, window_s / QUERIES - 0.1))
        CLOCK.sleep(max(0.0, end_s - CLOCK.monotonic_s()))
        used = {name: stack.window(asked[name]) for name, stack in stacks.items()}
        if number:  # the first one warms up
            for name, window in used.items():
                found[name].append(window)
    return found


def interval(ratios: list[float]) -> dict[str, float]:
    """Median of ratios, and the interval of 95 % that resampling gives for it."""
    draws = np.random.default_rng(1).choice(ratios, (4000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return {
        "median": round(statistics.median(ratios), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def report(found: dict[str, list[Window]]) -> dict[str, object]:
    """The ratios of each stack to the first, and what exceeds its bound."""
    off = found["off"]
    shown: dict[str, object] = {
        "off": {
            "cpu_s_per_million_trades": round(
                statistics.median(w.cpu_s_per_million for w in off), 1
            ),
            "query_p50_ms": round(statistics.median(w.query_s for w in off) * 1e3, 2),
        }
    }
    missed = []
    for name, bound in BOUNDS.items():
        pairs = list(zip(found[name], off, strict=True))
        cpu = interval([one.cpu_s_per_million / base.cpu_s_per_million for one, base in pairs])
        query = interval([one.query_s / base.query_s for one, base in pairs])
        shown[name] = {"cpu": cpu, "query_p50": query, "windows": len(pairs)}
        missed += [f"{name}: CPU"] * (cpu["low"] > bound)
        missed += [f"{name}: query p50"] * (query["low"] > QUERY_BOUND)
    return {**shown, "missed": missed}


def main() -> int:
    """Measure and print; 0 when no cost is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--window", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=500.0)
    chosen = parser.parse_args()
    with ExitStack() as ending:
        sink = ending.enter_context(collector())
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        environments = {
            "off": OFF,
            "default": {},
            "traced": {"K2_TELEMETRY__OTLP_ENDPOINT": f"http://{sink.address}"},
        }
        options = ("--venue", "synthetic", "--rate", str(chosen.rate))
        stacks = {
            name: Measured(
                ending.enter_context(Stack(folder / name, *options, environment=environment))
            )
            for name, environment in environments.items()
        }
        CLOCK.sleep(WARM_S)
        shown = report(windows(stacks, chosen.pairs, chosen.window))
    print(json.dumps(shown, indent=2))
    return 1 if shown["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
