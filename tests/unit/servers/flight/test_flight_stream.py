"""One stream: its last word, its early end, and what it frees however it ends."""

import threading

import pyarrow as pa
import pyarrow.flight as fl  # noqa: TID251 the wire is what is tested
import pytest
from google.rpc import status_pb2

from k2 import limits
from k2.clock import ManualClock
from k2.errors import Data, Internal, Invalid, NotFound, Overloaded, Reason, Unavailable
from k2.query.gate import CANCELLED
from k2.v1 import market_pb2
from servers.flight.flight_metrics import AnswerTimer
from servers.flight.flight_stream import RowStream, Stream, Streams, flight_error
from servers.services.wire_values import time_to

SCHEMA = pa.schema([("trade_id", pa.int64())])


class MemoryAnswer:
    """An answer of some batches that then ends, fails or blocks until it is closed."""

    schema = SCHEMA
    last_key = (1, "X", "Y", 7)
    rows_lake, rows_tail = 3, 2
    ends_at_s = float("inf")

    def __init__(self, batches=2, failure=None, blocks=False):
        self.left = batches
        self.failure = failure
        self.blocks = blocks
        self.closed = threading.Event()
        self.entered = threading.Event()

    def __next__(self):
        self.entered.set()
        if self.left:
            self.left -= 1
            return pa.record_batch({"trade_id": pa.array([self.left])}, schema=SCHEMA)
        if self.failure:
            raise self.failure
        if self.blocks:
            assert self.closed.wait(10)
        raise StopIteration

    def close(self):
        self.closed.set()


class Context:
    """A call, and whether its caller has gone."""

    gone = False

    def is_cancelled(self):
        return self.gone


@pytest.fixture
def streams():
    streams = Streams(ManualClock())
    streams.start()
    yield streams
    streams.drain(0)


def rows_of(answer, streams, context=None, left=None, long=False):
    leave = left.append if left is not None else (lambda _: None)
    timer = AnswerTimer(streams._clock, "trades", "tail", 0.0)
    stream = Stream(answer, context or Context(), lambda: leave(1), timer, long)
    clock = streams._clock
    provenance = market_pb2.Provenance(planned_time=time_to(clock.now_us() - 1500))
    return RowStream(stream, provenance, clock, streams)


def test_the_last_batch_is_empty_and_says_where_the_rows_came_from(streams):
    left, answer = [], MemoryAnswer()
    *batches, (empty, metadata) = list(rows_of(answer, streams, left=left))
    last = market_pb2.Provenance.FromString(metadata.to_pybytes())
    assert [batch.num_rows for batch, _ in batches] == [1, 1]
    for _, said in batches:
        key = market_pb2.Provenance.FromString(said.to_pybytes()).last_row
        assert (key.exchange, key.symbol, key.trade_id) == ("X", "Y", 7)
    assert not last.HasField("last_row")
    assert empty.num_rows == 0
    assert (last.rows_lake, last.rows_tail, last.freshness_ms) == (3, 2, 1.5)
    assert left == [1]
    assert answer.closed.is_set()


def test_a_failure_is_a_flight_error_and_frees_all(streams):
    left = []
    rows = rows_of(MemoryAnswer(1, Data(Reason.LAKE_CORRUPT, "no")), streams, left=left)
    next(rows)
    with pytest.raises(fl.FlightServerError, match="no"):
        next(rows)
    assert list(rows) == []
    assert left == [1]


def test_rows_never_read_are_freed_with_the_stream(streams):
    left, answer = [], MemoryAnswer()
    before = CANCELLED._value.get()
    rows = rows_of(answer, streams, left=left)
    del rows
    assert left == [1]
    assert answer.closed.is_set()
    assert CANCELLED._value.get() == before + 1, "the caller has gone"
    list(rows_of(MemoryAnswer(), streams))
    assert CANCELLED._value.get() == before + 1, "an answer that ended is none"


def test_long_streams_take_turns_and_others_wait_for_none(streams):
    turns = limits.QUERY_TURNS
    answers = [MemoryAnswer(0, blocks=True) for _ in range(turns + 1)]
    rows = [rows_of(answer, streams, long=True) for answer in answers]
    readers = [threading.Thread(target=list, args=(each,)) for each in rows]
    for reader in readers[:turns]:
        reader.start()
    assert all(answer.entered.wait(10) for answer in answers[:turns])
    readers[turns].start()
    assert len(list(rows_of(MemoryAnswer(2), streams))) == 3
    assert not answers[turns].entered.is_set()
    answers[0].close()
    assert answers[turns].entered.wait(10)
    for answer in answers:
        answer.close()
    for reader in readers:
        reader.join(10)
        assert not reader.is_alive()


