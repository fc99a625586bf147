"""QueryService: forwarding passes deadline, metadata and errors on unchanged."""

import threading

import grpc
import pytest

from k2.clock import SystemClock
from k2.degrade.level import Level
from k2.degrade.platform import Levels
from k2.errors import NotFound, Reason
from k2.query.admission import Admission
from k2.query.gate import QueryGate
from k2.query.request import RequestClass
from k2.v1 import query_service_pb2 as pb
from k2.v1 import query_service_pb2_grpc as rpc
from servers.services import query_service
from servers.services.query_service import ForwardedQueryService
from tests.fakes.wire import reason_of, served


class Peer(rpc.QueryServiceServicer):
    """A query server that answers as told and remembers how it was asked."""

    def __init__(self, error=None):
        self.error = error
        self.remaining_s = None
        self.metadata = {}

    def PlanQuery(self, request, context):
        self.remaining_s = context.time_remaining()
        self.metadata = dict(context.invocation_metadata())
        if self.error:
            raise self.error
        return pb.PlanQueryResponse(arrow_schema=request.trades.symbols[0].encode())

    def register(self, server):
        rpc.add_QueryServiceServicer_to_server(self, server)


ASKED = pb.PlanQueryRequest(trades=pb.TradesRequest(symbols=["BTCUSDT"]))


def forwarding(address, levels=None, places=4):
    gate = QueryGate(lambda: levels or Levels(), SystemClock(), dwell_s=3.0)
    admission = Admission(dict.fromkeys(RequestClass, places))
    return ForwardedQueryService(address=address, gate=gate, admission=admission)


def forwarded(peer, **more):
    with served((query_service.NAME, peer.register)) as (listener, _):
        front = forwarding(lambda: listener.address)
        with served((query_service.NAME, front.register)) as (_, channel):
            try:
                return rpc.QueryServiceStub(channel).PlanQuery(ASKED, **more)
            finally:
                front.close()


def test_an_answer_comes_back_and_the_deadline_goes_on():
    peer = Peer()
    metadata = (("traceparent", "00-1-2-01"), ("k2-class", "batch"), ("x-other", "no"))
    assert forwarded(peer, timeout=7, metadata=metadata).arrow_schema == b"BTCUSDT"
    assert 0 < peer.remaining_s < 7.1
    assert peer.metadata["traceparent"] == "00-1-2-01"
    assert peer.metadata["k2-class"] == "batch"
    assert "x-other" not in peer.metadata


def test_the_peers_error_comes_back_unchanged():
    error = NotFound(Reason.UNKNOWN_SYMBOL, "no BTCUSDT", metadata={"symbol": "BTCUSDT"})
    with pytest.raises(grpc.RpcError) as caught:
        forwarded(Peer(error))
    assert reason_of(caught.value) == ("NOT_FOUND", "UNKNOWN_SYMBOL")
    assert caught.value.details() == "no BTCUSDT"


@pytest.mark.parametrize("address", ["", "127.0.0.1:1"])
def test_a_peer_that_is_away_is_named(address):
    front = forwarding(lambda: address)
    with served((query_service.NAME, front.register)) as (_, channel):
        with pytest.raises(grpc.RpcError) as caught:
            rpc.QueryServiceStub(channel).PlanQuery(ASKED)
        front.close()
    assert reason_of(caught.value) == ("UNAVAILABLE", "PEER_UNAVAILABLE")


def test_a_caller_keeps_its_name_on_the_way_and_an_unnamed_one_gets_its_connection():
    peer = Peer()
    forwarded(peer, metadata=(("k2-client-id", "me"),))
    assert peer.metadata["k2-client-id"] == "me"
    forwarded(peer)
    assert peer.metadata["k2-client-id"].startswith("ipv4:127.0.0.1:")


def test_a_level_that_answers_no_query_is_obeyed_before_the_peer_is_asked():
    front = forwarding(lambda: pytest.fail("asked"), Levels(platform=Level.CIRCUIT_BREAK))
    with served((query_service.NAME, front.register)) as (_, channel):
        stub = rpc.QueryServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.PlanQuery(ASKED)
    assert reason_of(caught.value) == ("RESOURCE_EXHAUSTED", "SHED")


def test_so_many_calls_are_forwarded_that_others_find_a_worker():
    asked, released = threading.Event(), threading.Event()

    def address():
        asked.set()
        assert released.wait(20)
        return ""

    front = forwarding(address, places=1)
    with served((query_service.NAME, front.register)) as (_, channel):
        stub = rpc.QueryServiceStub(channel)
        first = stub.PlanQuery.future(ASKED)
        assert asked.wait(20)
        with pytest.raises(grpc.RpcError) as caught:
            stub.PlanQuery(ASKED)
        released.set()
        assert first.exception() is not None
    assert reason_of(caught.value) == ("RESOURCE_EXHAUSTED", "TOO_MANY_QUERIES")
