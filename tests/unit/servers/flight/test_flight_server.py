"""Rows over a real Flight socket, from the real view and engine on a tape in memory."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.flight as fl  # noqa: TID251 the wire is what is tested
import pytest
from google.protobuf import any_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from prometheus_client.openmetrics.exposition import generate_latest

from k2 import limits, tracing
from k2.degrade.level import Level
from k2.degrade.platform import Levels
from k2.errors import Invalid, Reason, Unavailable
from k2.market.offsets import OffsetVector, ReadToken
from k2.metrics import EVENTS
from k2.query.admission import Admission, Places
from k2.query.gate import QueryGate
from k2.query.request import Caller, Principal, RequestClass
from k2.v1 import market_pb2
from k2.v1 import query_service_pb2 as pb
from servers.flight.flight_server import PLAN_QUERY, Parts, RowServer, dispatched
from servers.flight.flight_stream import PROVENANCE_KEY
from servers.network import split_address
from servers.services.query_service import Planner
from servers.services.read_token import to_text
from servers.services.ticket import Signer
from tests.support.eventually import eventually
from tests.support.spans import links_of, parent_of, recorded, span_id_of, trace_of
from tests.support.trades import NOW_US

SYMBOL = "BTCUSDT"
WIDE = {"note": "x" * 4000}  # so that an answer is more than the sockets hold


class Wire:
    """A row server over a stack, and a client of it."""

    def __init__(self, stack, running_max=8, plans=None):
        self.stack = stack
        self.levels = Levels()
        self.admission = Admission(dict.fromkeys(RequestClass, running_max))
        self.plans = Places(4, "plans are being made")  # two of one caller
        self.server = RowServer("127.0.0.1:0")
        self.planner = Planner(
            plans=plans or stack.view,
            signer=Signer(b"k" * 32),
            clock=stack.clock,
            level=lambda: Level.SOFT,
            locations=self.server.locations,
            gate=QueryGate(lambda: self.levels, stack.clock, self.admission, 3.0),
        )
        self.client = fl.FlightClient(self.server.locations[0])

    def ready(self, executor=None):
        self.server.ready(
            Parts(
                planner=self.planner,
                executor=executor or self.stack.executor,
                admission=self.admission,
                plans=self.plans,
                clock=self.stack.clock,
            )
        )
        return self

    def close(self):
        self.client.close()
        self.server.drain()

    def ticket(self, **fields):
        plan = self.planner.plan(asked(**fields), Caller())
        return plan.endpoints[0].ticket

    def get(self, ticket):
        return self.client.do_get(fl.Ticket(ticket))

    def ids(self, **fields):
        table = self.get(self.ticket(**fields)).read_all()
        return table.column("trade_id").to_pylist()


def asked(**fields):
    return pb.PlanQueryRequest(trades=pb.TradesRequest(**({"symbols": [SYMBOL]} | fields)))


def packed(name, message=b""):
    return any_pb2.Any(type_url=f"type.googleapis.com/{name}", value=message).SerializeToString()


def send_wide(stack):
    """Rows that take long to judge where the machine is busy, all visible when this returns."""
    stack.send(SYMBOL, range(8000), vendor_data=WIDE)
    eventually(lambda: sum(stack.tail.position().offsets) == 8000, timeout_s=40)


def failure(call, *args):
    """What a client learns of a failure: its type, the code and the reason; never a traceback."""
    with pytest.raises((fl.FlightError, pa.ArrowException)) as caught:
        call(*args)
    assert "Traceback" not in str(caught.value)
    assert ".py" not in str(caught.value)
    status = status_pb2.Status.FromString(caught.value.extra_info)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return type(caught.value), info.reason


def test_rows_of_lake_and_tail_come_with_their_provenance(wire, stack):
    stack.send(SYMBOL, range(10))
    stack.commit()
    stack.view.maintain()
    stack.send(SYMBOL, range(10, 15))
    reader = wire.get(wire.ticket())
    planned = json.loads(reader.schema.metadata[PROVENANCE_KEY])
    chunks = list(reader)
    last = market_pb2.Provenance.FromString(chunks[-1].app_metadata.to_pybytes())
    rows = [each for chunk in chunks for each in chunk.data.column("trade_id").to_pylist()]
    assert rows == list(range(15))
    assert chunks[-1].data.num_rows == 0
    assert planned["snapshot_id"] == str(last.snapshot_id)
    assert planned["level"] == "DEGRADATION_LEVEL_SOFT"
    assert planned["completeness"] == "COMPLETENESS_COMPLETE"
    assert "rows_lake" not in planned
    assert last.rows_lake + last.rows_tail == 15
    assert last.rows_tail >= 5
    assert last.HasField("freshness_ms")
    assert sum(last.end_positions.offsets) == 15
    assert last.covered_until_time.ToMicroseconds() == NOW_US + 14_000
    assert not last.HasField("as_of_ahead_ms")


def test_a_time_in_the_future_is_said_with_the_answer(wire, stack):
    stack.send(SYMBOL, [1])
    stack.commit()
    ahead = Timestamp()
    ahead.FromMicroseconds(stack.clock.now_us() + 1_500_000)
    *_, last = wire.get(wire.ticket(as_of_time=ahead))
    last = market_pb2.Provenance.FromString(last.app_metadata.to_pybytes())
    assert last.as_of_ahead_ms == 1500.0


def test_the_token_that_came_with_the_rows_asks_for_them_again(wire, stack):
    stack.send(SYMBOL, range(10))
    stack.commit()
    stack.send(SYMBOL, range(10, 15))
    reader = wire.get(wire.ticket(columns=["trade_id"]))
    said = json.loads(reader.schema.metadata[PROVENANCE_KEY])
    rows = reader.read_all()
    stack.send(SYMBOL, range(15, 40))
    stack.commit()
    stack.view.maintain()
    again = wire.get(wire.ticket(columns=["trade_id"], as_of_token=said["token"])).read_all()
    assert again.equals(rows)
    assert len(wire.ids()) == 40


def test_get_flight_info_does_both_for_a_flight_only_client(wire, stack):
    stack.send(SYMBOL, range(5))
    command = asked(columns=["trade_id", "price"]).SerializeToString()
    info = wire.client.get_flight_info(fl.FlightDescriptor.for_command(command))
    assert info.schema.names == ["trade_id", "price"]
    assert info.schema.metadata[PROVENANCE_KEY] == info.app_metadata
    (endpoint,) = info.endpoints
    assert endpoint.locations == [fl.Location(uri) for uri in wire.server.locations]
    assert wire.client.do_get(endpoint.ticket).read_all().num_rows == 5


def test_batches_are_small_and_the_schema_is_that_of_the_plan(wire, stack):
    stack.send(SYMBOL, range(30_000))
    plan = wire.planner.plan(asked(), Caller())
    reader = wire.get(plan.endpoints[0].ticket)
    assert pa.ipc.read_schema(pa.py_buffer(plan.arrow_schema)).equals(reader.schema)
    chunks = list(reader)
    assert sum(chunk.data.num_rows for chunk in chunks) == 30_000
    assert all(chunk.data.nbytes <= limits.FLIGHT_BATCH_BYTES_MAX for chunk in chunks)


def test_a_ticket_gives_the_same_rows_again(wire, stack):
    stack.send(SYMBOL, range(5))
    ticket = wire.ticket()
    stack.send(SYMBOL, range(5, 9))
    stack.commit()
    stack.view.maintain()
    first, second = (wire.get(ticket).read_all() for _ in range(2))
    assert first.equals(second)
    assert first.num_rows == 5


def keyed(reader):
    """The rows of each batch, and the id that its metadata gives the last one."""
    for chunk in reader:
        said = market_pb2.Provenance.FromString(chunk.app_metadata.to_pybytes())
        if chunk.data.num_rows:
            yield chunk.data.num_rows, said.last_row


def resumed(wire, ticket, after):
    options = fl.FlightCallOptions(headers=[(b"k2-resume-after", after)])
    return wire.client.do_get(fl.Ticket(ticket), options)


@pytest.mark.parametrize("order", [pb.ORDER_ASC, pb.ORDER_DESC])
@pytest.mark.parametrize("committed", [0, 20, 30])
def test_a_batch_ends_where_a_stream_is_resumed_and_names_that_row(wire, stack, order, committed):
    stack.send(SYMBOL, range(committed))
    stack.commit()
    stack.view.maintain()
    stack.send(SYMBOL, range(committed, 30))
    ids = list(range(30) if order == pb.ORDER_ASC else reversed(range(30)))
    ticket = wire.ticket(columns=["price"], order=order)
    for after in (1, 7, 20, 29, 30):
        ends = {}
        for rows, key in keyed(resumed(wire, ticket, b"%d" % after)):
            ends[rows + max(ends, default=0)] = key
        assert {end: key.trade_id for end, key in ends.items()} == {
            end: ids[end - 1] for end in {after, 30} | set(ends)
        }
        assert {(key.exchange, key.symbol) for key in ends.values()} == {("BINANCE", SYMBOL)}
        times = {key.event_time.ToMicroseconds() - 1000 * key.trade_id for key in ends.values()}
        assert times == {NOW_US}


@pytest.mark.parametrize("after", [b"-1", b"x", b"", b"9" * 30])
def test_a_strange_place_to_resume_is_refused(wire, stack, after):
    stack.send(SYMBOL, range(3))
    ticket = wire.ticket()
    assert failure(resumed, wire, ticket, after) == (fl.FlightServerError, "BAD_REQUEST")
    assert wire.ids() == [0, 1, 2]
    eventually(lambda: wire.admission.running == 0)


@pytest.mark.parametrize("ticket", [b"", b"garbage", b"\x00" * 1000, b"x" * 100_000])
def test_garbage_tickets(wire, ticket):
    assert failure(wire.get, ticket) == (fl.FlightServerError, "BAD_TICKET")


def test_the_ticket_of_another_principal(wire, stack):
    stack.send(SYMBOL, range(3))
    plan = wire.planner.plan(asked(), Caller(Principal("alice")))
    refused = (fl.FlightServerError, "BAD_TICKET")
    assert failure(wire.get, plan.endpoints[0].ticket) == refused


def test_the_class_of_a_request_reaches_its_plan_and_its_answer(stack):
    class Recorded:
        def __init__(self):
            self.callers = []

        def plan(self, request):
            self.callers.append(request.caller)
            return stack.view.plan(request)

        def open(self, request, snapshot_id, end):
            self.callers.append(request.caller)
            return stack.view.open(request, snapshot_id, end)

    stack.send(SYMBOL, range(3))
    recorded = Recorded()
    wire = Wire(stack, plans=recorded).ready()
    command = fl.FlightDescriptor.for_command(asked().SerializeToString())
    batch, urgent = (
        fl.FlightCallOptions(headers=[(b"k2-class", name)]) for name in (b"batch", b"urgent")
    )
    (endpoint,) = wire.client.get_flight_info(command, batch).endpoints
    assert wire.client.do_get(endpoint.ticket).read_all().num_rows == 3
    assert [caller.request_class for caller in recorded.callers] == ["batch", "interactive"]
    refused = (fl.FlightServerError, "BAD_REQUEST")
    assert failure(wire.client.get_flight_info, command, urgent) == refused
    wire.close()


def test_a_command_is_found_by_the_name_of_its_type():
    message = asked().SerializeToString()
    sql = "arrow.flight.protocol.sql.CommandStatementQuery"
    commands = {PLAN_QUERY: "plan", sql: "sql"}
    assert dispatched(commands, message) == ("plan", message)
    assert dispatched(commands, packed(PLAN_QUERY, message)) == ("plan", message)
    assert dispatched(commands, packed(sql, b"x")) == ("sql", b"x")
    with pytest.raises(Invalid, match="there is no command"):
        dispatched(commands, packed("k2.v1.Other"))


def test_an_expired_ticket(wire, stack):
    stack.send(SYMBOL, range(3))
    ticket = wire.ticket()
    stack.clock.advance(limits.TICKET_LIFE_S)
    assert failure(wire.get, ticket) == (fl.FlightServerError, "TICKET_EXPIRED")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"symbols": ["BTCUSTD"]}, "UNKNOWN_SYMBOL"),
        ({"limit": -1}, "LIMIT_OUT_OF_BOUNDS"),
        ({"limit": 0}, "LIMIT_OUT_OF_BOUNDS"),
        ({"columns": ["prise"]}, "UNKNOWN_COLUMN"),
        ({"as_of_snapshot_id": 7}, "UNKNOWN_SNAPSHOT"),
        ({"as_of_token": "k2t1.AAAA"}, "BAD_TOKEN"),
        ({"as_of_token": to_text(ReadToken("9", OffsetVector(0, (0,) * 4)))}, "UNKNOWN_TOKEN"),
        ({"as_of_token": to_text(ReadToken("1", OffsetVector(0, (9, 0, 0, 0))))}, "OUT_OF_RANGE"),
        ({"consistency": 77}, "BAD_REQUEST"),
        ({"symbols": ["A" * 1000]}, "BAD_REQUEST"),
    ],
)
def test_bad_questions(wire, stack, fields, reason):
    stack.send(SYMBOL, range(3))
    descriptor = fl.FlightDescriptor.for_command(asked(**fields).SerializeToString())
    assert failure(wire.client.get_flight_info, descriptor) == (fl.FlightServerError, reason)
    assert wire.ids() == [0, 1, 2]  # the server is unharmed


@pytest.mark.parametrize(
    "descriptor",
    [
        fl.FlightDescriptor.for_path("trades"),
        fl.FlightDescriptor.for_command(b""),
        fl.FlightDescriptor.for_command(b"\xff\xff"),
        fl.FlightDescriptor.for_command(b"select 1"),
        fl.FlightDescriptor.for_command(packed("arrow.flight.protocol.sql.CommandGetTables")),
    ],
)
def test_commands_that_are_no_questions(wire, descriptor):
    expected = (fl.FlightServerError, "BAD_REQUEST")
    assert failure(wire.client.get_flight_info, descriptor) == expected


def test_what_is_not_offered_is_refused(wire):
    client, schema = wire.client, pa.schema([("a", pa.int64())])
    path = fl.FlightDescriptor.for_path("x")
    assert list(client.list_flights()) == []
    assert list(client.list_actions()) == []
    refused = (fl.FlightServerError, "BAD_REQUEST")
    assert failure(lambda: list(client.do_action(fl.Action("x", b"")))) == refused

    def put():
        writer, reader = client.do_put(path, schema)
        writer.done_writing()
        reader.read()
        writer.close()

    def exchange():
        writer, reader = client.do_exchange(path)
        writer.done_writing()
        reader.read_all()

    command = fl.FlightDescriptor.for_command(asked().SerializeToString())
    with pytest.raises(OSError, match="GetSchema is not offered") as described:
        client.get_schema(command)
    assert "Traceback" not in str(described.value)
    assert failure(put) == refused
    assert failure(exchange) == refused


def test_too_many_queries_are_refused_and_places_come_back(stack):
    stack.send(SYMBOL, range(3))
    wire = Wire(stack, running_max=1).ready()
    wire.admission.enter(Caller())
    assert failure(wire.get, wire.ticket()) == (fl.FlightUnavailableError, "TOO_MANY_QUERIES")
    wire.admission.leave(Caller(), 0.1)
    assert [wire.ids() for _ in range(3)] == [[0, 1, 2]] * 3
    eventually(lambda: wire.admission.running == 0)
    wire.close()


def flight_info(wire, **fields):
    command = fl.FlightDescriptor.for_command(asked(**fields).SerializeToString())
    return wire.client.get_flight_info(command)


def test_a_level_refuses_plans_and_tickets_before_it_reads_them(wire, stack):
    stack.send(SYMBOL, range(3))
    whole, point = wire.ticket(), wire.ticket(limit=5)
    shed = (fl.FlightUnavailableError, "SHED")
    wire.levels = Levels(own=Level.AGGRESSIVE)
    assert failure(flight_info, wire) == shed
    assert failure(wire.get, whole) == shed
    assert flight_info(wire, limit=5).endpoints
    assert wire.get(point).read_all().num_rows == 3
    wire.levels = Levels(own=Level.CIRCUIT_BREAK)
    assert failure(wire.get, b"garbage") == shed
    assert failure(wire.client.get_flight_info, fl.FlightDescriptor.for_command(b"?")) == shed
    wire.levels = Levels(own=Level.CIRCUIT_BREAK, shadow=True)
    assert wire.get(whole).read_all().num_rows == 3


def test_a_heavy_query_is_refused_before_the_tape_is_asked(wire, stack, monkeypatch):
    stack.send(SYMBOL, range(30))
    stack.commit()
    stack.view.maintain()
    whole = wire.ticket()
    monkeypatch.setattr(limits, "HEAVY_ROWS", 29)
    wire.levels = Levels(own=Level.GRACEFUL)
    stack.tape.away = True
    shed = (fl.FlightUnavailableError, "SHED")
    assert failure(flight_info, wire) == shed
    assert failure(wire.get, whole) == shed
    stack.tape.away = False
    assert flight_info(wire, limit=5).endpoints
    stack.send(SYMBOL, range(30, 40))
    monkeypatch.setattr(limits, "HEAVY_ROWS", 39)
    eventually(lambda: sum(stack.tail.position().offsets) == 40)
    assert failure(flight_info, wire) == shed, "with the rows of the tail it is heavy"


def test_one_connection_holds_a_share_of_the_places(stack):
    stack.send(SYMBOL, range(3))
    wire = Wire(stack, running_max=2).ready(executor=Endless())
    ticket = wire.ticket()
    reader = wire.get(ticket)
    reader.read_chunk()
    assert failure(wire.get, ticket)[1] == "TOO_MANY_QUERIES"
    named = fl.FlightCallOptions(headers=[(b"k2-client-id", b"another")])
    other = wire.client.do_get(fl.Ticket(ticket), named)
    other.read_chunk()
    for each in (reader, other):
        each.cancel()
    wire.close()


def test_a_query_that_cannot_be_opened_keeps_no_place(wire, stack):
    stack.send(SYMBOL, range(3))
    ticket = wire.ticket()
    stack.tail.close()
    stack.send(SYMBOL, range(3, 5))
    wire.planner.plan(asked(), Caller())  # planned beyond what the tail will ever reach
    assert wire.get(ticket).read_all().num_rows == 3
    eventually(lambda: wire.admission.running == 0)


class Endless:
    """Runs answers of more batches than sockets and the client's window, which grows, hold."""

    def run(self, opened, deadline_s):
        self.answer = EndlessAnswer()
        return self.answer


