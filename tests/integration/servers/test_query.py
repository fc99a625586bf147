"""Lake writer, query and control as processes on a real tape, asked over the wire."""

import pyarrow as pa
import pyarrow.flight as fl  # noqa: TID251 the wire is what is tested
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import RpcError

from k2.clock import SystemClock
from k2.market.events import Label, Trade
from k2.market.instrument import Instrument
from k2.tape import topics
from k2.tape.avro.trade_codec import encode_trade
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.partition_map import PartitionMap
from k2.tape.producer import TapeProducer
from k2.v1 import (
    degradation_service_pb2,
    degradation_service_pb2_grpc,
    market_pb2,
    snapshot_service_pb2,
    snapshot_service_pb2_grpc,
)
from k2.v1 import platform_service_pb2 as platform_pb
from k2.v1 import platform_service_pb2_grpc as platform_rpc
from k2.v1 import query_service_pb2 as pb
from k2.v1 import query_service_pb2_grpc as rpc
from tests.fakes.wire import reason_of
from tests.integration.servers.wire import channel_to, deployed, running
from tests.support.eventually import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
LABEL = Label("BINANCE_WIRE", "BTCUSDT", "BTC", "USDT", "crypto", "simulated")


class Printer:
    """Prints trades on the tape, as a feed would."""

    def __init__(self, settings, schema_id):
        self.board = CompactedTopic(settings.tape.bootstrap, topics.PARTITIONS)
        homes = PartitionMap(
            self.board, topics.topic_id(settings.tape), settings.tape.partitions_per_tier
        )
        self.partition = homes.place(Instrument(LABEL.exchange, LABEL.symbol))
        self.producer = TapeProducer(settings.tape)
        self.schema_id = schema_id
        self.next_id = 1

    def print(self, count):
        """So many trades, acknowledged when this returns; the ids printed so far."""
        acknowledged = []
        now_us = SystemClock().now_us()
        for trade_id in range(self.next_id, self.next_id + count):
            trade = Trade(LABEL, trade_id, now_us + trade_id, now_us + trade_id, 100, 5, 0, {})
            self.producer.send(
                b"k", encode_trade(trade, self.schema_id), self.partition, None,
                lambda offset, error: acknowledged.append(error),
            )  # fmt: skip
        assert self.producer.flush(20) == 0
        assert acknowledged == [None] * count
        self.next_id += count
        return list(range(1, self.next_id))

    def close(self):
        self.producer.close()
        self.board.close()


@pytest.fixture(scope="module")
def deployed_stack(broker, registry, tmp_path_factory):
    return deployed(broker, registry, tmp_path_factory.mktemp("query"), "query.trades")


@pytest.fixture(scope="module")
def printer(deployed_stack):
    printer = Printer(*deployed_stack)
    printer.print(50)
    yield printer
    printer.close()


@pytest.fixture(scope="module")
def servers(deployed_stack, printer):
    settings = deployed_stack[0]
    with (
        running("lake", settings, K2_LAKE__COMMIT_INTERVAL_S="1"),
        running("query", settings) as query,
        running("control", settings, K2_CONTROL__QUERY_ADDRESS=query["grpc"]) as control,
    ):
        yield {"query": query, "control": control}


@pytest.fixture(scope="module")
def channel(servers):
    with channel_to(servers["control"]["grpc"]) as channel:
        yield channel


@pytest.fixture(scope="module")
def flight(servers):
    client = fl.FlightClient(f"grpc://{servers['query']['flight']}")
    yield client
    client.close()


def asked(**fields):
    own = {"symbols": ["BTCUSDT"], "exchanges": [LABEL.exchange]}
    return pb.PlanQueryRequest(trades=pb.TradesRequest(**(own | fields)))


def rows(channel, flight, **fields):
    """Ids of an answer, and its final provenance."""
    plan = rpc.QueryServiceStub(channel).PlanQuery(asked(**fields), timeout=30)
    (endpoint,) = plan.endpoints
    chunks = list(flight.do_get(fl.Ticket(endpoint.ticket)))
    last = market_pb2.Provenance.FromString(chunks[-1].app_metadata.to_pybytes())
    return [i for chunk in chunks for i in chunk.data.column("trade_id").to_pylist()], last


def test_what_was_acknowledged_is_in_the_next_answer(printer, channel, flight):
    for _ in range(20):
        printed = printer.print(10)
        found, provenance = rows(channel, flight)
        assert found == printed
        assert provenance.rows_lake + provenance.rows_tail == len(printed)
        assert provenance.completeness == market_pb2.COMPLETENESS_UNKNOWN, "no feed listens"
        assert provenance.source == market_pb2.DATA_SOURCE_SIMULATED
        until = market_pb2.TimeRange(end_time=provenance.covered_until_time)
        found, provenance = rows(channel, flight, range=until)
        assert found == printed[:-1]
        assert provenance.completeness == market_pb2.COMPLETENESS_COMPLETE


