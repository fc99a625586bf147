import os

import pyarrow as pa
import pytest
from pyarrow import flight  # noqa: TID251 what Flight raises

import k2client
from k2.v1 import market_pb2, query_service_pb2
from k2client import flights
from k2client.deadline import Deadline, Retry
from k2client.errors import Internal, Invalid, K2Error, Unavailable
from k2client.flights import FlightPool, RowReading
from tests.support.proxies import set_proxies

PASSING = Unavailable("DRAINING", "going")


class Chunk:
    """Rows with the key of the last one, as the server sends them; or what metadata says."""

    def __init__(self, rows=(), metadata=None):
        rows = list(rows)
        self.data = pa.record_batch({"id": pa.array(rows, pa.int64())})
        if metadata is None and rows:
            key = market_pb2.RowKey(trade_id=rows[-1])
            metadata = market_pb2.Provenance(last_row=key).SerializeToString()
        self.app_metadata = None if metadata is None else pa.py_buffer(metadata)


class Reader:
    """Plays chunks and failures, then ends."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.cancelled = False

    def read_chunk(self):
        if not self.steps:
            raise StopIteration
        if isinstance(self.steps[0], Exception):
            raise self.steps.pop(0)
        return self.steps.pop(0)

    def cancel(self):
        self.cancelled = True


class Pool(FlightPool):
    """Hands out readers, or raises, in turn."""

    def __init__(self, *turns):
        super().__init__(None)
        self.turns = list(turns)
        self.opened = []
        self.resumed = []

    def open(self, ticket, location, timeout_s, resume_after=0):
        self.resumed.append(resume_after)
        self.opened.append((ticket, location))
        turn = self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        return turn


def endpoint(*locations, ticket=b"t"):
    return query_service_pb2.QueryEndpoint(ticket=ticket, locations=locations or ("grpc://a:1",))


def reading(pool, on_provenance=lambda _: None, *, resumable=True):
    retry = Retry(attempts_max=3, backoff_min_s=0, sleep=lambda _: None)
    return RowReading(pool, Deadline(60), retry, resumable, on_provenance)


def ids(batches):
    return [value for batch in batches for value in batch.column(0).to_pylist()]


def chunks(*batches):
    return [Chunk(rows) for rows in batches]


def unavailable():
    return flight.FlightUnavailableError("gone")


def test_endpoints_are_read_in_order():
    pool = Pool(Reader(Chunk([1, 2])), Reader(Chunk([3])))
    found = reading(pool).batches([endpoint(ticket=b"x"), endpoint(ticket=b"y")])
    assert ids(found) == [1, 2, 3]
    assert [ticket for ticket, _ in pool.opened] == [b"x", b"y"]


def test_another_location_is_tried_and_rows_are_given_once():
    pool = Pool(PASSING, Reader(Chunk([1, 2]), unavailable()), Reader(*chunks([1], [2], [3])))
    found = reading(pool).batches([endpoint("grpc://a:1", "grpc://b:1")])
    assert ids(found) == [1, 2, 3]
    assert [location for _, location in pool.opened] == ["grpc://a:1", "grpc://b:1", "grpc://a:1"]
    assert pool.resumed == [0, 0, 2]


@pytest.mark.parametrize(("locations", "waits"), [(("grpc://a:1", "grpc://b:1"), 1), ((), 2)])
def test_another_location_is_tried_at_once_and_the_same_one_after_a_while(locations, waits):
    waited = []
    retry = Retry(attempts_max=3, backoff_min_s=0, sleep=waited.append)
    away = Unavailable("PEER_UNAVAILABLE", "away")
    pool = Pool(away, away, Reader(Chunk([1])))
    found = RowReading(pool, Deadline(60), retry, True, lambda _: None)
    assert ids(found.batches([endpoint(*locations)])) == [1]
    assert len(waited) == waits


def test_progress_renews_the_tries():
    rows = [[row] for row in range(6)]
    turns = [Reader(*chunks(*rows[:last]), unavailable()) for last in range(1, 6)]
    pool = Pool(*turns, Reader(*chunks(*rows)))
    assert ids(reading(pool).batches([endpoint()])) == list(range(6))


def test_tries_without_progress_are_bounded():
    pool = Pool(*[Reader(unavailable()) for _ in range(9)])
    with pytest.raises(Unavailable):
        list(reading(pool).batches([endpoint()]))
    assert len(pool.opened) == 3


UNKEYED = b""


@pytest.mark.parametrize(
    "second",
    [
        [Chunk([1, 3]), Chunk([4])],  # a row fewer than was handed out
        [Chunk([0, 1]), Chunk([2, 3])],  # a row more
        [Chunk([1]), Chunk([2, 3])],  # a server that does not cut
        [Chunk([1, 2], UNKEYED), Chunk([3])],  # or names no rows
        [Chunk([1])],
        [],
    ],
)
def test_another_answer_is_not_stitched_to_the_rows_before(second):
    pool = Pool(Reader(Chunk([1, 2]), unavailable()), Reader(*second))
    found = reading(pool).batches([endpoint()])
    assert ids([next(found)]) == [1, 2]
    with pytest.raises(Unavailable, match="from the start") as caught:
        next(found)
    assert (caught.value.reason, caught.value.metadata) == ("ANSWER_CHANGED", {"rows": "2"})


def test_rows_without_a_key_are_not_resumed():
    pool = Pool(Reader(Chunk([1], UNKEYED), unavailable()), Reader(Chunk([1], UNKEYED)))
    with pytest.raises(Unavailable) as caught:
        ids(reading(pool).batches([endpoint()]))
    assert caught.value.reason == "ANSWER_CHANGED"


def test_what_is_gathered_whole_is_read_again_where_the_answer_changed():
    pool = Pool(
        Reader(Chunk([1, 2]), unavailable()),
        Reader(Chunk([1, 3]), Chunk([4])),
        Reader(Chunk([1, 3]), Chunk([4])),
    )
    assert ids(reading(pool).gathered([endpoint()])) == [1, 3, 4]
    assert pool.resumed == [0, 2, 0]


def test_it_is_not_read_again_without_end_nor_for_another_reason():
    broken = [turn for _ in range(9) for turn in (Reader(Chunk([1]), unavailable()), Reader())]
    pool = Pool(*broken)
    with pytest.raises(Unavailable):
        reading(pool).gathered([endpoint()])
    assert len(pool.opened) == 8
    with pytest.raises(Invalid):
        reading(Pool(Invalid("BAD_TICKET", "m"))).gathered([endpoint()])


def test_what_is_not_pinned_is_not_resumed():
    pool = Pool(Reader(unavailable()), Reader(Chunk([1]), unavailable()))
    found = reading(pool, resumable=False).batches([endpoint()])
    assert ids([next(found)]) == [1]
    with pytest.raises(Unavailable):
        next(found)


def test_a_refusal_is_final():
    pool = Pool(Invalid("BAD_TICKET", "m"))
    with pytest.raises(Invalid):
        list(reading(pool).batches([endpoint()]))
    assert len(pool.opened) == 1


def test_the_newest_provenance_is_taken_and_a_strange_one_is_not():
    provenances = []
    last = market_pb2.Provenance(rows_lake=1, rows_tail=2).SerializeToString()
    pool = Pool(Reader(Chunk([1]), Chunk([], b"\xff\xff"), Chunk([], last)))
    assert ids(reading(pool, provenances.append).batches([endpoint()])) == [1]
    assert [provenance.rows_tail for provenance in provenances] == [0, 2]
    assert not any(provenance.HasField("last_row") for provenance in provenances)


def test_a_stream_given_up_is_cancelled_and_one_read_is_not():
    given_up, read = Reader(Chunk([1]), Chunk([2])), Reader(Chunk([1]))
    batches = reading(Pool(given_up)).batches([endpoint()])
    next(batches)
    batches.close()
    list(reading(Pool(read)).batches([endpoint()]))
    assert (given_up.cancelled, read.cancelled) == (True, False)


def test_a_plan_without_an_address_is_a_defect():
    with pytest.raises(Internal):
        list(reading(Pool()).batches([query_service_pb2.QueryEndpoint(ticket=b"t")]))


def test_a_pool_says_why_it_cannot_connect():
    pool = FlightPool("key")
    with pytest.raises(Unavailable, match="nothing answers at"):
        pool.open(b"t", "grpc://127.0.0.1:1", 2.0).read_chunk()
    pool.close()


class Rows(flight.FlightServerBase):
    def do_get(self, context, ticket):
        return flight.RecordBatchStream(pa.table({"trade_id": [7]}))


def test_no_proxy_stands_before_the_rows(monkeypatch):
    set_proxies(monkeypatch)
    pool = FlightPool(None)
    with Rows("grpc://127.0.0.1:0") as server:
        got = pool.open(b"t", f"grpc://127.0.0.1:{server.port}", 20.0).read_all()
        pool.close()
    assert got.column("trade_id").to_pylist() == [7]


def said_by_child(call):
    """The reason and message of the K2Error that a call raises in a forked child."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            call()
        except K2Error as error:
            os.write(theirs, f"{error.reason}: {error.message}".encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as said:
        text = said.read()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def no_rows_read(monkeypatch):
    monkeypatch.setattr(flights, "_readers", set())


def test_nothing_made_before_a_fork_is_used_in_the_child(no_rows_read):
    client = k2client.connect("127.0.0.1:1")
    pool, reader = Pool(Reader()), Reader(Chunk([1]), Chunk([2]))
    broken = reading(Pool(reader)).batches([endpoint()])
    assert ids([next(broken)]) == [1]
    calls = [
        client.status,
        lambda: client.trades("BTCUSDT"),
        client.verify,
        lambda: next(broken),
        lambda: FlightPool.open(pool, b"t", "grpc://127.0.0.1:1", 1.0),
    ]
    for call in calls:
        expected = "OTHER_PROCESS: this client was made in another process: connect again here"
        assert said_by_child(call) == expected
    assert said_by_child(client.close) == said_by_child(broken.close) == ""
    assert ids(broken) == [2]
    client.close()


def test_a_child_of_a_process_that_read_rows_is_refused_its_own_connection(monkeypatch):
    monkeypatch.setattr(flights, "_readers", {os.getpid()})
    fresh = lambda: FlightPool(None).open(b"t", "grpc://127.0.0.1:1", 1.0)  # noqa: E731
    assert said_by_child(fresh).startswith("OTHER_PROCESS: this process was forked")
    assert 'get_context("spawn")' in said_by_child(k2client.connect("127.0.0.1:1").status)