class EndlessAnswer:
    schema = pa.schema([("trade_id", pa.int64())])
    batch = pa.record_batch({"trade_id": pa.array(np.zeros(500_000, np.int64))}, schema=schema)
    last_key = (0, "BINANCE", SYMBOL, 0)
    ends_at_s = float("inf")
    closed = False

    def __next__(self):
        if self.closed:
            raise StopIteration
        return self.batch

    def close(self):
        self.closed = True


def test_a_suspended_reader_gives_its_place_to_others(stack):
    stack.send(SYMBOL, range(3))
    endless = Endless()
    wire = Wire(stack, running_max=1).ready(executor=endless)
    reader = wire.get(wire.ticket())
    reader.read_chunk()  # and then nothing: the server is blocked in a write
    assert failure(wire.get, wire.ticket())[1] == "TOO_MANY_QUERIES"

    def freed():
        stack.clock.advance(limits.STREAM_IDLE_S)
        return wire.admission.running == 0

    eventually(freed)
    assert endless.answer.closed
    assert failure(reader.read_all) == (fl.FlightUnavailableError, "STREAM_IDLE")
    wire.close()


def test_a_drain_does_not_wait_for_a_suspended_reader(stack, monkeypatch):
    monkeypatch.setattr(limits, "DRAIN_S", 1.0)
    monkeypatch.setattr(limits, "DRAIN_CLOSE_S", 0.5)
    stack.send(SYMBOL, range(3))
    endless = Endless()
    wire = Wire(stack).ready(executor=endless)
    reader = wire.get(wire.ticket())
    reader.read_chunk()
    assert not wire.server.drain()
    assert endless.answer.closed
    assert wire.admission.running == 0
    with pytest.raises(fl.FlightUnavailableError):  # DRAINING, where the socket outlives it
        reader.read_all()
    eventually(wire.server.drain)
    wire.client.close()