def test_an_answer_joins_lake_and_tail(printer, channel, flight):
    def both():
        printed = printer.print(5)
        found, provenance = rows(channel, flight)
        assert found == printed
        return provenance.rows_lake and provenance.rows_tail

    eventually(both, timeout_s=60)


def test_committed_and_as_of_answer_from_the_lake_alone(printer, channel, flight):
    stub = snapshot_service_pb2_grpc.SnapshotServiceStub(channel)

    def snapshot():
        request = snapshot_service_pb2.ListSnapshotsRequest()
        return next(iter(stub.ListSnapshots(request).snapshots), None)

    taken = eventually(snapshot, timeout_s=30)
    found, provenance = rows(channel, flight, as_of_snapshot_id=taken.snapshot_id)
    assert found == list(range(1, taken.rows_total + 1))
    assert provenance.snapshot_id == taken.snapshot_id
    assert provenance.rows_tail == 0
    printed = printer.print(5)

    def committed():
        return rows(channel, flight, consistency=pb.CONSISTENCY_COMMITTED)[0] == printed

    eventually(committed, timeout_s=30)
    assert rows(channel, flight, as_of_snapshot_id=taken.snapshot_id)[0] == found


def test_snapshots_are_watched(printer, channel):
    stub = snapshot_service_pb2_grpc.SnapshotServiceStub(channel)
    watch = stub.WatchSnapshots(snapshot_service_pb2.WatchSnapshotsRequest(), timeout=60)
    first = next(watch).snapshot
    printer.print(5)
    second = next(watch).snapshot
    watch.cancel()
    assert second.parent_id == first.snapshot_id
    assert second.commit_time.ToMicroseconds() > first.commit_time.ToMicroseconds()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"symbols": ["BTCUSTD"]}, ("NOT_FOUND", "UNKNOWN_SYMBOL")),
        ({"limit": -1}, ("INVALID_ARGUMENT", "LIMIT_OUT_OF_BOUNDS")),
        ({"columns": ["prise"]}, ("INVALID_ARGUMENT", "UNKNOWN_COLUMN")),
        ({"as_of_snapshot_id": 7}, ("NOT_FOUND", "UNKNOWN_SNAPSHOT")),
        (
            {"range": {"start_time": {"seconds": 9}, "end_time": {"seconds": 8}}},
            ("INVALID_ARGUMENT", "RANGE_REVERSED"),
        ),
    ],
)
def test_bad_questions_have_reasons_through_the_control_process(channel, flight, fields, expected):
    with pytest.raises(RpcError) as caught:
        rpc.QueryServiceStub(channel).PlanQuery(asked(**fields))
    assert reason_of(caught.value) == expected
    descriptor = fl.FlightDescriptor.for_command(asked(**fields).SerializeToString())
    assert flight_reason(flight.get_flight_info, descriptor) == expected[1]
    assert rows(channel, flight, limit=2)[0] == [1, 2]  # the servers are unharmed


@pytest.mark.parametrize("ticket", [b"", b"garbage", b"\x0a\xff", b"x" * 200_000])
def test_garbage_tickets_have_a_reason(flight, ticket):
    assert flight_reason(lambda: flight.do_get(fl.Ticket(ticket)).read_all()) == "BAD_TICKET"


def flight_reason(call, *args):
    with pytest.raises((fl.FlightError, pa.ArrowException)) as caught:
        call(*args)
    assert "Traceback" not in str(caught.value)
    status = status_pb2.Status.FromString(caught.value.extra_info)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


def test_heartbeats_tell_level_and_components(servers, channel):
    platform = platform_rpc.PlatformServiceStub(channel)

    def components():
        status = platform.GetStatus(platform_pb.GetStatusRequest())
        found = {each.name: each for each in status.components}
        wanted = ("broker", "control", "lake", "query", "registry")
        return found if all(found[one].state == 2 for one in wanted) else None

    found = eventually(components)
    assert found["query"].addresses == servers["query"]
    assert int(found["query"].counters["tail_records"]) > 0
    stub = degradation_service_pb2_grpc.DegradationServiceStub(channel)
    level = stub.GetDegradation(degradation_service_pb2.GetDegradationRequest()).degradation
    query = next(each for each in level.processes if each.process == "query")
    signals = {each.signal for each in query.pressures}
    of_queries = {"tail_bytes", "queries_running", "queries_queued", "oldest_work_s"}
    assert signals >= {"rss_bytes", "disk_free_bytes"} | of_queries


def test_integrity_is_verified_over_the_wire(channel):
    stub = platform_rpc.PlatformServiceStub(channel)
    events = list(stub.VerifyIntegrity(platform_pb.VerifyIntegrityRequest(), timeout=100))
    assert events[-1].WhichOneof("event") == "result"
    assert events[-1].result.ok, events[-1].result.report_json
