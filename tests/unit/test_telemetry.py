import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from k2 import telemetry
from k2.telemetry import Counter, CounterKind, Counters, Gauge


@pytest.fixture(autouse=True)
def _restore():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_log_line_is_one_json_object(capsys):
    telemetry.set_up("feed", "info")
    logging.getLogger("k2.feed").info("took %d", 3, extra={"symbol": "BTCUSDT"})
    logging.getLogger("k2.feed").debug("not this one")
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("k2.feed").exception("failed")
    took, failed = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (took["process"], took["level"], took["message"]) == ("feed", "info", "took 3")
    assert took["symbol"] == "BTCUSDT"
    assert "ValueError: why" in failed["exception"]


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
