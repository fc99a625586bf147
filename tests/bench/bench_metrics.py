"""What metrics cost a process: a scrape of what a feed exports, and one observation of each kind.

A scrape is that of a feed with fourteen symbols, over HTTP on loopback, and its CPU time is that of
all threads of this process. Prometheus asks each process every 5 s (`k2 up --observe`).
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from dataclasses import fields

import numpy as np

from k2.degrade.level import Level
from k2.metrics import EVENTS, SWITCH, FieldCollector, counter, histogram
from k2.telemetry import Counters
from servers.exporter import Exporter
from servers.frame_metrics import measure_frame
from servers.process_signals import SignalReading
from servers.processes.feed import FeedCounters, SymbolCounters
from tests.bench.bench_codec import rate

SYMBOLS = 14
SCRAPES = 200
ROWS = 1000

_EVENTS = counter("k2_bench_events_total", "Events.", "code")
_SECONDS = histogram("k2_bench_seconds", "Durations.", "method")
_AGES = histogram("k2_bench_ages_seconds", "Ages.")


def measure() -> list[tuple[str, float, str]]:
    """Cost of a scrape and of observations, on and off."""
    took_s, size = scraped()
    ages = np.random.default_rng(1).exponential(0.05, ROWS)
    found = [
        ("scrape of a feed, CPU", took_s * 1e3, "ms"),
        ("scrape of a feed, size", size, "bytes"),
        ("share of a core at one scrape in 5 s", took_s / 5 * 100, "%"),
        ("count an event with a label", each(lambda: _EVENTS.labels("OK").inc()), "µs"),
        ("observe a duration", each(lambda: _SECONDS.labels("PlanQuery").observe(0.01)), "µs"),
        (f"observe {ROWS} rows at once", each(lambda: _AGES.observe_all(ages)), "µs"),
    ]
    SWITCH.on = False
    try:
        off = each(lambda: _SECONDS.labels("PlanQuery").observe(0.01))
    finally:
        SWITCH.on = True
    return [*found, ("observe a duration, metrics off", off, "µs")]


def each(work: Callable[[], object]) -> float:
    """Microseconds of one call."""
    return 1e6 / rate(1000, lambda: [work() for _ in range(1000)])


def scraped() -> tuple[float, int]:
    """CPU seconds and bytes of one scrape."""
    counters = Counters()
    counters.add(feed_counters)
    counters.add(lambda: measure_frame("feed", Level.NORMAL, SignalReading()))
    exporter = Exporter("127.0.0.1:0", (EVENTS, FieldCollector(counters)))
    size, begun_s = 0, time.process_time()
    for _ in range(SCRAPES):
        with urllib.request.urlopen(f"http://{exporter.address}/metrics") as answer:
            size = len(answer.read())
    took_s = (time.process_time() - begun_s) / SCRAPES
    exporter.close()
    return took_s, size


def feed_counters() -> FeedCounters:
    """The counters of a feed, each of them 7."""
    of_symbol = SymbolCounters(**dict.fromkeys((one.name for one in fields(SymbolCounters)), 7))
    values = dict.fromkeys((one.name for one in fields(FeedCounters)), 7)
    symbols = {f"S{number}USDT": of_symbol for number in range(SYMBOLS)}
    return FeedCounters(**values | {"symbols": symbols, "skipped": {}, "backfill": {}})


if __name__ == "__main__":
    for name, value, unit in measure():
        print(f"{name:42}{value:14,.2f} {unit}")
