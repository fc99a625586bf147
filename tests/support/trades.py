"""Makes batches of trades for tests, from the few values a test cares about."""

import numpy as np

from k2.market.events import Fault, Label, TradeColumns

NOW_US = 1_700_000_000_000_000


def label(symbol="BTCUSDT", exchange="BINANCE", source="simulated"):
    return Label(exchange, symbol, symbol.removesuffix("USDT"), "USDT", "crypto", source)


def price_of(trade_id):
    """What a varied trade costs, in units of 1e-8."""
    return 100 + trade_id * 7919 % 1000


def quantity_of(trade_id):
    """How much of it a varied trade has, in units of 1e-8."""
    return 1 + trade_id * 31 % 50


def is_buy(trade_id):
    """Whether the aggressor of a varied trade bought."""
    return trade_id % 3 > 0


def columns(ids, *, symbols=None, times=None, faults=None, first_offset=0, varied=False):
    """A batch with these trade ids, one record each, at consecutive offsets.

    `symbols` is one symbol or one per record; `times` are event times in microseconds. Prices,
    quantities and sides are all the same, or `varied`: by trade id.
    """
    count = len(ids)
    per_row = symbols if isinstance(symbols, list) else [symbols or "BTCUSDT"] * count
    labels = tuple(label(symbol) for symbol in dict.fromkeys(per_row))
    codes = {one.symbol: code for code, one in enumerate(labels)}
    event_time = np.array(times if times is not None else [NOW_US] * count, dtype=np.int64)
    quantity = np.zeros((count, 2), dtype=np.int64)
    quantity[:, 0] = [quantity_of(one) for one in ids] if varied else 5
    return TradeColumns(
        offset=np.arange(first_offset, first_offset + count, dtype=np.int64),
        labels=labels,
        label=np.array([codes[symbol] for symbol in per_row], dtype=np.int32),
        trade_id=np.array(ids, dtype=np.int64),
        event_time=event_time,
        receive_time=event_time + 1000,
        price=np.array([price_of(one) if varied else 100 for one in ids], dtype=np.int64),
        quantity=quantity,
        side=np.array([varied and not is_buy(one) for one in ids], dtype=np.uint8),
        vendor_data=None,
        fault=np.array(faults if faults is not None else [Fault.NONE] * count, dtype=np.uint8),
    )
