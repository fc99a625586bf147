"""What the query server's heart says; the whole process is in tests/integration/servers."""

import pytest

from k2.degrade.signals import Scale, Signal
from k2.query.admission import Admission
from k2.query.request import TradesRequest
from k2.settings import load
from servers.processes.query import Sides, pending_bytes, sampler
from tests.support.query_stack import QueryStack


@pytest.fixture
def stack(tmp_path):
    with QueryStack(tmp_path) as stack:
        yield stack


def sides(stack):
    return Sides(
        board=None,
        heartbeats=None,
        coverage=stack.coverage,
        lake=stack.lake,
        tail=stack.tail,
        view=stack.view,
        executor=stack.executor,
        ends=lambda: (),
        assert_fit=lambda: None,
    )


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


def test_the_heart_tells_tail_and_queries(stack, tmp_path):
    stack.send("BTCUSDT", range(10))
    seen(stack)
    admission = Admission()
    admission.enter()
    settings = load(data_dir=tmp_path, query={"tail_bytes_max": 2**21})
    admission.enter()
    sample = sampler(settings, sides(stack), admission, lambda: 1)()
    assert sample.signals[Signal.QUERIES_RUNNING] == 1  # the other waits for its reader
    assert (sample.counters["queries_running"], sample.counters["queries_waiting"]) == (2, 1)
    assert 0 < sample.signals[Signal.TAIL_BYTES] < 2**21
    assert sample.scales[Signal.TAIL_BYTES] == Scale(2**19, 2**21)
    assert sample.counters["queries_answered"] == 0
    assert sample.counters["tail_rows"] == 10
    assert sample.counters["snapshot_id"] == "0"
    assert sample.counters["tail_failure"] == ""
