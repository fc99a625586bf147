"""What the query server's heart says; the whole process is in tests/integration/servers."""

from types import SimpleNamespace

import pytest

from k2.degrade.signals import Signal
from k2.market.instrument import Instrument, Priorities
from k2.query.admission import Admission
from k2.query.request import Caller, RequestClass, TradesRequest
from servers.processes.query import QueryGauges, Sides, pending_bytes
from servers.processes.query_tiers import TierPauses
from tests.support.eventually import eventually
from tests.support.query_stack import QueryStack


@pytest.fixture
def stack(tmp_path):
    with QueryStack(tmp_path) as stack:
        yield stack


def sides(stack):
    return Sides(
        coverage=stack.coverage,
        lake=stack.lake,
        tail=stack.tail,
        view=stack.view,
        executor=stack.executor,
        ends=lambda: (),
        assert_fit=lambda: None,
        tiers=TierPauses(stack.tail, stack.placement.known, Priorities(), 1),
    )


def gauges_of(stack, admission):
    planner = SimpleNamespace(gate=SimpleNamespace(refused=7))
    parts = SimpleNamespace(admission=admission, planner=planner)
    rows = SimpleNamespace(waiting=1, oldest_work_s=3.0)
    server = SimpleNamespace(queued=5, oldest_work_s=2.0)
    return QueryGauges(2**21, sides(stack), parts, rows, server)


def seen(stack):
    """Wait until the tail has read what was sent."""
    assert stack.tail.wait_until(stack.view.plan(TradesRequest()).end, 10)


def test_only_what_the_lake_does_not_cover_presses(stack):
    stack.send("BTCUSDT", range(1000))
    seen(stack)
    before = pending_bytes(sides(stack))
    stack.commit()
    stack.view.maintain()
    assert before > 0
    assert pending_bytes(sides(stack)) == 0
    assert stack.tail.stats().rows == 1000  # recent rows stay, and do not press


def test_what_a_level_pauses_does_not_press(stack):
    stack.send("BTCUSDT", range(100))
    seen(stack)
    partition = stack.placement.refresh()[Instrument("BINANCE", "BTCUSDT")]
    stack.tail.defer([partition])
    eventually(lambda: stack.tail.deferred() == {partition})
    gauges = gauges_of(stack, Admission())
    assert gauges.signals()[Signal.TAIL_BYTES] == 0
    assert gauges.counters().tail_pending_bytes > 0


def test_the_heartbeat_says_what_tail_and_queries_do(stack):
    stack.send("BTCUSDT", range(10))
    seen(stack)
    admission = Admission()
    admission.enter(Caller())
    admission.enter(Caller(request_class=RequestClass.BATCH))
    gauges = gauges_of(stack, admission)
    signals, counters = gauges.signals(), gauges.counters()
    assert signals[Signal.QUERIES_RUNNING] == 1  # the other waits for its reader
    assert (counters.queries_running, counters.queries_waiting) == (2, 1)
    assert (signals[Signal.QUERIES_QUEUED], signals[Signal.OLDEST_WORK_S]) == (5.0, 3.0)
    assert counters.queries_running_by_class == {"critical": 0, "interactive": 1, "batch": 1}
    assert counters.queries_places == {"critical": 8, "interactive": 16, "batch": 6}
    assert counters.queries_answered_by_class == {"critical": 0, "interactive": 0, "batch": 0}
    assert counters.queries_refused == 7
    assert counters.tail_paused == {"critical": 0, "high": 0, "normal": 0, "low": 0}
    assert 0 < signals[Signal.TAIL_BYTES] < 2**21
    assert counters.queries_answered == 0
    assert counters.tail_rows == 10
    assert counters.snapshot_id == "0"
    assert counters.tail_failure == ""