def test_plans_are_admitted_before_they_take_a_thread_for_long(stack):
    class Slow:
        def __init__(self):
            self.go = threading.Event()
            self.entered = []

        def plan(self, request):
            self.entered.append(request)
            assert self.go.wait(20)
            return stack.view.plan(request)

    stack.send(SYMBOL, range(3))
    slow = Slow()
    wire = Wire(stack, plans=slow).ready()
    command = fl.FlightDescriptor.for_command(asked().SerializeToString())
    with ThreadPoolExecutor(2) as pool:
        planned = [pool.submit(wire.client.get_flight_info, command) for _ in range(2)]
        eventually(lambda: len(slow.entered) == 2)
        before = psutil.Process().num_threads()
        with ThreadPoolExecutor(50) as callers:
            asked_at_once = [
                callers.submit(failure, wire.client.get_flight_info, command) for _ in range(200)
            ]
            refused = {each.result(20) for each in asked_at_once}
            assert psutil.Process().num_threads() < before + 50 + 64
        assert refused == {(fl.FlightUnavailableError, "TOO_MANY_QUERIES")}
        slow.go.set()
        assert [len(each.result(20).endpoints) for each in planned] == [1, 1]
    assert len(wire.client.get_flight_info(command).endpoints) == 1
    assert wire.plans.running == 0
    wire.close()


