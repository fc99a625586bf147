"""QueryService: forwarding passes deadline, metadata and errors on unchanged."""

import grpc
import pytest

from k2.errors import NotFound, Reason
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


def forwarded(peer, **more):
    with served((query_service.NAME, peer.register)) as (listener, _):
        front = ForwardedQueryService(address=lambda: listener.address)
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
    front = ForwardedQueryService(address=lambda: address)
    with served((query_service.NAME, front.register)) as (_, channel):
        with pytest.raises(grpc.RpcError) as caught:
            rpc.QueryServiceStub(channel).PlanQuery(ASKED)
        front.close()
    assert reason_of(caught.value) == ("UNAVAILABLE", "PEER_UNAVAILABLE")
