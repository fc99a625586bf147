import json

import pytest

from k2.clock import ManualClock
from k2.errors import Invalid, NotFound, Reason, Unavailable
from k2.feed.venues.binance_history import BinanceHistory, rest_url
from k2.feed.venues.history import RateLimited, Reply
from k2.feed.venues.rate_limit import WeightBudget
from k2.market.events import Fault
from k2.market.instrument import Instrument

BTC = Instrument("BINANCE", "BTCUSDT")
NOW_US = 1_760_000_000_000_000


def row(trade_id, **changes):
    return {
        "id": trade_id, "price": "100.50000000", "qty": "0.00000001", "quoteQty": "1",
        "time": NOW_US - 5, "isBuyerMaker": True, "isBestMatch": True,
    } | changes  # fmt: skip


class Venue:
    def __init__(self, *replies):
        self.replies = list(replies)
        self.asked = []
        self.clock = ManualClock(NOW_US)
        self.budget = WeightBudget()
        self.history = BinanceHistory("http://venue/", self._get, self.budget, self.clock)

    def _get(self, url, headers):
        assert headers == {"X-MBX-TIME-UNIT": "MICROSECOND"}
        self.asked.append(url)
        return self.replies.pop(0)


def told(body, status=200, **headers):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, {name.replace("_", "-"): text for name, text in headers.items()}, body)


def test_an_answer_becomes_trades_with_exact_numbers():
    venue = Venue(told([row(7), row(9, isBuyerMaker=False, time=NOW_US // 1000 - 1)]))
    answer = venue.history.trades(BTC, 7, 3)
    assert venue.asked == ["http://venue/api/v3/historicalTrades?symbol=BTCUSDT&fromId=7&limit=3"]
    first, second = answer.trades
    assert (first.trade_id, first.price, first.quantity, first.side) == (7, 10_050_000_000, 1, 1)
    assert (first.event_time_us, first.receive_time_us) == (NOW_US - 5, NOW_US)
    assert first.label == ("BINANCE", "BTCUSDT", "BTC", "USDT", "crypto", "backfill")
    assert (second.side, second.event_time_us) == (0, NOW_US - 1000)
    assert (answer.newest_id, answer.malformed) == (9, {})
    assert venue.budget.spent == 25


def test_ids_beyond_what_was_asked_for_only_say_how_far_the_venue_is():
    answer = Venue(told([row(8), row(500)])).history.trades(BTC, 7, 3)
    assert [trade.trade_id for trade in answer.trades] == [8]
    assert answer.newest_id == 500


def test_the_newest_is_asked_for_without_an_id():
    venue = Venue(told([row(70)]), told([]))
    assert venue.history.newest(BTC).newest_id == 70
    assert venue.asked == ["http://venue/api/v3/historicalTrades?symbol=BTCUSDT&limit=1"]
    assert venue.history.newest(BTC).newest_id is None


def test_a_trade_that_cannot_be_stored_is_told_apart():
    answer = Venue(told([row(1), row(2, price="NaN"), row(3, qty="-1")])).history.trades(BTC, 1, 3)
    assert [trade.trade_id for trade in answer.trades] == [1]
    assert answer.malformed[2].fault is Fault.BAD_VALUE
    assert set(answer.malformed) == {2, 3}


def test_an_id_without_a_trade_is_told_apart():
    answer = Venue(told([row(1), row(2, price="0", qty="0.0")])).history.trades(BTC, 1, 3)
    assert [trade.trade_id for trade in answer.trades] == [1]
    assert (answer.void, answer.malformed, answer.newest_id) == ({2}, {}, 2)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[1]", b"\xff", b"[" * 100_000, {"code": 0}, [row("7")],
        [row(7, price=1.5)],
        [row(9), row(8)], [row(8), row(8)], [row(6)], [row(7), row(8), row(9), row(10)],
        [row(2**63)], [row(-1)], [{"id": 7}], b" " * (5 << 20),
    ],
)  # fmt: skip
def test_what_cannot_be_believed_is_no_answer(body):
    with pytest.raises(Unavailable) as caught:
        Venue(told(body)).history.trades(BTC, 7, 3)
    assert caught.value.reason is Reason.VENUE_UNAVAILABLE
    assert not isinstance(caught.value, RateLimited)
    assert len(caught.value.message) < 1000


def test_two_newest_trades_are_one_too_many():
    with pytest.raises(Unavailable):
        Venue(told([row(1), row(2)])).history.newest(BTC)


@pytest.mark.parametrize("status", [418, 429])
@pytest.mark.parametrize(("header", "seconds"), [("33", 33), ("soon", 60), ("-4", 60), (None, 60)])
def test_a_venue_that_says_later_blocks_the_budget(status, header, seconds):
    venue = Venue(told({"code": -1003}, status, **({"retry_after": header} if header else {})))
    with pytest.raises(RateLimited) as caught:
        venue.history.trades(BTC, 1, 1)
    assert caught.value.retry_after_s == seconds
    assert venue.budget.wait_s(25, NOW_US) == seconds


def test_what_the_address_has_used_is_believed_as_a_number_only():
    venue = Venue(told([], x_mbx_used_weight_1m="900"), told([], x_mbx_used_weight_1m="9" * 99))
    venue.history.trades(BTC, 1, 1)
    venue.history.trades(BTC, 1, 1)
    assert venue.budget.used(NOW_US) == 925


def test_an_unknown_symbol_is_said_so():
    venue = Venue(told({"code": -1121, "msg": "Invalid symbol."}, 400))
    with pytest.raises(NotFound) as caught:
        venue.history.trades(BTC, 1, 1)
    assert caught.value.reason is Reason.UNKNOWN_SYMBOL


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 451, 500, 502, 503])
@pytest.mark.parametrize("body", [b"<html>", {"code": -2014, "msg": "x" * 10_000}])
def test_any_other_status_is_asked_again_later(status, body):
    with pytest.raises(Unavailable) as caught:
        Venue(told(body, status)).history.trades(BTC, 1, 1)
    assert caught.value.message.startswith(f"the venue answers {status}")
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("venue_url", "expected"),
    [
        ("wss://stream.binance.com:9443", "https://api.binance.com"),
        ("wss://data-stream.binance.vision", "https://data-api.binance.vision"),
        ("ws://127.0.0.1:5555/", "http://127.0.0.1:5555"),
        ("wss://example.org:1", "https://example.org:1"),
    ],
)
def test_a_rest_base_goes_with_each_venue(venue_url, expected):
    assert rest_url(venue_url) == expected


def test_an_address_of_no_websocket_has_none():
    with pytest.raises(Invalid):
        rest_url("http://x")
