import datetime as dt
import json
import threading
from decimal import Decimal

import pyarrow as pa
import pytest

from k2.v1 import query_service_pb2
from servers.edge import documents

PRICE, VOLUME = pa.decimal128(18, 8), pa.decimal128(38, 8)
MINUTE = dt.timedelta(minutes=1)
FIRST = dt.datetime(2021, 1, 8, tzinfo=dt.UTC)
COUNT = 7


def bars(count=COUNT, close="2.00000001"):
    schema = pa.schema(
        [
            *(("bar_start", pa.timestamp("us", "UTC")), ("exchange", pa.string())),
            *(("symbol", pa.string()), ("close", PRICE), ("volume", VOLUME), ("count", pa.int64())),
            ("final", pa.bool_()),
        ]
    )
    rows = [
        (FIRST + n * MINUTE, "BINANCE", "BTCUSDT", Decimal(close), Decimal(n), n, n < count - 1)
        for n in range(count)
    ]
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)


@pytest.fixture(autouse=True)
def shapes(k2, market):
    k2.shapes = {
        "bars": bars(),
        "latest": k2.rows.slice(0, 1),
        "symbols": k2.rows.select(["exchange", "symbol"]).slice(0, 2),
        "summary": bars(1),
    }
    yield
    k2.shapes = {}


def starts(answer):
    return [row["bar_start"] for row in answer.json()["data"]]


def test_bars_have_exact_values_and_whether_they_are_final(http):
    newest = http.get("/v1/bars?symbol=BTCUSDT&every=1m&last=1h").json()["data"][0]
    assert newest == {
        "bar_start": "2021-01-08T00:06:00.000000Z",
        "exchange": "BINANCE",
        "symbol": "BTCUSDT",
        "close": "2.00000001",
        "volume": "6.00000000",
        "count": "6",
        "final": False,
    }


def test_bars_are_asked_as_they_were_given(http, k2):
    http.get("/v1/bars?symbol=BTCUSDT&every=5m&fill=prev&tz=Europe/Berlin&order=asc&limit=9")
    asked = k2.requests[-1].bars
    assert (asked.every, asked.time_zone) == ("5m", "Europe/Berlin")
    assert asked.fill == query_service_pb2.FILL_PREV
    assert (list(asked.of.symbols), asked.of.limit) == (["BTCUSDT"], 10)
    assert asked.of.order == query_service_pb2.ORDER_ASC


def test_pages_of_bars_are_one_answer(http):
    whole, found = starts(http.get("/v1/bars?symbol=BTCUSDT")), []
    answer = http.get("/v1/bars?symbol=BTCUSDT&limit=3")
    while True:
        found += starts(answer)
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            break
        answer = http.get("/v1/bars", params={"cursor": cursor, "limit": 3})
    assert found == whole
    assert len(found) == COUNT


@pytest.mark.parametrize("more", ["every=90x", "tz=Europe Berlin", "fill=all", "every=0m"])
def test_a_wrong_option_is_refused(http, more):
    refused = http.get(f"/v1/bars?symbol=BTCUSDT&{more}")
    assert (refused.status_code, refused.json()["reason"]) == (400, "BAD_REQUEST")


def test_the_latest_trades_are_of_all_symbols_unless_some_are_named(http, k2):
    assert len(http.get("/v1/latest").json()["data"]) == 1
    assert list(k2.requests[-1].latest.of.symbols) == []


def test_symbols_are_paged_like_any_rows(http, k2):
    first = http.get("/v1/symbols?limit=1").json()
    second = http.get("/v1/symbols", params={"cursor": first["next_cursor"], "limit": 1}).json()
    assert [len(page["data"]) for page in (first, second)] == [1, 1]
    assert second["next_cursor"] is None
    assert k2.requests[-1].symbols.of.as_of_token


def test_a_summary_is_of_the_day_and_symbol_of_its_path(http, k2):
    answer = http.get("/v1/summary/BTCUSDT/2021-01-08?tz=Asia/Tokyo")
    assert len(answer.json()["data"]) == 1
    asked = k2.requests[-1].summary
    assert (list(asked.of.symbols), asked.date) == (["BTCUSDT"], "2021-01-08")
    assert asked.time_zone == "Asia/Tokyo"
    assert http.get("/v1/summary/BTCUSDT/yesterday").status_code == 400
    assert http.get("/v1/summary/BTCUSDT/2021-01-08?symbol=X").status_code == 400


def test_a_bar_that_changes_is_sent_again(http, parts, k2):
    timer = threading.Timer(1.5, parts.live.close)

    def change():
        k2.shapes["bars"] = bars(COUNT + 1, close="3")
        timer.start()

    threading.Timer(0.3, change).start()
    with http.stream("GET", "/v1/bars/stream?symbol=BTCUSDT&every=1m") as answer:
        text = "".join(answer.iter_text())
    sent = [json.loads(line[6:])["data"] for line in text.splitlines() if line.startswith("data: ")]
    assert [len(rows) for rows in sent] == [COUNT, COUNT + 1]
    assert {row["close"] for row in sent[-1]} == {"3.00000000"}
    assert text.startswith("event: bars\n")


def test_rows_of_a_document_are_those_of_the_answer():
    known = documents.BarRow.model_fields
    assert set(bars().schema.names) <= set(known)
