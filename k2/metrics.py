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

Events are observed while `SWITCH.on`; a process that serves no metrics turns it off, and then an
observation is one look at it. An observation of a histogram carries the exemplar that
`SWITCH.exemplar` returns, the id of the trace it belongs to.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any, get_type_hints

import numpy as np
import prometheus_client
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
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
        module: where it is declared, beside the code that moves it.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    module: str = field(default="", compare=False)


DECLARED: dict[str, Declaration] = {}
"""By name: of events once their module is imported, of fields once their class is looked at."""

EVENTS = CollectorRegistry()
"""The metrics of events of this process."""


prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nothing reads


@dataclass
class Switch:
    """How events of this process are observed.

    Attributes:
        on: whether they are.
        exemplar: returns the exemplar of what happens in this thread now; None without one.
    """

    on: bool = True
    exemplar: Callable[[], dict[str, str] | None] = lambda: None


SWITCH = Switch()


class Counter(prometheus_client.Counter):
    """A counter that counts while metrics are served."""

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Add to it."""
        if SWITCH.on:
            super().inc(amount, exemplar)


class Gauge(prometheus_client.Gauge):
    """A gauge that moves while metrics are served."""

    def inc(self, amount: float = 1) -> None:
        """Add to it."""
        if SWITCH.on:
            super().inc(amount)

    def dec(self, amount: float = 1) -> None:
        """Subtract from it."""
        if SWITCH.on:
            super().dec(amount)

    def set(self, value: float) -> None:
        """Set it."""
        if SWITCH.on:
            super().set(value)


class Histogram(prometheus_client.Histogram):
    """A histogram that observes while metrics are served."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Add one observation, with the exemplar of this thread unless one is given; {} is none."""
        if SWITCH.on:
            super().observe(amount, SWITCH.exemplar() if exemplar is None else exemplar)

    def observe_all(self, amounts: NDArray[np.float64]) -> None:
        """Add many observations at once, without exemplars; of a histogram without labels."""
        if not SWITCH.on or not len(amounts):
            return
        at = np.searchsorted(self._upper_bounds, amounts)
        for bucket, count in enumerate(np.bincount(at).tolist()):
            if count:
                self._buckets[bucket].inc(count)
        self._sum.inc(float(amounts.sum()))


def _declare(name: str, kind: str, help_text: str, labels: Sequence[str]) -> Declaration:
    assert name.startswith("k2_"), "names begin with k2_"
    assert (kind == "counter") == name.endswith("_total"), "counters end with _total, others do not"
    declaration = Declaration(name, kind, help_text, tuple(labels))
    # The text of an annotation is read more than once.
    same = DECLARED.setdefault(name, declaration)
    assert same == declaration, f"{name} is declared once"
    return same


def _declared_in(module: str, name: str) -> None:
    """Note where a metric is declared."""
    assert DECLARED[name].module in ("", module), f"{name} is declared once"
    DECLARED[name] = replace(DECLARED[name], module=module)


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


def _declare_event(name: str, kind: str, help_text: str, labels: Sequence[str]) -> None:
    _declare(name, kind, help_text, labels)
    _declared_in(sys._getframe(2).f_globals["__name__"], name)  # of the module that has the event


def counter(name: str, help_text: str, *labels: str) -> Counter:
    """Make a counter of events."""
    _declare_event(name, "counter", help_text, labels)
    return Counter(name, help_text, labels, registry=EVENTS)


def gauge(name: str, help_text: str, *labels: str) -> Gauge:
    """Make a gauge that is set by hand."""
    _declare_event(name, "gauge", help_text, labels)
    return Gauge(name, help_text, labels, registry=EVENTS)


def histogram(
    name: str, help_text: str, *labels: str, buckets: Sequence[float] = SECONDS
) -> Histogram:
    """Make a histogram, of seconds unless other buckets are given."""
    _declare_event(name, "histogram", help_text, labels)
    return Histogram(name, help_text, labels, registry=EVENTS, buckets=buckets)


class FieldCollector(Collector):
    """Collects the fields of a process's counters that are declared as metrics.

    Args:
        counters: of the process.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterable[Metric]:
        """Read every declared field once; a field that several groups have is summed."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for labels, group in self._counters.groups():
            for declaration, keys, value in _samples(group, labels):
                samples = found.setdefault(declaration.name, {})
                samples[keys] = samples.get(keys, 0.0) + value
        return [_family(DECLARED[name], samples) for name, samples in found.items()]


def _family(declaration: Declaration, samples: Mapping[tuple[str, ...], float]) -> Metric:
    made = CounterMetricFamily if declaration.kind == "counter" else GaugeMetricFamily
    family = made(declaration.name, declaration.help, labels=declaration.labels)
    for labels, value in samples.items():
        family.add_metric(labels, value)
    return family


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


def declare_fields(module: ModuleType) -> None:
    """Declare the metrics of all fields of a module's dataclasses; for the catalogue."""
    for one in vars(module).values():
        if isinstance(one, type) and is_dataclass(one) and one.__module__ == module.__name__:
            _exported_fields(one)


@cache
def _exported_fields(group: Hashable) -> Mapping[str, Declaration | Labelled]:
    hints = get_type_hints(group, include_extras=True)
    found: dict[str, Declaration | Labelled] = {}
    for one in fields(group) if is_dataclass(group) else ():
        for said in getattr(hints[one.name], "__metadata__", ()):
            if isinstance(said, Declaration | Labelled):
                found[one.name] = said
            if isinstance(said, Declaration):
                _declared_in(group.__module__, said.name)
    return found
