"""The codec against its rivals, one-trade messages of 84 bytes, one core.

pyruhvro is not a dependency; the design's facts give it 5.3 M rows/s with a map on another machine,
but one bad message fails its whole batch, and decimals make it panic.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Collection
from typing import Any

import fastavro

from k2.clock import SystemClock
from k2.market import schema
from k2.market.events import Label, Trade
from k2.market.fold import FoldState
from k2.market.instrument import Instrument
from k2.tape.acceptance import Acceptance
from k2.tape.avro.trade_codec import HEADER_BYTES, Decoder, encode_trade
from k2.tape.consumer import RawBatch
from tests.support.messages import SCHEMA, SCHEMA_ID, Schemas, raw, record

BATCH = 10_000
SYMBOLS = ("BTC", "ETH", "SOL", "DOGE")
ROUND_S = 0.8

_CLOCK = SystemClock()


def measure() -> list[tuple[str, float, str]]:
    """Rates of encoding and decoding, good and spoilt batches, beside fastavro in the same run."""
    trades = [_trade(number, {}) for number in range(BATCH)]
    messages = [encode_trade(trade, SCHEMA_ID) for trade in trades]
    vendor = [encode_trade(_trade(n, {"best": "true"}), SCHEMA_ID) for n in range(BATCH)]
    spoilt = [message[: -(n % 100 == 0) or None] for n, message in enumerate(messages)]
    decoder = Decoder(Schemas())
    parsed = fastavro.parse_schema(SCHEMA)
    fast = rate(BATCH, lambda: decoder.decode(raw(messages)))
    theirs = rate(500, lambda: [_read(message, parsed) for message in messages[:500]])
    records = [record(trade) for trade in trades[:500]]
    return [
        ("decode", fast, "records/s"),
        ("decode, one vendor entry each", _decode_rate(decoder, raw(vendor)), "records/s"),
        ("decode, 1 % truncated", _decode_rate(decoder, raw(spoilt)), "records/s"),
        ("decode, batches of 10", _decode_rate(decoder, raw(messages[:10])), "records/s"),
        *_small_batches(),
        ("decode, fastavro schemaless_reader", theirs, "records/s"),
        ("decode ÷ fastavro", fast / theirs, "x"),
        ("encode", rate(BATCH, lambda: [encode_trade(t, SCHEMA_ID) for t in trades]), "records/s"),
        (
            "encode, fastavro schemaless_writer",
            rate(500, lambda: [_write(each, parsed) for each in records]),
            "records/s",
        ),
    ]


def _small_batches() -> list[tuple[str, float, str]]:
    """What a step of the tail judges: ten records of each of seven partitions, and again."""
    batches = [
        raw([encode_trade(_of(f"S{p}{n % 2}USDT", n), SCHEMA_ID) for n in range(10)], partition=p)
        for p in range(7)
    ]
    judge = Acceptance(Decoder(Schemas()), _Homes(), _CLOCK)

    def alone() -> None:
        for batch in batches:
            judge.judge(batch, FoldState())

    def together() -> None:
        decoded = judge.decode_together(batches)
        for batch in batches:
            judge.judge(batch, FoldState(), decoded=decoded[batch.partition])

    return [
        ("judge, 7 batches of 10, one by one", rate(70, alone), "records/s"),
        ("judge, 7 batches of 10, decoded together", rate(70, together), "records/s"),
    ]


class _Homes:
    """The n-th symbol lives in the n-th partition."""

    def refresh_for(self, instruments: Collection[Instrument]) -> dict[Instrument, int]:
        return {one: int(one.symbol[1]) for one in instruments}


def rate(count: int, work: Callable[[], object]) -> float:
    """How many a second of one core: the best of several rounds, in this thread's own time."""
    work()
    best, end = 0.0, _CLOCK.monotonic_s() + ROUND_S
    while _CLOCK.monotonic_s() < end:
        begun = time.thread_time()
        work()
        best = max(best, count / (time.thread_time() - begun))
    return best


def _decode_rate(decoder: Decoder, batch: RawBatch) -> float:
    return rate(len(batch), lambda: decoder.decode(batch))


def _of(symbol: str, number: int) -> Trade:
    label = Label("BINANCE", symbol, symbol.removesuffix("USDT"), "USDT", "crypto", "simulated")
    return _trade(number, {})._replace(label=label)


def _trade(number: int, vendor_data: dict[str, str]) -> Trade:
    base = SYMBOLS[number % len(SYMBOLS)]
    return Trade(
        Label("BINANCE", f"{base}USDT", base, "USDT", "crypto", "simulated"),
        3_000_000_000 + number,
        1_700_000_000_000_000 + number * 1000,
        1_700_000_000_050_000 + number * 1000,
        4_000_000_000_000 + number * 100,
        12_345_000 + number,
        number % len(schema.SIDES),
        vendor_data,
    )


def _read(message: bytes, parsed: Any) -> Any:
    return fastavro.schemaless_reader(io.BytesIO(message[HEADER_BYTES:]), parsed, None)


def _write(content: dict[str, Any], parsed: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parsed, content)
    return out.getvalue()


if __name__ == "__main__":
    for name, value, unit in measure():
        print(f"{name:42}{value:14,.0f} {unit}")
