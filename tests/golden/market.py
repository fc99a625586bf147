"""The golden recording and the rows it must become, made by nothing of K2.

    python -m tests.golden.market       # regenerates market.jsonl and expected.csv beside this file

The frames hold what a day at a venue holds: three symbols interleaved, equal times, the smallest
and the largest numbers that can be printed, both time units, a repeated frame, one that comes late,
a new field of the venue, a stream K2 does not know and a frame that is broken.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

FOLDER = Path(__file__).parent
FRAMES = FOLDER / "market.jsonl"
EXPECTED = FOLDER / "expected.csv"
COLUMNS = ("symbol", "trade_id", "event_time", "price", "quantity", "side", "vendor_data")
SYMBOLS = {"BTCUSDT": Decimal("64000.01"), "ETHUSDT": Decimal("3000.5"), "PEPEUSDT": Decimal("1")}
START_MS = 1_717_200_000_000  # 2024-06-01T00:00:00Z
PER_SYMBOL = 400
EIGHT = Decimal("0.00000001")

# (price, quantity) of the first trades of a symbol: the ends of what can be printed.
EXTREMES = (("0.00000001", "92000000000000"), ("1900000000", "0.00000001"))


@dataclass(frozen=True)
class Printed:
    """A trade as the venue printed it."""

    symbol: str
    trade_id: int
    time_us: int
    price: Decimal
    quantity: Decimal
    buyer_is_maker: bool
    more: tuple[tuple[str, str], ...] = ()

    def frame(self, micros: bool = False) -> str:
        """The combined-stream frame, times in milliseconds or microseconds."""
        time = self.time_us if micros else self.time_us // 1000
        data = {
            "e": "trade",
            "E": time,
            "s": self.symbol,
            "t": self.trade_id,
            "p": f"{self.price:f}",
            "q": f"{self.quantity:f}",
            "T": time,
            "m": self.buyer_is_maker,
            "M": True,
        } | dict(self.more)
        stream = f"{self.symbol.lower()}@trade"
        return json.dumps({"stream": stream, "data": data}, separators=(",", ":"))

    def row(self) -> list[str]:
        """The row of `COLUMNS` it must become."""
        seconds, micros = divmod(self.time_us, 1_000_000)
        minutes, second = divmod(seconds - START_MS // 1000, 60)
        event_time = f"2024-06-01T00:{minutes:02}:{second:02}.{micros:06}Z"
        price, quantity = (f"{value.quantize(EIGHT):f}" for value in (self.price, self.quantity))
        side = "SELL" if self.buyer_is_maker else "BUY"
        vendor = json.dumps(dict(self.more))
        return [self.symbol, str(self.trade_id), event_time, price, quantity, side, vendor]


def trades() -> list[Printed]:
    """All trades, in the order they were printed."""
    printed, noise, time_us = [], 12345, START_MS * 1000
    for number in range(PER_SYMBOL):
        for index, (symbol, start) in enumerate(SYMBOLS.items()):
            noise = (noise * 1103515245 + 12345) % 2**31
            time_us += (noise % 3) * 20_000  # often the same millisecond
            price = start + Decimal(noise % 2000 - 1000) * Decimal("0.01") * start / 1000
            quantity = Decimal(noise % 10_000_000 + 1) * EIGHT
            if symbol == "PEPEUSDT" and number < len(EXTREMES):
                price, quantity = map(Decimal, EXTREMES[number])
            more = (("X", "MARKET"),) if number == PER_SYMBOL // 2 else ()
            trade_id = 10**9 * index + 1 + number
            maker = noise % 7 < 3
            printed.append(
                Printed(symbol, trade_id, time_us, price.quantize(EIGHT), quantity, maker, more)
            )
    return printed


def frames(printed: list[Printed]) -> list[str]:
    """The recording: the trades, and what else a socket brings."""
    lines = []
    for number, trade in enumerate(printed):
        lines.append(trade.frame(micros=number % 5 == 0))
        if number % 50 == 7:
            lines.append(trade.frame())  # repeated
        if number % 100 == 13:
            lines.append('{"stream":"btcusdt@kline_1m","data":{"e":"kline","s":"BTCUSDT"}}')
        if number == 500:
            lines.append('{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":"x"}}')
    late = lines.pop(30)
    lines.insert(60, late)
    return lines


def main() -> None:
    """Write both files again."""
    printed = trades()
    FRAMES.write_text("\n".join(frames(printed)) + "\n")
    with EXPECTED.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(
            trade.row()
            for trade in sorted(printed, key=lambda t: (t.time_us, t.symbol, t.trade_id))
        )


if __name__ == "__main__":
    main()
