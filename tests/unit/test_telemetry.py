from collections.abc import Mapping
from dataclasses import dataclass

from k2.telemetry import Counter, CounterKind, Counters, Gauge


@dataclass(frozen=True)
class OneCounters:
    """Of a symbol."""

    gaps: Counter


@dataclass(frozen=True)
class SomeCounters:
    """Of a process."""

    frames: Counter
    rate: Gauge
    venue: str
    halted: str | None
    symbols: Mapping[str, OneCounters]


def test_counters_are_read_by_name_and_kind():
    counters = Counters()
    counters.add(lambda: SomeCounters(7, 1.5, "x", None, {"BTC": OneCounters(2)}))
    counters.add(lambda: OneCounters(3), "ops.")
    assert counters.values() == {
        "frames": 7,
        "rate": 1.5,
        "venue": "x",
        "symbols": {"BTC": {"gaps": 2}},
        "ops.gaps": 3,
    }
    assert {reading.name: reading.kind for reading in counters.read()} == {
        "frames": CounterKind.COUNTER,
        "rate": CounterKind.GAUGE,
        "venue": CounterKind.INFO,
        "symbols": CounterKind.INFO,
        "ops.gaps": CounterKind.COUNTER,
    }
