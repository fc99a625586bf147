"""Real recordings through every part of a whole K2; they lie beside the project, not in it."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

import k2client
from tests.chaos.stack import Stack
from tests.support.eventually import eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]
RECORDINGS = Path(__file__).parents[3] / "shared" / "data"


def recording(name):
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"the real recording {path.name} is not beside the project")
    return path


def printed(path):
    """id → price, quantity, time in microseconds and side, by the venue's own frames."""
    frames = [json.loads(line)["data"] for line in path.read_text().splitlines()]
    return {
        frame["t"]: (
            Decimal(frame["p"]),
            Decimal(frame["q"]),
            frame["T"] * 1000,
            "SELL" if frame["m"] else "BUY",
        )
        for frame in frames
    }


def held(k2, symbol, exchange, consistency):
    columns = ["trade_id", "price", "quantity", "event_time", "side", "source"]
    rows = k2.trades(symbol, exchanges=exchange, columns=columns, consistency=consistency)
    return [
        (
            row["trade_id"],
            (row["price"], row["quantity"], int(row["event_time"].timestamp() * 1e6), row["side"]),
        )
        for row in rows.to_arrow().to_pylist()
    ]


def rows_of_newest(k2):
    return next((snapshot.rows_total for snapshot in k2.snapshots(limit=1)), 0)


def test_every_trade_equals_the_file(tmp_path):
    """Another recording is followed to the tape, in `integration/servers/test_venue_to_tape.py`."""
    path = recording("binance_trade_ethusdt_2023-02-02.jsonl")
    symbol, exchange, count = "ETHUSDT", "BINANCE_UM", 1000
    expected = printed(path)
    assert len(expected) == count
    options = ("--venue", f"recording:{path}", "--speed", "0", "--exchange", exchange)
    environment = {"K2_LAKE__COMMIT_INTERVAL_S": "1"}
    with (
        Stack(tmp_path, *options, environment=environment) as stack,
        k2client.connect(str(stack.addresses["control"])) as k2,
    ):
        eventually(lambda: rows_of_newest(k2) == count, 60, 0.2)
        for consistency in ("committed", "union"):
            rows = held(k2, symbol, exchange, consistency)
            assert len(rows) == count
            assert dict(rows) == expected
        assert stack.json("verify")["ok"]
