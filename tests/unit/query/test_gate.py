"""What is refused at which level, by which class, and how early."""

import pytest

from k2 import limits
from k2.clock import ManualClock
from k2.degrade.level import Level
from k2.degrade.platform import Levels
from k2.errors import NotFound, Overloaded, Reason
from k2.market.offsets import TimeRange
from k2.query.admission import Admission
from k2.query.gate import (
    CANCELLED,
    REFUSAL_SECONDS,
    REFUSED,
    QueryGate,
    RecentMean,
    cancelled,
    is_heavy,
    is_point,
)
from k2.query.provenance import Estimate
from k2.query.request import Caller, RequestClass, TradesRequest
from k2.query.shapes.bars import Bars
from k2.query.shapes.latest import Latest

CALLER = Caller(client="a")
WHOLE = TradesRequest()
POINT = TradesRequest(limit=limits.POINT_ROWS_MAX)
LIGHT = Estimate(1, 0, limits.HEAVY_BYTES, limits.HEAVY_ROWS)
MINUTE_US = 60_000_000


def gate_at(level, **more):
    return QueryGate(lambda: Levels(own=level, **more), ManualClock(), Admission(), 3.0)


def refused(call, *args):
    """The reason of a refusal; None without one."""
    try:
        call(*args)
    except Overloaded as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("request_", "point"),
    [
        (WHOLE, False),
        (POINT, True),
        (TradesRequest(limit=limits.POINT_ROWS_MAX + 1), False),
        (TradesRequest(last_us=MINUTE_US), True),
        (TradesRequest(last_us=MINUTE_US + 1), False),
        (TradesRequest(range=TimeRange(5, 5 + MINUTE_US)), True),
        (TradesRequest(range=TimeRange(5, 6 + MINUTE_US)), False),
        (TradesRequest(range=TimeRange(5)), False),
        (TradesRequest(limit=1, shape=Bars("1s")), False),
        (TradesRequest(last_us=MINUTE_US - 1_000_000, shape=Bars("1s")), True),
        (TradesRequest(last_us=MINUTE_US, shape=Bars("1s")), False),
        (TradesRequest(range=TimeRange(5, 6), shape=Bars("1mo")), False),
        (TradesRequest(shape=Latest()), True),
    ],
)
def test_a_point_query_is_for_few_rows_or_a_short_range(request_, point):
    assert is_point(request_) is point


@pytest.mark.parametrize(
    ("estimate", "heavy"),
    [
        (LIGHT, False),
        (Estimate(1, 0, 0, limits.HEAVY_ROWS + 1), True),
        (Estimate(1, 0, limits.HEAVY_BYTES + 1, 0), True),
    ],
)
def test_a_heavy_query_reads_many_rows_or_bytes(estimate, heavy):
    assert is_heavy(WHOLE, estimate) is heavy
    assert not is_heavy(POINT, estimate), "a limit ends the reading early"


HEAVY = Estimate(1, 0, 0, limits.HEAVY_ROWS + 1)


@pytest.mark.parametrize(
    ("level", "whole", "heavy", "every"),
    [
        (Level.NORMAL, None, None, None),
        (Level.SOFT, None, None, None),
        (Level.GRACEFUL, None, Reason.SHED, None),
        (Level.AGGRESSIVE, Reason.SHED, Reason.SHED, None),
        (Level.CIRCUIT_BREAK, Reason.SHED, Reason.SHED, Reason.SHED),
    ],
)
def test_each_level_refuses_more(level, whole, heavy, every):
    gate = gate_at(level)
    assert refused(gate.at_entry, CALLER) is every
    assert refused(gate.of_request, WHOLE) is whole
    assert refused(gate.of_request, POINT) is None
    assert refused(gate.of_cost, WHOLE, HEAVY) is heavy
    assert refused(gate.of_cost, WHOLE, LIGHT) is None
    assert refused(gate.of_cost, POINT, HEAVY) is None


def test_a_refusal_names_the_level():
    with pytest.raises(Overloaded) as caught:
        gate_at(Level.CIRCUIT_BREAK).at_entry(CALLER)
    assert caught.value.metadata == {"level": "CIRCUIT_BREAK"}
    assert caught.value.retry_after_s == 3.0


def test_in_shadow_nothing_is_refused():
    gate = gate_at(Level.CIRCUIT_BREAK, shadow=True)
    assert refused(gate.at_entry, CALLER) is None
    assert refused(gate.of_request, WHOLE) is None
    assert not gate.weighs


def test_a_query_without_a_place_is_refused_at_entry():
    admission = Admission(dict.fromkeys(RequestClass, 1))
    gate = QueryGate(Levels, ManualClock(), admission)
    admission.enter(CALLER)
    assert refused(gate.at_entry, Caller(client="b")) is Reason.TOO_MANY_QUERIES
    assert refused(QueryGate(Levels, ManualClock()).at_entry, CALLER) is None


def test_a_deadline_that_plans_of_the_class_exceed_is_refused_until_they_are_forgotten():
    clock = ManualClock()
    gate = QueryGate(Levels, clock)
    for _ in range(50):
        gate.planned(CALLER, 2.0)
    assert refused(gate.at_entry, CALLER, 1.9) is Reason.DEADLINE_EXCEEDED
    assert refused(gate.at_entry, CALLER, 2.1) is None
    assert refused(gate.at_entry, CALLER) is None
    assert refused(gate.at_entry, Caller(request_class=RequestClass.BATCH), 0.1) is None
    clock.advance(10.0)
    assert refused(gate.at_entry, CALLER, 1.9) is None


def test_a_mean_fades_while_nothing_is_added():
    mean = RecentMean()
    assert mean.at(100.0) == 0.0
    mean.add(1.0, 100.0)
    assert mean.at(100.0) == pytest.approx(0.2)
    assert mean.at(105.0) == pytest.approx(0.1)


def value(metric):
    return metric._value.get()


def test_refusals_are_counted_and_timed_and_other_errors_are_not():
    clock = ManualClock()
    gate = QueryGate(lambda: Levels(own=Level.CIRCUIT_BREAK), clock)
    caller = Caller(request_class=RequestClass.BATCH)
    count = REFUSED.labels("batch", "SHED")
    before, sum_s = value(count), REFUSAL_SECONDS._sum.get()

    def enter_late():
        with gate.refusing(caller):
            clock.advance(0.25)
            gate.at_entry(caller)

    with pytest.raises(Overloaded):
        enter_late()
    with pytest.raises(NotFound), gate.refusing(caller):
        raise NotFound(Reason.UNKNOWN_SYMBOL, "x")
    with pytest.raises(Overloaded), gate.refusing(caller):
        raise Overloaded(Reason.TAIL_FULL, "x")
    with gate.refusing(caller):
        pass
    assert (value(count), gate.refused) == (before + 1, 1)
    assert REFUSAL_SECONDS._sum.get() == pytest.approx(sum_s + 0.25)


def test_a_query_whose_caller_has_gone_is_counted():
    before = value(CANCELLED)
    assert cancelled().reason is Reason.CANCELLED
    assert value(CANCELLED) == before + 1
