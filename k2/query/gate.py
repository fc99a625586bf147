"""Refuses queries early and cheaply: by the level, by class and caller, and by the deadline.

What a level refuses is in `degrade.policy`; here is what its words mean. A query is heavy by its
estimated rows or bytes. It is a point query when its limit or its range is small, or when it is for
the newest trade of each instrument, and then it is not heavy, however much it might read. A limit
of a shape's rows does not bound what is read, so it makes no point query.

Whether queries are answered at all, whether there is a place and whether the deadline leaves the
time that such plans take, is known before a request is read; whether it is a point query before it
is planned; whether it is heavy from the lake's file list, before the tape is asked for its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from k2 import limits, metrics
from k2.clock import Clock
from k2.degrade.platform import Levels
from k2.degrade.policy import QueryScope
from k2.errors import Overloaded, Reason
from k2.query.admission import Admission
from k2.query.provenance import Estimate
from k2.query.request import Caller, RequestClass, TradesRequest
from k2.query.shapes.shape import Reading

_REFUSALS: Final = frozenset({Reason.SHED, Reason.TOO_MANY_QUERIES, Reason.DEADLINE_EXCEEDED})
_HALF_S: Final = 5.0  # a mean that is not renewed halves in so long
_WEIGHT: Final = 0.2  # of the newest plan in the mean
_SOON = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 10.0)

REFUSED = metrics.counter(
    "k2_query_refused_total", "Queries refused under load.", "class", "reason"
)
REFUSAL_SECONDS = metrics.histogram(
    "k2_query_refusal_seconds",
    "Time from the entry of a refused query's handler to its status.",
    buckets=_SOON,
)
CANCELLED = metrics.counter(
    "k2_query_cancelled_total", "Queries whose caller went away before the end."
)


def is_point(request: TradesRequest) -> bool:
    """Tell whether a request reads few rows or a short range."""
    rows, stretch_us = request.rows_read_max, request.shape.stretch_us
    if request.shape.reading is Reading.NEWEST or (
        rows is not None and rows <= limits.POINT_ROWS_MAX
    ):
        return True
    length_us, start_us, end_us = request.last_us, request.range.start_us, request.range.end_us
    if start_us is not None and end_us is not None:
        length_us = end_us - start_us
    return (
        length_us is not None
        and stretch_us is not None
        and length_us + stretch_us <= limits.POINT_RANGE_S * 1e6
    )


def is_heavy(request: TradesRequest, estimate: Estimate) -> bool:
    """Tell whether a request reads so much that it is refused first."""
    much = estimate.rows > limits.HEAVY_ROWS or estimate.bytes > limits.HEAVY_BYTES
    return much and not is_point(request)


class QueryGate:
    """Decides which queries a process answers. Thread-safe.

    Args:
        levels: returns those of the process.
        clock: times refusals and plans.
        admission: of the queries that run here; None where they run elsewhere.
        dwell_s: how soon a level falls; when to ask again for what it refuses.

    Attributes:
        refused: queries refused since the start.
    """

    def __init__(
        self,
        levels: Callable[[], Levels],
        clock: Clock,
        admission: Admission | None = None,
        dwell_s: float = limits.QUERY_DEADLINE_S,
    ) -> None:
        self._levels = levels
        self._clock = clock
        self._admission = admission
        self._dwell_s = dwell_s
        self._plans = {name: RecentMean() for name in RequestClass}
        self.refused = 0

    @property
    def weighs(self) -> bool:
        """Whether heavy queries are refused now."""
        return self._scope() >= QueryScope.LIGHT

    @contextmanager
    def refusing(self, caller: Caller) -> Iterator[None]:
        """Count and time a refusal of the handler inside."""
        began_s = self._clock.monotonic_s()
        try:
            yield
        except Overloaded as error:
            if error.reason in _REFUSALS:
                self.refused += 1
                REFUSED.labels(caller.request_class.value, error.reason.value).inc()
                REFUSAL_SECONDS.observe(self._clock.monotonic_s() - began_s)
            raise

    def at_entry(self, caller: Caller, remaining_s: float = math.inf) -> None:
        """Refuse what needs no look at the request.

        Raises:
            Overloaded: SHED when the level refuses every query, TOO_MANY_QUERIES when there is no
                place, DEADLINE_EXCEEDED when plans of this class take longer than there is time.
        """
        if self._scope() is QueryScope.NONE:
            raise self._shed("queries are refused")
        if self._admission is not None:
            self._admission.check(caller)
        mean_s = self._plans[caller.request_class].at(self._clock.monotonic_s())
        if remaining_s < mean_s:
            raise Overloaded(
                Reason.DEADLINE_EXCEEDED,
                f"a {caller.request_class} query takes {mean_s:.3f} s to plan at present, longer"
                " than its deadline allows",
            )

    def of_request(self, request: TradesRequest) -> None:
        """Refuse what is no point query, where the level answers only those.

        Raises:
            Overloaded: SHED.
        """
        if self._scope() >= QueryScope.POINT and not is_point(request):
            raise self._shed(
                f"only queries of at most {limits.POINT_ROWS_MAX} rows (`limit`) or"
                f" {limits.POINT_RANGE_S:g} s are answered"
            )

    def of_cost(self, request: TradesRequest, estimate: Estimate) -> None:
        """Refuse what is heavy, where the level does not answer that.

        Raises:
            Overloaded: SHED.
        """
        if self.weighs and is_heavy(request, estimate):
            raise self._shed(
                f"a query of about {estimate.rows} rows in {estimate.bytes} bytes of files is"
                " refused: ask for less, or set a `limit`"
            )

    def planned(self, caller: Caller, took_s: float) -> None:
        """Learn how long a plan took."""
        self._plans[caller.request_class].add(took_s, self._clock.monotonic_s())

    def _scope(self) -> QueryScope:
        return self._levels().policy.queries

    def _shed(self, what: str) -> Overloaded:
        level = self._levels().effective.name
        return Overloaded(
            Reason.SHED,
            f"the platform sheds load at level {level}: {what}",
            metadata={"level": level},
            retry_after_s=self._dwell_s,
        )


def cancelled() -> Overloaded:
    """Count a query whose caller has gone, and make the error that ends it."""
    CANCELLED.inc()
    return Overloaded(Reason.CANCELLED, "the caller has gone")


class RecentMean:
    """A running mean that fades while nothing is added, so that it cannot refuse for good."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._at_s = 0.0

    def add(self, value: float, now_s: float) -> None:
        """Count one value."""
        before = self.at(now_s)
        self._mean, self._at_s = before + _WEIGHT * (value - before), now_s

    def at(self, now_s: float) -> float:
        """Return the mean at a moment."""
        return float(self._mean * 0.5 ** ((now_s - self._at_s) / _HALF_S))
