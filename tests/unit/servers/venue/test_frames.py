import json

import numpy as np
import pytest

from servers.venue.frames import Form, framed, render
from servers.venue.market.instruments import LISTED
from servers.venue.market.synthetic_market import Market, SyntheticTrades, opened
from tests.fakes.venue import unframed

NOW = 1_795_000_000_000_000
FORMS = [
    Form(combined, microseconds) for combined in (True, False) for microseconds in (True, False)
]


def trades(symbol="BTCUSDT", rows=()):
    columns = list(zip(*rows, strict=True)) or [()] * 5
    ids, times, prices, quantities = (np.array(column, np.int64) for column in columns[:4])
    return SyntheticTrades(symbol, ids, times, prices, quantities, np.array(columns[4], bool))


def expected(symbol, row, form):
    """A frame as Binance writes it, the plain way."""
    trade_id, time, price, quantity, sells = row
    shown = time if form.microseconds else time // 1000
    event = (
        f'{{"e":"trade","E":{shown},"s":"{symbol}","t":{trade_id},'
        f'"p":"{price // 10**8}.{price % 10**8:08d}","q":"{quantity // 10**8}.'
        f'{quantity % 10**8:08d}","T":{shown},"m":{"true" if sells else "false"},"M":true}}'
    )
    return f'{{"stream":"{symbol.lower()}@trade","data":{event}}}' if form.combined else event


EDGES = [
    (0, 0, 0, 0, True),
    (1, 999, 1, 1, False),
    (9, 1000, 99_999_999, 100_000_000, True),
    (10, 9_999_999, 1_000_000_000, 999_999_999_999, False),
    (9_999, 10_000_000, 10_000 * 10**8, 9_999 * 10**8 + 9_999, True),
    (10_000, 99_999_999_999, 10_001 * 10**8 + 10_000, 100_000_000 * 10**8, False),
    (99_999_999, NOW, 123_456_789_012 * 10**6, 92_233_720_368 * 10**8, True),
    (100_000_000, NOW + 1, 6_400_000_000_000, 5, False),
    (9_999_999_999_999_999, NOW + 2, 2400, 10**18 - 1, True),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "symbol", ["BTCUSDT", "AB", "AVERYLONGSYMBOLUSDTX", "A_250328", "币安人生USDT"]
)
def test_frames_are_what_binance_writes(form, symbol):
    batch = render([trades(symbol, EDGES)], form)
    assert unframed(batch.data) == [expected(symbol, row, form) for row in EDGES]
    assert batch.data == b"".join(framed(expected(symbol, row, form)) for row in EDGES)


@pytest.mark.parametrize("form", FORMS)
def test_ends_are_where_frames_end(form):
    batch = render([trades("BTCUSDT", EDGES)], form)
    starts = [0, *batch.ends[:-1].tolist()]
    for start, end, row in zip(starts, batch.ends.tolist(), EDGES, strict=True):
        assert batch.data[start:end] == framed(expected("BTCUSDT", row, form))


def test_symbols_are_merged_by_time_each_in_its_order():
    one = trades("BTCUSDT", [(1, 10_000, 1, 1, True), (2, 30_000, 1, 1, True)])
    other = trades("SHIBUSDT", [(7, 10_000, 2, 2, False), (8, 20_000, 2, 2, False)])
    events = [json.loads(text) for text in unframed(render([one, other], Form(False, True)).data)]
    assert [(event["s"], event["t"]) for event in events] == [
        ("BTCUSDT", 1), ("SHIBUSDT", 7), ("SHIBUSDT", 8), ("BTCUSDT", 2),
    ]  # fmt: skip
    assert render([one, other], Form(True, True)).time_us.tolist() == [
        10_000,
        10_000,
        20_000,
        30_000,
    ]


@pytest.mark.parametrize("parts", [[], [trades()], [trades(), trades("ETHUSDT")]])
def test_nothing_makes_no_frames(parts):
    batch = render(parts, Form(True, True))
    assert (batch.data, len(batch.ends), len(batch.time_us)) == (b"", 0, 0)


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_market_is_rendered_exactly(form):
    symbols = (*LISTED, "WIFUSDT")
    market = Market(7, opened(symbols, 2000.0))
    parts = [market.between(symbol, NOW, NOW + 1_000_000) for symbol in symbols]
    rows = {
        (part.symbol, row[0]): row
        for part in parts
        for row in zip(
            part.id.tolist(), part.time_us.tolist(), part.price.tolist(),
            part.quantity.tolist(), part.buyer_is_maker.tolist(), strict=True,
        )
    }  # fmt: skip
    batch = render(parts, form)
    texts = unframed(batch.data)
    assert len(texts) == len(rows) == len(batch.ends)
    assert batch.ends[-1] == len(batch.data)
    for text in texts:
        event = json.loads(text)
        event = event["data"] if form.combined else event
        assert text == expected(event["s"], rows[event["s"], event["t"]], form)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_message_of_any_size_is_framed(size):
    assert unframed(framed("x" * size)) == ["x" * size]
    assert unframed(framed(b"y" * size)) == ["y" * size]