def test_the_oldest_work_is_the_batch_that_takes_longest(streams):
    clock, answer = streams._clock, MemoryAnswer(0, blocks=True)
    assert streams.oldest_work_s == 0.0
    rows = rows_of(answer, streams)
    clock.advance(100)
    assert streams.oldest_work_s == 0.0, "it waits for its reader"
    reader = threading.Thread(target=lambda: list(rows))
    reader.start()
    assert answer.entered.wait(10)
    clock.advance(7)
    assert streams.oldest_work_s == 7.0
    answer.close()
    reader.join(10)


def test_a_blocked_stream_whose_caller_has_gone_is_ended(streams):
    before = CANCELLED._value.get()
    context, answer, left = Context(), MemoryAnswer(0, blocks=True), []
    rows = rows_of(answer, streams, context, left)
    raised = []

    def read():
        try:
            next(rows)
        except fl.FlightError as error:
            raised.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    assert answer.entered.wait(10)
    context.gone = True
    reader.join(10)
    assert not reader.is_alive()
    assert raised == ["the caller has gone"]
    assert CANCELLED._value.get() == before + 1
    assert left == [1]


def test_a_context_is_not_asked_between_two_batches(streams):
    class Freed:
        def is_cancelled(self):
            raise AssertionError("asked after its call may have ended")

    rows = rows_of(MemoryAnswer(2), streams, Freed())
    next(rows)
    streams.look()
    assert next(rows)[0].num_rows == 1


def test_draining_waits_then_ends_what_is_left():
    streams, left = Streams(ManualClock()), []
    answer = MemoryAnswer(1)
    rows = rows_of(answer, streams, left=left)
    next(rows)
    streams.drain(0.3)
    assert left == [1]  # also while its reader is suspended
    assert answer.closed.is_set()
    with pytest.raises(fl.FlightUnavailableError, match="shutting down"):
        next(rows)
    assert left == [1]


@pytest.fixture
def watched():
    """Streams that are looked at by the test alone."""
    return Streams(ManualClock(), 60)


def test_a_stream_that_is_not_read_gives_its_place_back(watched):
    left, answer = [], MemoryAnswer(9)
    rows = rows_of(answer, watched, left=left)
    for _ in range(3):  # a slow reader is no idle one
        watched._clock.advance(59)
        watched.look()
        next(rows)
    watched._clock.advance(59)
    watched.look()
    assert left == []
    watched._clock.advance(1)
    watched.look()
    assert left == [1]
    assert answer.closed.is_set()
    with pytest.raises(fl.FlightUnavailableError, match="took no batch for 60 s") as caught:
        next(rows)
    assert b"STREAM_IDLE" in caught.value.extra_info
    assert list(rows) == []
    assert left == [1]


def test_a_stream_that_is_not_read_ends_with_its_deadline(watched):
    left, answer = [], MemoryAnswer(9)
    answer.ends_at_s = watched._clock.monotonic_s() + 30
    rows = rows_of(answer, watched, left=left)
    next(rows)
    watched._clock.advance(30)
    watched.look()
    assert left == [1]
    with pytest.raises(fl.FlightTimedOutError, match="deadline"):
        next(rows)


def test_a_batch_that_takes_long_to_make_is_not_idleness(watched):
    left, answer = [], MemoryAnswer(0, blocks=True)
    rows = rows_of(answer, watched, left=left)
    reader = threading.Thread(target=lambda: list(rows))
    reader.start()
    assert answer.entered.wait(10)
    watched._clock.advance(1000)
    watched.look()
    assert left == []
    assert watched.waiting == 0
    answer.close()
    reader.join(10)


def test_streams_that_wait_for_their_reader_are_counted(watched):
    rows = [rows_of(MemoryAnswer(9), watched) for _ in range(3)]
    assert watched.waiting == 0
    watched._clock.advance(1)
    next(rows[0])
    assert watched.waiting == 2


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Invalid(Reason.BAD_REQUEST, "m"), fl.FlightServerError),
        (Invalid(Reason.NOT_LOCAL, "m"), fl.FlightUnauthorizedError),
        (NotFound(Reason.UNKNOWN_SYMBOL, "m"), fl.FlightServerError),
        (Unavailable(Reason.TAIL_BEHIND, "m"), fl.FlightUnavailableError),
        (Overloaded(Reason.TAIL_FULL, "m"), fl.FlightUnavailableError),
        (Overloaded(Reason.DEADLINE_EXCEEDED, "m"), fl.FlightTimedOutError),
        (Data(Reason.LAKE_CORRUPT, "m"), fl.FlightServerError),
        (Internal(Reason.INTERNAL, "m"), fl.FlightInternalError),
    ],
)
def test_every_kind_has_a_flight_error(error, kind):
    made = flight_error(error)
    assert type(made) is kind
    assert status_pb2.Status.FromString(made.extra_info).message == "m"
