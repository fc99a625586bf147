"""Answers over Flight are counted and timed by what became of them."""

import pyarrow as pa
import pytest

from k2.clock import ManualClock
from k2.errors import Overloaded, Reason
from k2.market.files import FileIndex
from k2.market.offsets import ChunkRange, TimeRange
from k2.query.plan import Plan
from servers.flight.flight_metrics import AnswerTimer, count_refused, side_of
from tests.support.scraped import Moved


def plan(chunks=(), skips_lake=False):
    return Plan(TimeRange(), {}, FileIndex(()), {}, chunks, skips_lake, ())


def test_the_side_is_what_the_plan_reads():
    chunk = ChunkRange.__new__(ChunkRange)
    assert side_of(plan()) == "lake"
    assert side_of(plan(skips_lake=True)) == "tail"
    assert side_of(plan((chunk,))) == "tail"


def test_a_whole_answer_is_timed_and_its_rows_counted():
    clock = ManualClock()
    timer = AnswerTimer(clock, "trades", "both", clock.monotonic_s())
    rows, batches = Moved("k2_flight_rows_total"), Moved("k2_flight_batches_total")
    size, code = Moved("k2_flight_bytes_total"), Moved("k2_flight_streams_total", code="OK")
    first = Moved("k2_query_first_batch_seconds_sum")
    whole = Moved("k2_query_seconds_sum", shape="trades", side="both")
    batch = pa.record_batch({"n": pa.array([1, 2, 3])})
    clock.advance(1)
    timer.sent(batch)
    clock.advance(1)
    timer.sent(batch)
    timer.completed()
    timer.ended()
    assert (rows.by(), batches.by(), size.by(), code.by()) == (6, 2, 2 * batch.nbytes, 1)
    assert first.by() == pytest.approx(1)
    assert whole.by() == pytest.approx(2)


def test_an_answer_that_ends_early_has_the_code_of_its_error():
    cancelled = Moved("k2_flight_streams_total", code="CANCELLED")
    failed = Moved("k2_flight_streams_total", code="RESOURCE_EXHAUSTED")
    whole = Moved("k2_query_seconds_count", shape="trades", side="lake")
    AnswerTimer(ManualClock(), "trades", "lake", 0.0).ended()
    timer = AnswerTimer(ManualClock(), "trades", "lake", 0.0)
    timer.failed(Overloaded(Reason.STREAM_IDLE, "idle"))
    timer.ended()
    count_refused(Overloaded(Reason.TOO_MANY_QUERIES, "many"))
    assert (cancelled.by(), failed.by(), whole.by()) == (1, 2, 0)
