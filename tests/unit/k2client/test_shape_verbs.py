"""The verbs of a client send their messages, with the options of trades."""

import pytest

import k2client
from k2.v1 import query_service_pb2 as pb
from tests.fakes.k2_server import K2Server

VERBS = ("bars", "vwap", "twap", "latest")


@pytest.fixture(scope="module")
def server():
    with K2Server() as running:
        running.shapes = dict.fromkeys(VERBS, running.rows)
        yield running


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_asks_for_its_shape_and_answers_like_trades(server, verb):
    with k2client.connect(server.address) as k2:
        answer = getattr(k2, verb)("BTCUSDT", limit=3, order="desc", columns=["trade_id"])
        assert answer.to_arrow().column("trade_id").to_pylist() == [10, 9, 8]
        assert answer.provenance.token
    message = server.requests[-1]
    assert message.WhichOneof("query") == verb
    of = getattr(message, verb).of
    assert (list(of.symbols), of.limit, of.order) == (["BTCUSDT"], 3, pb.ORDER_DESC)


def test_bars_send_their_options(server):
    with k2client.connect(server.address) as k2:
        k2.bars("BTCUSDT", every="1h", fill="null", tz="Asia/Tokyo", last="2h")
    bars = server.requests[-1].bars
    assert (bars.every, bars.fill, bars.time_zone) == ("1h", pb.FILL_NULL, "Asia/Tokyo")
    assert bars.of.last.seconds == 7200


def test_the_newest_of_all_need_no_symbol(server):
    with k2client.connect(server.address) as k2:
        k2.latest()
    assert list(server.requests[-1].latest.of.symbols) == []
