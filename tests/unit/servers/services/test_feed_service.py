"""FeedService over a real socket, on heartbeats in memory."""

import threading

import grpc
import pytest

from k2 import limits
from k2.clock import ManualClock, SystemClock
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapEvent, GapState
from k2.tape import topics
from k2.v1 import feed_service_pb2 as pb
from k2.v1 import feed_service_pb2_grpc as rpc
from k2.v1 import market_pb2
from servers.heartbeat import Heartbeats
from servers.services import feed_service
from servers.services.feed_service import FeedService
from servers.services.gap_queries import BackfillRequests, GapView
from tests.fakes.tape import FakeTape
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
def tape():
    return FakeTape()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def stub(board, tape, clock):
    draining = threading.Event()
    service = FeedService(
        heartbeats=Heartbeats(board, clock, patience_s=0),
        gaps=GapView(tape.gap_log()),
        desk=BackfillRequests(tape.board(topics.BACKFILLS), SystemClock()),
        draining=draining,
    )
    with served((feed_service.NAME, service.register)) as (_, channel):
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


def test_a_feed_not_heard_of_is_not_connected(stub, clock):
    clock.advance(limits.HEARTBEAT_STALE_S + 1)
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


AT_US = 1_760_000_000_000_000
BTC, ETH = Instrument("BINANCE", "BTCUSDT"), Instrument("BINANCE", "ETHUSDT")


def gap(first, last, instrument=BTC, state=GapState.OPEN):
    settled = {
        GapState.OPEN: {},
        GapState.FILLED: {"filled_at_us": AT_US + 5},
        GapState.UNFILLABLE: {"reason": "never printed"},
        GapState.VOID: {},
    }[state]
    return GapEvent(
        instrument, first, last, AT_US, Cause.DISCONNECT, state, AT_US + 1, "feed", **settled
    )


def spans(answer):
    return [(each.symbol, each.first_trade_id, each.last_trade_id) for each in answer.gaps]


def test_the_ledger_is_listed_as_it_stands(stub, tape):
    tape.gaps += [gap(10, 19), gap(1, 5, ETH), gap(12, 13, state=GapState.FILLED)]
    answer = stub.ListGaps(pb.ListGapsRequest())
    assert spans(answer) == [
        ("BTCUSDT", 10, 11), ("BTCUSDT", 12, 13), ("BTCUSDT", 14, 19), ("ETHUSDT", 1, 5),
    ]  # fmt: skip
    assert answer.open_trade_ids == 13
    filled = answer.gaps[1]
    assert (filled.state, filled.cause) == (pb.GAP_STATE_FILLED, pb.GAP_CAUSE_DISCONNECT)
    assert filled.fill_time.ToMicroseconds() == AT_US + 5
    assert not answer.gaps[0].HasField("fill_time")
    tape.gaps.append(gap(1, 100, state=GapState.UNFILLABLE))
    (one,) = stub.ListGaps(pb.ListGapsRequest(symbol="BTCUSDT")).gaps
    assert (one.first_trade_id, one.last_trade_id, one.reason) == (1, 100, "never printed")
    tape.gaps.append(gap(7, 7, state=GapState.VOID))
    (void,) = stub.ListGaps(pb.ListGapsRequest(state=pb.GAP_STATE_VOID)).gaps
    assert (void.first_trade_id, void.last_trade_id) == (7, 7)


def test_the_ledger_is_filtered_and_paged(stub, tape):
    tape.gaps += [gap(at, at) for at in range(8, 13, 2)] + [gap(2, 2, state=GapState.FILLED)]
    opened = stub.ListGaps(pb.ListGapsRequest(state=pb.GAP_STATE_OPEN, page_size=2))
    assert spans(opened) == [("BTCUSDT", 8, 8), ("BTCUSDT", 10, 10)], "by number, not by text"
    assert opened.open_trade_ids == 3
    rest = stub.ListGaps(
        pb.ListGapsRequest(state=pb.GAP_STATE_OPEN, page_token=opened.next_page_token)
    )
    assert spans(rest) == [("BTCUSDT", 12, 12)]
    assert not stub.ListGaps(pb.ListGapsRequest(exchange="OTHER")).gaps
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListGaps(pb.ListGapsRequest(state=99))
    assert reason_of(caught.value) == ("INVALID_ARGUMENT", "BAD_REQUEST")


def test_a_tape_that_is_away_is_said(stub, tape):
    tape.away = True
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListGaps(pb.ListGapsRequest())
    assert reason_of(caught.value) == ("UNAVAILABLE", "TAPE_UNAVAILABLE")


def asking(first, last, symbol="BTCUSDT", exchange=""):
    return pb.BackfillRequest(
        exchange=exchange, symbol=symbol, first_trade_id=first, last_trade_id=last
    )


def test_a_request_waits_on_the_board_and_says_what_it_takes(stub, board, tape):
    backfill = {
        "eta_s": 7.5, "weight_per_minute": 100, "weight_per_request": 25, "ids_per_request": 1000
    }  # fmt: skip
    board.put("feed", beat("feed", counters=COUNTERS | {"backfill": backfill}))
    answer = stub.Backfill(asking(1, 8000))
    assert (answer.exchange, answer.first_trade_id, answer.last_trade_id) == ("BINANCE", 1, 8000)
    assert (answer.requests, answer.eta.ToMilliseconds()) == (8, 127_500)
    stub.Backfill(asking(1, 8000))
    (document,) = tape.board(topics.BACKFILLS).current().values()
    assert (document["symbol"], document["first_id"], document["last_id"]) == ("BTCUSDT", 1, 8000)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (asking(1, 2, ""), ("INVALID_ARGUMENT", "BAD_REQUEST")),
        (asking(1, 2, "NOSUCH"), ("NOT_FOUND", "UNKNOWN_SYMBOL")),
        (asking(1, 2, exchange="OTHER"), ("NOT_FOUND", "UNKNOWN_SYMBOL")),
        (asking(5, 2), ("INVALID_ARGUMENT", "RANGE_REVERSED")),
        (asking(1, 10_000_001), ("INVALID_ARGUMENT", "LIMIT_OUT_OF_BOUNDS")),
        (asking(2**60, 2**60 + 1), ("INVALID_ARGUMENT", "BAD_REQUEST")),
    ],
)
def test_what_cannot_be_fetched_is_refused(stub, tape, asked, expected):
    with pytest.raises(grpc.RpcError) as caught:
        stub.Backfill(asked)
    assert reason_of(caught.value) == expected
    assert not tape.board(topics.BACKFILLS).current()


def test_two_exchanges_with_one_symbol_must_be_told_apart(stub, board):
    board.put("feed-b", beat("feed-b", counters=COUNTERS | {"exchange": "BINANCE_UM"}))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Backfill(asking(1, 2))
    assert reason_of(caught.value) == ("INVALID_ARGUMENT", "BAD_REQUEST")
    assert stub.Backfill(asking(1, 2, exchange="BINANCE_UM")).exchange == "BINANCE_UM"


def test_waiting_requests_are_bounded(stub, tape):
    requests = tape.board(topics.BACKFILLS)
    for at in range(1000):
        requests.put(str(at), {})
    with pytest.raises(grpc.RpcError) as caught:
        stub.Backfill(asking(1, 2))
    assert reason_of(caught.value) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
