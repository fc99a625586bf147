"""The commands of shapes take the options of `k2 trades`, and write in its formats."""

from decimal import Decimal

import pyarrow as pa
import pytest

from k2.query.shapes.bars import Bars, Fill
from k2.v1 import query_service_pb2 as pb

VERBS = ("bars", "vwap", "twap", "latest")
NO_TRADE = {"volume": Decimal(0), "quote_volume": Decimal(0), "count": 0, "buy_volume": Decimal(0)}
BAR = {"bar_start": 1_600_000_000_000_000, "exchange": "B", "symbol": "X", "final": False}


@pytest.fixture
def asked(asked):
    asked.shapes = dict.fromkeys(VERBS, asked.rows)
    return asked


@pytest.mark.parametrize("verb", VERBS)
def test_a_shape_is_asked_and_written_like_trades(k2, asked, verb):
    done = k2(verb, "BTCUSDT", "--limit", 2, "--order", "desc", "--json", "--last", "1h")
    assert done.code == 0
    assert [row["trade_id"] for row in done.json] == ["10", "9"]
    assert "the same rows again" in done.stderr
    message = asked.requests[-1]
    assert message.WhichOneof("query") == verb
    assert getattr(message, verb).of.last.seconds == 3600


def test_bars_have_a_length_a_filling_and_a_zone(k2, asked):
    k2("bars", "BTCUSDT,ETHUSDT", "--every", "5m", "--fill", "prev", "--tz", "Europe/Berlin")
    bars = asked.requests[-1].bars
    assert (bars.every, bars.fill, bars.time_zone) == ("5m", pb.FILL_PREV, "Europe/Berlin")
    assert list(bars.of.symbols) == ["BTCUSDT", "ETHUSDT"]
    assert not bars.of.columns
    assert k2("bars", "BTCUSDT", "--fill", "last").code == 2
    assert k2("bars").code == 2


def test_bars_as_json_are_one_array_of_exact_texts(k2, asked):
    schema = Bars("1m", Fill.NULL).schema
    asked.shapes["bars"] = pa.Table.from_pylist([BAR | NO_TRADE], schema)
    (bar,) = k2("bars", "BTCUSDT", "--format", "json").json
    assert list(bar) == schema.names
    assert (bar["bar_start"], bar["final"]) == ("2020-09-13T12:26:40.000000Z", False)
    assert (bar["open"], bar["vwap"], bar["count"]) == (None, None, "0")
    assert (bar["volume"], bar["quote_volume"]) == ("0.00000000", "0.0000000000000000")


def test_the_newest_trades_of_all_need_no_symbol(k2, asked):
    k2("latest")
    latest = asked.requests[-1].latest
    assert not latest.of.symbols
    assert "price" in latest.of.columns  # a table shows some columns


def test_files_are_written_as_their_suffix_says(k2, asked, tmp_path):
    path = tmp_path / "bars.csv"
    assert k2("bars", "BTCUSDT", "-o", path).code == 0
    assert path.read_text().startswith("exchange,symbol,")