def test_an_abandoned_stream_is_ended(wire, stack):
    send_wide(stack)
    reader = wire.get(wire.ticket())
    reader.read_chunk()
    assert wire.admission.running == 1
    reader.cancel()
    del reader
    eventually(lambda: wire.admission.running == 0)
    assert wire.ids(limit=2) == [0, 1]


def test_a_defect_shows_nothing_of_its_inside(stack):
    class Broken:
        plan = stack.view.plan

        def open(self, request, snapshot_id, end):
            raise ZeroDivisionError("inside")

    stack.send(SYMBOL, range(3))
    wire = Wire(stack, plans=Broken()).ready()
    assert failure(wire.get, wire.ticket()) == (fl.FlightInternalError, "INTERNAL")
    assert wire.admission.running == 0
    wire.close()


def test_it_says_starting_and_draining(stack):
    stack.send(SYMBOL, range(3))
    wire = Wire(stack)
    assert failure(wire.get, b"") == (fl.FlightUnavailableError, "STARTING")
    wire.ready()
    ticket = wire.ticket()
    assert wire.get(ticket).read_all().num_rows == 3
    wire.server._draining.set()
    assert failure(wire.get, ticket) == (fl.FlightUnavailableError, "DRAINING")
    wire.server._draining.clear()
    wire.close()


