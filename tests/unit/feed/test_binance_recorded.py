"""What Binance really sent, recorded: every trade decodes exactly, every other frame is survived.

The recordings lie beside the repository, not in it; a test says which one is absent.
"""

import collections
import json
from decimal import Decimal
from pathlib import Path

import pytest

from k2.feed.recording import read_frames
from k2.feed.venues.binance import BinanceSource
from k2.feed.venues.source import Malformed, Skipped
from k2.market.sequence import Sequence

DATA = Path(__file__).parents[4] / "shared" / "data"
NOW_US = 1_760_000_000_000_000


def recording(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"real recording absent: {path}")
    return path


@pytest.mark.parametrize(
    ("name", "symbol", "exchange", "count"),
    [
        ("binance_trade_btcusdt_2021-01-08.jsonl", "BTCUSDT", "BINANCE", 2001),
        ("binance_trade_ethusdt_2023-02-02.jsonl", "ETHUSDT", "BINANCE_UM", 1000),
    ],
)
def test_every_recorded_trade_decodes_exactly(name, symbol, exchange, count):
    source = BinanceSource(url="ws://x", exchange=exchange, symbols=[symbol], source="recorded")
    sequence = Sequence()
    lines = recording(name).read_text().splitlines()
    for line in lines:
        sent = json.loads(line, parse_float=Decimal)["data"]
        (trade,) = source.decode(line.encode(), NOW_US)
        assert (trade.label.exchange, trade.label.symbol) == (exchange, sent["s"])
        assert trade.trade_id == sent["t"]
        assert Decimal(trade.price).scaleb(-8) == Decimal(sent["p"])
        assert Decimal(trade.quantity).scaleb(-8) == Decimal(sent["q"])
        assert trade.event_time_us == sent["T"] * 1000
        assert trade.side == int(sent["m"])
        assert trade.vendor_data == {}
        sequence.observe(trade.trade_id)
    assert len(lines) == sequence.counts.seen == count
    assert sequence.gaps == ()


@pytest.mark.parametrize(
    "name",
    [
        "binance_ws_mixed_2021-10.jsonl.zst",
        "coinbase_ws_2026-08.jsonl.zst",
        "kraken_ws_v1_2021-04.jsonl.zst",
    ],
)
def test_a_raw_session_is_survived_and_nothing_in_it_becomes_a_trade(name):
    source = BinanceSource(url="ws://x", exchange="BINANCE", symbols=["NKNUSDT"], source="recorded")
    answers = collections.Counter()
    for frame in read_frames(recording(name)):
        decoded = source.decode(frame.text.encode(), NOW_US)
        assert isinstance(decoded, Skipped | Malformed)
        answers[decoded.kind if isinstance(decoded, Skipped) else "malformed"] += 1
    assert answers.total() > 100
    if name.startswith("binance"):
        assert answers["malformed"] == 0
        assert set(answers) == {"aggTrade", "depthUpdate", "kline", "other"}
