import json

import pytest

from k2.v1 import query_service_pb2
from k2client.arrow_text import json_rows
from tests.fakes.k2_server import SNAPSHOT_IDS, TOKEN
from tests.support.spans import recorded, span_id_of
from tests.unit.servers.edge.conftest import COUNT

PARENT = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"

pytestmark = pytest.mark.usefixtures("market")


def ids(answer):
    return [int(row["trade_id"]) for row in answer.json()["data"]]


def test_the_newest_trades_come_first_with_their_provenance(http):
    answer = http.get("/v1/trades?symbol=BTCUSDT&limit=5")
    content = answer.json()
    assert list(content)[:4] == ["data", "next_cursor", "provenance", "estimate"]
    assert ids(answer) == [23, 22, 21, 20, 19]
    assert content["provenance"]["snapshot_id"] == str(SNAPSHOT_IDS[0])
    assert content["provenance"]["token"] == answer.headers["k2-token"] == TOKEN
    assert answer.headers["k2-source"] == "SIMULATED"
    times = content["timing_ms"]
    assert 0 < times["plan"] <= times["first_batch"] <= times["total"]


def test_rows_are_those_of_the_command_in_every_digit(http, k2):
    answer = http.get("/v1/trades?symbol=BTCUSDT&order=asc")
    expected = [json.loads(line) for batch in k2.rows.to_batches() for line in json_rows(batch)]
    assert answer.json()["data"] == expected
    assert answer.json()["next_cursor"] is None


def pages(http, path):
    answer = http.get(path)
    while True:
        yield answer
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return
        answer = http.get(path, params={**dict(answer.request.url.params), "cursor": cursor})


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 22, 23])
@pytest.mark.parametrize("more", ["", "&columns=trade_id"])
def test_pages_are_one_answer(http, k2, order, limit, more):
    found = list(pages(http, f"/v1/trades?symbol=BTCUSDT&limit={limit}&order={order}{more}"))
    listed = [number for answer in found for number in ids(answer)]
    expected = list(range(1, COUNT + 1))
    assert listed == (expected if order == "asc" else expected[::-1])
    assert {request.trades.as_of_token for request in k2.requests[1:]} <= {TOKEN}
    if more:
        assert all(list(row) == ["trade_id"] for page in found for row in page.json()["data"])


def test_a_cursor_is_enough(http):
    first = http.get("/v1/trades?symbol=BTCUSDT&limit=5").json()
    second = http.get("/v1/trades", params={"cursor": first["next_cursor"], "limit": 3})
    assert ids(second) == [18, 17, 16]


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/v1/trades", {"symbol": "ETHUSDT"}),
        ("/v1/trades", {"order": "asc"}),
        ("/v1/trades/recent", {}),
    ],
)
def test_a_cursor_is_of_one_request(http, path, more):
    cursor = http.get("/v1/trades?symbol=BTCUSDT&limit=5").json()["next_cursor"]
    refused = http.get(path, params={"cursor": cursor, **more})
    assert (refused.status_code, refused.json()["reason"]) == (400, "BAD_PAGE_TOKEN")


def test_recent_trades_are_those_of_a_quarter_of_an_hour(http, k2):
    http.get("/v1/trades/recent?symbol=BTCUSDT&limit=10")
    http.get("/v1/trades/recent?symbol=BTCUSDT&last=90s")
    assert [request.trades.last.seconds for request in k2.requests] == [900, 90]


def test_everything_is_asked_as_it_was_given(http, k2):
    http.get(
        "/v1/trades?symbol=BTCUSDT&exchange=BINANCE&start=2021-01-08T00:00:00Z&order=asc&limit=7"
        "&end=1610064001000000&consistency=committed&columns=price&format=csv&allow_partial=true"
    )
    (asked,) = (request.trades for request in k2.requests)
    assert (list(asked.symbols), list(asked.exchanges)) == (["BTCUSDT"], ["BINANCE"])
    assert asked.range.start_time.ToMicroseconds() == 1_610_064_000_000_000
    assert asked.range.end_time.ToMicroseconds() == 1_610_064_001_000_000
    assert (list(asked.columns), asked.limit) == (["price", "event_time"], 8)
    assert asked.consistency == query_service_pb2.CONSISTENCY_COMMITTED
    assert asked.order == query_service_pb2.ORDER_ASC
    assert asked.allow_partial


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ("symbol=NOPE", 404, "UNKNOWN_SYMBOL"),
        ("symbol=BTCUSDT&limit=0", 400, "BAD_REQUEST"),
        ("symbol=BTCUSDT&limit=5001", 400, "LIMIT_OUT_OF_BOUNDS"),
        ("symbol=BTCUSDT&start=yesterday", 400, "BAD_REQUEST"),
        ("symbol=BTCUSDT&columns=nothing", 400, "UNKNOWN_COLUMN"),
        ("symbol=BTCUSDT&as_of=k2t1.other", 400, "BAD_TOKEN"),
        ("symbol=BTCUSDT&as_of=99", 404, "UNKNOWN_SNAPSHOT"),
        ("symbol=BTCUSDT&cursor=k2c1.x", 400, "BAD_PAGE_TOKEN"),
        ("symbol=BTCUSDT&cursor=x", 400, "BAD_REQUEST"),
        ("symbol=BTCUSDT&form=csv", 400, "BAD_REQUEST"),
        ("symbol=", 400, "BAD_REQUEST"),
    ],
)
def test_a_wrong_request_is_a_problem(http, query, code, reason):
    refused = http.get(f"/v1/trades?{query}")
    assert (refused.status_code, refused.json()["reason"]) == (code, reason)
    assert refused.headers["content-type"] == "application/problem+json"


def test_a_form_that_is_not_here_is_refused(http):
    refused = http.get("/v1/trades", headers={"Accept": "image/png"})
    assert (refused.status_code, refused.json()["reason"]) == (406, "NOT_ACCEPTABLE")


def test_the_class_and_the_trace_of_a_request_go_on(http, k2):
    http.get("/v1/trades?symbol=BTCUSDT", headers={"k2-class": "critical"})
    assert {headers["k2-class"] for headers in k2.headers} == {"critical"}
    k2.headers.clear()
    with recorded() as spans:
        http.get("/v1/trades?symbol=BTCUSDT", headers={"traceparent": PARENT})
    (span,) = spans()
    sent = f"00-{'1' * 32}-{span_id_of(span)}-01"
    assert [headers["traceparent"] for headers in k2.headers] == [sent, sent]  # gRPC and Flight
    refused = http.get("/v1/trades?symbol=BTCUSDT", headers={"k2-class": "urgent"})
    assert refused.status_code == 400
