"""Metrics are declared at the fields and events that they show, once."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as open_metrics

from k2 import metrics
from k2.metrics import DECLARED, EVENTS, SWITCH, Labelled, exported
from k2.telemetry import Counter, Counters, Gauge
from tests.support.scraped import scraped_of


@dataclass(frozen=True)
class SymbolDone:
    """Of a symbol."""

    gaps: Annotated[Counter, exported("k2_unit_gaps_total", "Gaps.", "symbol")]
    by_tier: Annotated[
        Mapping[str, Gauge], exported("k2_unit_held_records", "Held.", "symbol", "tier")
    ]


@dataclass(frozen=True)
class Done:
    """Of a process."""

    frames: Annotated[Counter, exported("k2_unit_frames_total", "Frames.")]
    connected: Annotated[bool, exported("k2_unit_connected", "1 while connected.")]
    rate: Annotated[Gauge | None, exported("k2_unit_rate", "A rate.")]
    symbols: Annotated[Mapping[str, SymbolDone], Labelled("symbol")]
    unexported: Counter = 5


@dataclass(frozen=True)
class TableDone:
    """Of a table."""

    rows: Annotated[Counter, exported("k2_unit_rows_total", "Rows.", "table")]


def test_fields_are_metrics_with_the_labels_of_the_mappings_they_are_in():
    counters = Counters()
    counters.add(lambda: Done(3, True, None, {"BTC": SymbolDone(2, {"low": 7.0})}))
    assert scraped_of(counters) == {
        ("k2_unit_frames_total",): 3,
        ("k2_unit_connected",): 1,
        ("k2_unit_gaps_total", "BTC"): 2,
        ("k2_unit_held_records", "BTC", "low"): 7,
    }
    assert counters.values()["symbols"]["BTC"]["gaps"] == 2, "the heartbeat's keys stay"


def test_a_field_of_several_groups_has_their_labels_or_is_summed():
    counters = Counters()
    for table, rows in (("gaps", 1), ("dead_letters", 2), ("gaps", 4)):
        counters.add(lambda rows=rows: TableDone(rows), f"{table}.", (table,))
    assert scraped_of(counters) == {
        ("k2_unit_rows_total", "gaps"): 5,
        ("k2_unit_rows_total", "dead_letters"): 2,
    }


def test_a_declaration_knows_its_kind_labels_and_module():
    counters = Counters()
    counters.add(lambda: Done(1, False, 2.5, {}))
    scraped_of(counters)
    declared = DECLARED["k2_unit_frames_total"]
    assert (declared.kind, declared.labels, declared.module) == ("counter", (), __name__)
    assert DECLARED["k2_unit_rate"].kind == "gauge"


def test_a_name_is_declared_once_and_says_what_it_is():
    metrics.counter("k2_unit_twice_total", "Of one thing.")
    with pytest.raises(AssertionError, match="declared once"):
        metrics.exported("k2_unit_twice_total", "Of another.")
    with pytest.raises(AssertionError, match="_total"):
        metrics.gauge("k2_unit_wrong_total", "A gauge.")
    with pytest.raises(AssertionError, match="k2_"):
        metrics.counter("other_total", "Of others.")


def test_events_are_observed_while_metrics_are_served(monkeypatch):
    counted = metrics.counter("k2_unit_events_total", "Events.", "kind")
    level = metrics.gauge("k2_unit_set", "Set by hand.")
    seconds = metrics.histogram("k2_unit_seconds", "Durations.")
    monkeypatch.setattr(SWITCH, "on", False)
    counted.labels("a").inc()
    level.set(5)
    level.inc()
    level.dec(2)
    seconds.observe(1)
    seconds.observe_all(np.array([1.0]))
    assert 'k2_unit_events_total{kind="a"} 0.0' in generate_latest(EVENTS).decode()
    monkeypatch.setattr(SWITCH, "on", True)
    monkeypatch.setattr(SWITCH, "exemplar", lambda: {"trace_id": "4bf9"})
    counted.labels("a").inc(2)
    level.set(5)
    seconds.observe(0.3)
    text = open_metrics(EVENTS).decode()
    assert 'k2_unit_events_total{kind="a"} 2.0' in text
    assert "k2_unit_set 5.0" in text
    level.inc()
    level.dec(3)
    assert "k2_unit_set 3.0" in generate_latest(EVENTS).decode()
    assert 'k2_unit_seconds_bucket{le="0.5"} 1.0 # {trace_id="4bf9"} 0.3' in text
    assert "_created" not in text


def test_many_observations_are_as_one_after_the_other():
    one = metrics.histogram("k2_unit_one_seconds", "One.", buckets=(0.1, 0.2, 0.5))
    many = metrics.histogram("k2_unit_many_seconds", "Many.", buckets=(0.1, 0.2, 0.5))
    amounts = [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 7.0]
    for amount in amounts:
        one.observe(amount)
    many.observe_all(np.array(amounts))
    many.observe_all(np.array([]))

    def samples(events):
        return [
            (sample.name.removeprefix(family.name), sample.labels, sample.value)
            for family in events.collect()
            for sample in family.samples
        ]

    assert samples(one) == samples(many)


def test_a_field_of_another_module_may_not_take_a_name(monkeypatch):
    counters = Counters()
    counters.add(lambda: TableDone(1), labels=("gaps",))
    scraped_of(counters)
    with pytest.raises(AssertionError, match="declared once"):
        metrics._declared_in("elsewhere", "k2_unit_rows_total")


def test_all_fields_of_a_module_are_declared():
    metrics.declare_fields(sys.modules[__name__])
    assert DECLARED["k2_unit_held_records"].labels == ("symbol", "tier")
