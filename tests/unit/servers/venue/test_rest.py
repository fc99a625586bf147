import asyncio
import json
from http import HTTPStatus

import pytest

from k2 import limits
from k2.clock import ManualClock
from k2.errors import Overloaded, Reason
from servers.venue.archive import SyntheticArchive
from servers.venue.hub import Hub
from servers.venue.market.synthetic_market import Market, opened
from servers.venue.rest import Rest

NOW = 1_795_000_000_123_456


class FixedRate:
    trades_per_s = 100.0

    def change(self, trades_per_s, symbols=()):
        if trades_per_s > 1000:
            raise Overloaded(Reason.DISK_FULL, "the disk is full")
        self.trades_per_s = trades_per_s


class World:
    def __init__(self, rate=None):
        self.clock = ManualClock(NOW)
        self.hub = Hub()
        self.shutdowns = []
        self.rest = Rest(
            archive=SyntheticArchive(Market(7, opened(("BTCUSDT",), 100.0)), self.clock),
            hub=self.hub,
            clock=self.clock,
            status=lambda: {"sent": 3},
            shut_down=self.shutdowns.append,
            rate=rate,
        )

    def ask(self, path, headers=None, address="127.0.0.1"):
        return asyncio.run(self.rest.answer(path, headers or {}, address))

    def get(self, path, headers=None):
        answer = self.ask(path, headers)
        assert answer.status is HTTPStatus.OK, answer
        return json.loads(answer.body)


@pytest.fixture
def world():
    return World()


def test_it_is_there_and_knows_the_time(world):
    assert world.get("/api/v3/ping") == {}
    assert world.get("/api/v3/time") == {"serverTime": NOW // 1000}
    assert world.get("/api/v3/time", {"X-MBX-TIME-UNIT": "microsecond"}) == {"serverTime": NOW}
    assert world.get("/api/v3/time", {"x-Mbx-Time-unit": "MICROSECOND"}) == {"serverTime": NOW}


def test_trades_of_the_past_by_id(world):
    found = world.get("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=77&limit=3")
    assert [trade["id"] for trade in found] == [77, 78, 79]
    assert found[0]["time"] < 10**14
    micros = world.get(
        "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=77&limit=1",
        {"X-MBX-TIME-UNIT": "MICROSECOND"},
    )
    assert micros[0]["time"] // 1000 == found[0]["time"]
    assert len(world.get("/api/v3/historicalTrades?symbol=BTCUSDT")) == 500
    assert len(world.get("/api/v3/historicalTrades?symbol=BTCUSDT&limit=1000")) == 1000
    assert len(world.get("/api/v3/trades?symbol=BTCUSDT&limit=2")) == 2


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v3/historicalTrades", 400, -1102),
        ("/api/v3/historicalTrades?symbol=", 400, -1102),
        ("/api/v3/historicalTrades?symbol=NOSUCH", 400, -1121),
        ("/api/v3/historicalTrades?symbol=BTCUSDT&limit=0", 400, -1130),
        ("/api/v3/historicalTrades?symbol=BTCUSDT&limit=1001", 400, -1130),
        ("/api/v3/historicalTrades?symbol=BTCUSDT&limit=x", 400, -1100),
        ("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=-1", 400, -1100),
        ("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=" + "9" * 19, 400, -1100),
        ("/api/v3/exchangeInfo?symbol=NOSUCH", 400, -1121),
        ("/k2/faults?drip=1", 400, -1100),
        ("/k2/shutdown?lead_s=soon", 400, -1100),
        ("/nowhere", 404, -1000),
        ("", 404, -1000),
    ],
)
def test_wrong_requests_get_binances_errors(world, path, status, code):
    answer = world.ask(path)
    assert answer.status == status
    error = json.loads(answer.body)
    assert error["code"] == code
    assert error["msg"]


def test_symbols_are_shown(world):
    assert len(world.get("/api/v3/exchangeInfo")["symbols"]) >= 12
    info = world.get("/api/v3/exchangeInfo?symbol=BTCUSDT")
    assert [entry["symbol"] for entry in info["symbols"]] == ["BTCUSDT"]
    assert info["rateLimits"][0]["limit"] == limits.VENUE_WEIGHT_PER_MINUTE_MAX


def test_an_address_has_a_budget_a_minute(world):
    path = "/api/v3/historicalTrades?symbol=BTCUSDT&limit=1"
    calls = limits.VENUE_WEIGHT_PER_MINUTE_MAX // 25
    for call in range(calls):
        answer = world.ask(path)
        assert answer.status is HTTPStatus.OK
        assert answer.headers["X-MBX-USED-WEIGHT-1M"] == str(25 * (call + 1))
    refused = world.ask(path)
    assert refused.status is HTTPStatus.TOO_MANY_REQUESTS
    assert json.loads(refused.body)["code"] == -1003
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert world.ask(path, address="127.0.0.2").status is HTTPStatus.OK
    world.clock.advance(60)
    assert world.ask(path).status is HTTPStatus.OK


def test_faults_are_changed_and_shown(world):
    changed = world.get("/k2/faults?drop=0.5&disconnect=2")
    assert (changed["faults"]["drop"], changed["faults"]["disconnect"]) == (0.5, 2)
    assert world.hub.faults.drop == 0.5
    assert set(world.get("/k2/faults")["happened"].values()) == {0}
    assert world.get("/k2/faults?clear")["faults"]["drop"] == 0
    assert not world.hub.faults.any


def test_a_shutdown_can_be_asked_for(world):
    world.get("/k2/shutdown?lead_s=7")
    world.get("/k2/shutdown")
    assert world.shutdowns == [7.0, 0.0]


def test_the_status_is_that_of_the_venue(world):
    assert world.get("/k2/status") == {"sent": 3}


def test_addresses_are_forgotten_before_they_are_too_many(world):
    for number in range(1100):
        world.ask("/api/v3/ping", address=str(number))
    assert len(world.rest._weights) <= 1000


def test_the_rate_is_shown_and_changed():
    world = World(FixedRate())
    assert world.get("/k2/rate") == {"trades_per_s": 100.0}
    assert world.get("/k2/rate?trades_per_s=2.5e2") == {"trades_per_s": 250.0}
    assert world.get("/k2/rate") == {"trades_per_s": 250.0}


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("trades_per_s=", 400, "Mandatory parameter 'trades_per_s'"),
        ("rate=5", 400, "Mandatory parameter 'trades_per_s'"),
        ("trades_per_s=fast", 400, "trades_per_s is a number, not 'fast'"),
        ("trades_per_s=inf", 400, "trades_per_s is a number, not 'inf'"),
        ("trades_per_s=2000", 503, "the disk is full"),
    ],
)
def test_a_wrong_rate_is_refused_in_words(query, status, said):
    answer = World(FixedRate()).ask(f"/k2/rate?{query}")
    assert answer.status == status
    assert said in json.loads(answer.body)["msg"]


def test_a_recording_has_no_rate(world):
    answer = world.ask("/k2/rate?trades_per_s=5")
    assert (answer.status, "a recording has no rate" in answer.body) == (400, True)
