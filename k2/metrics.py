"""Declares the metrics of K2, each once, beside the code that moves it.

A metric that exists as a field of a dataclass of counters (`k2/telemetry.py`) is declared in the
field's type:

    frames: Annotated[Counter, exported("k2_feed_frames_total", "WebSocket frames received.")]

A scrape reads such fields as the heartbeat does. A field that is a mapping has a label for its
keys; a mapping of dataclasses gives its label to the fields declared in them. Anything that is not
a state but an event (a duration, a call by outcome) is a metric of prometheus-client, made here:

    COMMIT_SECONDS = histogram("k2_lake_commit_seconds", "Time of a commit.")

Names begin with `k2_`, carry the base unit, and end with `_total` where they only grow. Labels are
bounded: symbols, partitions, reasons; never ids or texts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

import prometheus_client
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from k2.telemetry import Counters

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class Declaration:
    """A metric as the catalogue shows it.

    Attributes:
        name: with the prefix, and `_total` for a counter.
        kind: counter, gauge or histogram.
        help: in one sentence.
        labels: their names.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


DECLARED: dict[str, Declaration] = {}
"""By name; complete once the modules of all processes are imported."""

EVENTS = CollectorRegistry()
"""The metrics of events of this process."""


def _declare(name: str, kind: str, help_text: str, labels: Sequence[str]) -> Declaration:
    assert name.startswith("k2_"), "names begin with k2_"
    assert name not in DECLARED, f"{name} is declared once"
    assert (kind == "counter") == name.endswith("_total"), "counters end with _total, others do not"
    declaration = Declaration(name, kind, help_text, tuple(labels))
    DECLARED[name] = declaration
    return declaration


def exported(name: str, help_text: str, *labels: str) -> Declaration:
    """Declare the metric of a field; it is a counter when its name ends with `_total`.

    Args:
        name: of the metric.
        help_text: in one sentence.
        labels: for the keys of the mapping that the field is, outermost first; those of the
            mappings around the field come before them.
    """
    return _declare(name, "counter" if name.endswith("_total") else "gauge", help_text, labels)


@dataclass(frozen=True)
class Labelled:
    """The type of a field that is a mapping of dataclasses: the label for its keys."""

    label: str


def counter(name: str, help_text: str, *labels: str) -> prometheus_client.Counter:
    """Make a counter of events."""
    _declare(name, "counter", help_text, labels)
    return prometheus_client.Counter(name, help_text, labels, registry=EVENTS)


def gauge(name: str, help_text: str, *labels: str) -> prometheus_client.Gauge:
    """Make a gauge that is set by hand."""
    _declare(name, "gauge", help_text, labels)
    return prometheus_client.Gauge(name, help_text, labels, registry=EVENTS)


def histogram(
    name: str, help_text: str, *labels: str, buckets: Sequence[float] = SECONDS
) -> Histogram:
    """Make a histogram, of seconds unless other buckets are given."""
    _declare(name, "histogram", help_text, labels)
    return Histogram(name, help_text, labels, registry=EVENTS, buckets=buckets)


class FieldCollector(Collector):
    """Collects the fields of a process's counters that are declared as metrics.

    Args:
        counters: of the process.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterable[Metric]:
        """Read every declared field once."""
        families: dict[str, Metric] = {}
        for group in self._counters.groups():
            for declaration, labels, value in _samples(group, ()):
                family = families.get(declaration.name)
                if family is None:
                    family = families[declaration.name] = _family(declaration)
                family.add_metric(labels, value)  # type: ignore[attr-defined]  # of both families
        return families.values()


def _family(declaration: Declaration) -> Metric:
    made = CounterMetricFamily if declaration.kind == "counter" else GaugeMetricFamily
    return made(declaration.name, declaration.help, labels=declaration.labels)


def _samples(
    group: Any,  # noqa: ANN401 a dataclass of counters
    labels: tuple[str, ...],
) -> Iterator[tuple[Declaration, tuple[str, ...], float]]:
    for name, what in _exported_fields(type(group)).items():  # type: ignore[arg-type]  # a class
        value = getattr(group, name)
        if value is None:
            continue
        if isinstance(what, Labelled):
            for key, within in value.items():
                yield from _samples(within, (*labels, str(key)))
        else:
            yield from ((what, (*labels, *keys), one) for keys, one in _leaves(value))


def _leaves(value: object) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(value, Mapping):
        for key, within in value.items():
            yield from (((str(key), *keys), leaf) for keys, leaf in _leaves(within))
    elif isinstance(value, int | float):
        yield (), float(value)


@cache
def _exported_fields(group: Hashable) -> Mapping[str, Declaration | Labelled]:
    hints = get_type_hints(group, include_extras=True)
    found: dict[str, Declaration | Labelled] = {}
    for field in fields(group) if is_dataclass(group) else ():
        for said in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(said, Declaration | Labelled):
                found[field.name] = said
    return found
