"""What a filler relies on of a venue's past: the fake, and Binance's before the practice venue."""

import asyncio
from urllib.parse import urlsplit

import pytest

from k2.clock import ManualClock
from k2.errors import NotFound, Reason
from k2.feed.venues.binance_history import BinanceHistory
from k2.feed.venues.history import Reply
from k2.feed.venues.rate_limit import WeightBudget
from k2.market.instrument import Instrument
from servers.venue.archive import PastTrade, PriceSteps
from servers.venue.hub import Hub
from servers.venue.rest import Rest
from tests.support.fill_world import BTC, FakeHistory

IDS = [*range(10, 20), *range(25, 2000)]
NOW_US = 1_760_000_000_000_000


class Archive:
    """The past of a venue with a hole."""

    def symbols(self):
        return {"BTCUSDT": PriceSteps("0.01", "0.00001")}

    def trades(self, symbol, from_id, limit):
        if symbol != "BTCUSDT":
            raise NotFound(Reason.UNKNOWN_SYMBOL, symbol)
        known = [each for each in IDS if from_id is None or each >= from_id]
        known = known[-limit:] if from_id is None else known[:limit]
        return [PastTrade(each, "1.50000000", "2.00000000", NOW_US, True) for each in known]


def binance(clock, budget):
    rest = Rest(
        archive=Archive(), hub=Hub(), clock=clock, status=dict, shut_down=lambda lead_s: None
    )

    def get(url, headers):
        parts = urlsplit(url)
        answer = asyncio.run(rest.answer(f"{parts.path}?{parts.query}", headers, "here"))
        told = {name.lower(): value for name, value in answer.headers.items()}
        return Reply(answer.status.value, told, answer.body.encode())

    return BinanceHistory("http://venue", get, budget, clock)


@pytest.fixture(params=["fake", "binance"])
def world(request):
    clock, budget = ManualClock(NOW_US), WeightBudget()
    if request.param == "fake":
        return FakeHistory({BTC: IDS}, clock, budget), budget
    return binance(clock, budget), budget


def ids(answer):
    return [trade.trade_id for trade in answer.trades]


def test_ids_from_one_on_no_further_than_asked_for(world):
    history, budget = world
    answer = history.trades(BTC, 12, 3)
    assert (ids(answer), answer.newest_id) == ([12, 13, 14], 14)
    assert {trade.label.source for trade in answer.trades} == {"backfill"}
    assert budget.spent == history.weight


def test_a_hole_is_seen_by_the_later_ids_that_are_named(world):
    history, _ = world
    answer = history.trades(BTC, 18, 9)
    assert ids(answer) == [18, 19, 25, 26]
    assert answer.newest_id >= 26
    assert not answer.malformed
    nothing = history.trades(BTC, 20, 3)
    assert ids(nothing) == []
    assert nothing.newest_id >= 25


def test_beyond_the_newest_there_is_nothing(world):
    history, _ = world
    answer = history.trades(BTC, 5000, 10)
    assert (ids(answer), answer.newest_id) == ([], None)
    assert history.newest(BTC).newest_id == IDS[-1]


def test_a_page_is_not_larger_than_said(world):
    history, _ = world
    assert len(history.trades(BTC, 100, history.page_max).trades) == history.page_max


def test_an_unknown_symbol_is_named(world):
    history, _ = world
    with pytest.raises(NotFound) as caught:
        history.trades(Instrument("BINANCE", "NOSUCH"), 1, 1)
    assert caught.value.reason is Reason.UNKNOWN_SYMBOL