def test_draining_ends_streams_with_a_reason_not_with_fewer_rows(stack):
    send_wide(stack)
    wire = Wire(stack).ready()
    reader = wire.get(wire.ticket())
    reader.read_chunk()
    for stream in list(wire.server._streams._running):
        stream.end(Unavailable(Reason.DRAINING, "the server is shutting down"))
    assert failure(reader.read_all) == (fl.FlightUnavailableError, "DRAINING")
    wire.close()
    wire.server.drain()  # again, which does nothing


def test_a_port_in_use_is_named(wire):
    with pytest.raises(Unavailable) as caught:
        RowServer(wire.server.address)
    assert caught.value.reason is Reason.PORT_IN_USE
    assert split_address(wire.server.address)[0] == "127.0.0.1"


def test_clients_at_once_each_get_their_rows(wire, stack):
    for symbol in ("BTCUSDT", "ETHUSDT", "BNBUSDT"):
        stack.send(symbol, range(2000))
    found = []

    def ask(symbol):
        ids = wire.get(wire.ticket(symbols=[symbol], limit=1500)).read_all()
        found.append(ids.column("trade_id").to_pylist() == list(range(1500)))

    threads = [
        threading.Thread(target=ask, args=(symbol,)) for symbol in ("BTCUSDT", "ETHUSDT", "BNBUSDT")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [True] * 3


def test_one_trace_tells_of_a_query(wire, stack):
    stack.send(SYMBOL, range(10))
    stack.commit()
    stack.view.maintain()
    stack.send(SYMBOL, range(10, 15))
    commit = f"00-{5:032x}-{6:016x}-01"
    stack.snapshots.traced = (commit,)
    with recorded() as spans:
        with tracing.begin("call") as call:
            ticket = wire.ticket()
        wire.get(ticket).read_all()
        eventually(lambda: len(spans()) == 7)
    found = {span.name.rpartition("/")[2]: span for span in spans()}
    assert list(found) == ["plan", "call", "tail", "lake", "execute", "stream", "DoGet"]
    assert {trace_of(span) for span in spans()} == {call.traceparents[0].split("-")[1]}
    get = found["DoGet"]
    assert parent_of(get) == span_id_of(found["call"])
    assert [parent_of(found[name]) for name in ("tail", "execute", "stream")] == [
        span_id_of(get)
    ] * 3
    assert parent_of(found["lake"]) == span_id_of(found["execute"])
    assert links_of(found["plan"]) == links_of(found["execute"]) == [f"{6:016x}"]
    execute = found["execute"].attributes
    assert execute["k2.rows.lake"] + execute["k2.rows.tail"] == 15
    examples = [line for line in generate_latest(EVENTS).decode().splitlines() if "# {" in line]
    assert {
        name
        for name in ("k2_query_seconds", "k2_query_first_batch_seconds")
        if any(line.startswith(f"{name}_bucket") and trace_of(get) in line for line in examples)
    } == {"k2_query_seconds", "k2_query_first_batch_seconds"}


def test_a_stream_is_part_of_its_callers_trace(wire, stack):
    stack.send(SYMBOL, range(5))
    caller = f"00-{1:032x}-{2:016x}-01"
    options = fl.FlightCallOptions(headers=[(b"traceparent", caller.encode())])
    with recorded() as spans:
        wire.client.do_get(fl.Ticket(wire.ticket()), options).read_all()
        eventually(lambda: spans()[-1].name.endswith("DoGet"))
        assert parent_of(spans()[-1]) == f"{2:016x}"
        wire.client.get_flight_info(
            fl.FlightDescriptor.for_command(asked().SerializeToString()), options
        )
        eventually(lambda: spans()[-1].name.endswith("GetFlightInfo"))
        assert parent_of(spans()[-1]) == f"{2:016x}"
