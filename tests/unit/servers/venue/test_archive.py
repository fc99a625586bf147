import json
from decimal import Decimal

import pytest

from k2.clock import ManualClock
from k2.errors import NotFound
from servers.venue.archive import (
    PastTrade,
    PriceSteps,
    RecordingArchive,
    SyntheticArchive,
    as_json,
    exchange_info,
)
from servers.venue.market.instruments import LISTED
from servers.venue.market.synthetic_market import Market, opened

NOW = 1_795_000_000_000_000
MARKET = Market(7, opened(("BTCUSDT",), 100.0))


def synthetic():
    return SyntheticArchive(Market(7, MARKET.segments), ManualClock(NOW))


def line(trade_id, symbol="BTCUSDT", **changes):
    event = {"e": "trade", "s": symbol, "t": trade_id, "p": "39432.48000000", "q": "0.00026300"}
    event |= {"T": 1610064000278, "m": True} | changes
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": event}, separators=(",", ":"))


def recorded(tmp_path, lines, played):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return RecordingArchive(path, ("BTCUSDT", "ETHUSDT"), lambda: played)


def test_the_newest_trades_are_those_printed_until_now():
    newest = MARKET.emitted("BTCUSDT", NOW)
    found = synthetic().trades("BTCUSDT", None, 20)
    assert [trade.id for trade in found] == list(range(newest - 19, newest + 1))
    assert all(trade.time_us <= NOW for trade in found)


def test_trades_from_an_id_on_are_those_of_the_market():
    found = synthetic().trades("BTCUSDT", 1000, 50)
    market = MARKET.trades("BTCUSDT", 1000, 1050)
    assert [trade.id for trade in found] == market.id.tolist()
    assert [int(Decimal(trade.price) * 10**8) for trade in found] == market.price.tolist()
    assert [int(Decimal(trade.quantity) * 10**8) for trade in found] == market.quantity.tolist()
    assert [trade.time_us for trade in found] == market.time_us.tolist()
    assert [trade.buyer_is_maker for trade in found] == market.buyer_is_maker.tolist()


def test_nothing_of_the_future_is_told():
    newest = MARKET.emitted("BTCUSDT", NOW)
    assert len(synthetic().trades("BTCUSDT", newest - 4, 1000)) == 5
    assert synthetic().trades("BTCUSDT", newest + 1, 1000) == []
    assert synthetic().trades("BTCUSDT", 10**18, 1000) == []
    assert [trade.id for trade in synthetic().trades("BTCUSDT", 0, 3)] == [1, 2]


def test_an_unknown_symbol_is_not_found(tmp_path):
    for archive in (synthetic(), recorded(tmp_path, [line(1)], 1)):
        with pytest.raises(NotFound):
            archive.trades("NOSUCH", None, 1)


def test_all_symbols_have_steps(tmp_path):
    symbols = synthetic().symbols()
    assert set(symbols) == set(LISTED)
    assert symbols["BTCUSDT"] == PriceSteps("0.01000000", "0.00001000")
    assert set(recorded(tmp_path, [line(1)], 1).symbols()) == {"BTCUSDT", "ETHUSDT"}


def test_a_recording_tells_what_was_played(tmp_path):
    lines = [line(5), line(6, "ETHUSDT"), "", '{"stream":"x@depth","data":{}}', line(7), line(8)]
    archive = recorded(tmp_path, lines, 4)
    assert [trade.id for trade in archive.trades("BTCUSDT", None, 10)] == [5, 7]
    assert [trade.id for trade in archive.trades("BTCUSDT", 6, 10)] == [7]
    assert [trade.id for trade in archive.trades("BTCUSDT", 0, 1)] == [5]
    assert [trade.id for trade in archive.trades("BTCUSDT", None, 1)] == [7]
    assert archive.trades("ETHUSDT", None, 1) == [
        PastTrade(6, "39432.48000000", "0.00026300", 1_610_064_000_278_000, True)
    ]


def test_a_recording_in_any_order_and_with_doubles_is_told_in_order(tmp_path):
    ids = [9, 3, 3, 7, 1, 8, 2, 5, 4, 6]
    archive = recorded(tmp_path, [line(trade_id) for trade_id in ids], 100)
    assert [trade.id for trade in archive.trades("BTCUSDT", None, 3)] == [7, 8, 9]
    assert [trade.id for trade in archive.trades("BTCUSDT", 4, 3)] == [4, 5, 6]


def test_odd_frames_of_a_recording_are_passed_over(tmp_path):
    single = '{"e":"trade","s":"BTCUSDT","t":4,"p":"1.0","q":"2.0","T":1610064000278000,"m":false}'
    lines = [line("x"), line(3, p=1.5), single]
    found = recorded(tmp_path, lines, 100).trades("BTCUSDT", None, 10)
    assert found == [PastTrade(4, "1.0", "2.0", 1_610_064_000_278_000, False)]


def test_a_trade_is_shown_as_binance_shows_it():
    trade = PastTrade(7, "39432.48000000", "0.50000000", 1_610_064_000_278_999, True)
    assert as_json(trade, microseconds=False) == {
        "id": 7,
        "price": "39432.48000000",
        "qty": "0.50000000",
        "quoteQty": "19716.24000000",
        "time": 1_610_064_000_278,
        "isBuyerMaker": True,
        "isBestMatch": True,
    }
    assert as_json(trade, microseconds=True)["time"] == 1_610_064_000_278_999


def test_a_symbol_is_shown_with_base_quote_and_steps():
    shown = exchange_info("BTCUSDT", PriceSteps("0.01000000", "0.00001000"))
    assert (shown["baseAsset"], shown["quoteAsset"]) == ("BTC", "USDT")
    assert {entry["filterType"] for entry in shown["filters"]} == {"PRICE_FILTER", "LOT_SIZE"}
