"""FeedService over a real socket, on heartbeats in memory."""

import threading

import grpc
import pytest

from k2.clock import SystemClock
from k2.v1 import feed_service_pb2 as pb
from k2.v1 import feed_service_pb2_grpc as rpc
from k2.v1 import market_pb2
from servers import feed
from servers.feed import FeedService
from servers.heartbeat import Heartbeats
from tests.fakes.wire import MemoryBoard, beat, reason_of, served

COUNTERS = {
    "exchange": "BINANCE",
    "source": "simulated",
    "venue_url": "ws://127.0.0.1:1",
    "connected": True,
    "trades_acknowledged": 12,
    "frames_malformed": 1,
    "queue": {"depth": 3},
    "symbols": {"ETHUSDT": {}, "BTCUSDT": {"acknowledged_trade_id": 2**60, "gaps": 2}},
}


@pytest.fixture
def board():
    return MemoryBoard({"lake": beat(), "feed": beat("feed", counters=COUNTERS)})


@pytest.fixture
def stub(board):
    draining = threading.Event()
    service = FeedService(
        heartbeats=Heartbeats(board, SystemClock(), patience_s=0), draining=draining
    )
    with served((feed.NAME, service.register)) as (_, channel):
        yield rpc.FeedServiceStub(channel)
        draining.set()


def test_feeds_are_listed_with_what_they_count(stub):
    (found,) = stub.ListFeeds(pb.ListFeedsRequest()).feeds
    assert (found.name, found.exchange, found.state, found.connected) == (
        "feed", "BINANCE", "SERVING", True,
    )  # fmt: skip
    assert found.source == market_pb2.DATA_SOURCE_SIMULATED
    assert (found.trades_acknowledged, found.frames_malformed, found.reconnects) == (12, 1, 0)
    assert found.counters == {"queue.depth": "3"}
    assert [each.symbol for each in found.symbols] == ["BTCUSDT", "ETHUSDT"]
    assert (found.symbols[0].acknowledged_trade_id, found.symbols[0].gaps) == (2**60, 2)
    assert not found.symbols[1].HasField("acknowledged_trade_id")


def test_a_feed_not_heard_of_is_not_connected(stub, board):
    board.put("feed", beat("feed", at_us=1, counters=COUNTERS))
    (found,) = stub.ListFeeds(pb.ListFeedsRequest()).feeds
    assert (found.state, found.connected) == ("LOST", False)


def test_feeds_page(stub, board):
    board.put("feed-b", beat("feed-b"))
    first = stub.ListFeeds(pb.ListFeedsRequest(page_size=1))
    second = stub.ListFeeds(pb.ListFeedsRequest(page_size=1, page_token=first.next_page_token))
    assert [each.name for each in (*first.feeds, *second.feeds)] == ["feed", "feed-b"]
    assert not second.next_page_token
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListFeeds(pb.ListFeedsRequest(page_token="x"))
    assert reason_of(caught.value) == ("INVALID_ARGUMENT", "BAD_PAGE_TOKEN")


def test_a_watch_starts_with_the_current_state_and_tells_changes(stub, board):
    watch = stub.WatchFeeds(pb.WatchFeedsRequest())
    assert next(watch).feeds[0].trades_acknowledged == 12
    board.put("feed", beat("feed", counters=COUNTERS | {"trades_acknowledged": 13}))
    assert next(watch).feeds[0].trades_acknowledged == 13
