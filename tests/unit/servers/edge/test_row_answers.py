import http.client as http_client
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.rpc import code_pb2

from k2 import limits
from k2.clock import SystemClock
from servers.edge.app import make_app
from servers.http_server import HttpServer
from tests.fakes.k2_server import TOKEN, status, unavailable
from tests.unit.servers.edge.conftest import COUNT

pytestmark = pytest.mark.usefixtures("market")

CURSOR = "k2-next-cursor"
STREAMED = f"limit={limits.EDGE_ROWS_MAX + 1}"


def test_a_partial_answer_has_no_next_page_and_no_tag(http, k2):
    k2.missing = [k2.missing_lake()]
    answer = http.get("/v1/trades?symbol=BTCUSDT&limit=5&allow_partial=true")
    assert answer.json()["next_cursor"] is None
    assert "ETag" not in answer.headers
    assert answer.headers["k2-missing"] == "lake LAKE_UNAVAILABLE"


def test_a_tag_saves_reading_the_same_rows(http, k2):
    path = f"/v1/trades?symbol=BTCUSDT&limit=5&as_of={TOKEN}"
    tag = http.get(path).headers["ETag"]
    again = http.get(path, headers={"If-None-Match": f'"x", {tag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == tag
    for other in ("&order=asc", "&format=csv", "&columns=price"):
        assert http.get(path + other, headers={"If-None-Match": tag}).status_code == 200


def test_forms_follow_accept_and_format(http):
    path = "/v1/trades?symbol=BTCUSDT&limit=6&columns=trade_id,price"
    arrow = http.get(path, headers={"Accept": "application/vnd.apache.arrow.stream"})
    table = pa.ipc.open_stream(arrow.content).read_all()
    assert table.column_names == ["trade_id", "price"]
    assert b"k2.provenance" in table.schema.metadata
    parquet = http.get(path + "&format=parquet")
    assert pq.read_table(io.BytesIO(parquet.content)).equals(table)
    lines = http.get(path + "&format=ndjson")
    assert [json.loads(line)["trade_id"] for line in lines.text.splitlines()] == [
        str(number) for number in table.column("trade_id").to_pylist()
    ]
    text = http.get(path + "&format=csv")
    assert text.text.splitlines()[0] == "trade_id,price"
    assert text.headers["content-disposition"] == 'inline; filename="k2-trades.csv"'
    assert text.headers["k2-token"] == TOKEN


def test_a_stream_goes_on_where_a_page_ended(http):
    cursor = http.get("/v1/trades?symbol=BTCUSDT&limit=6").json()["next_cursor"]
    rest = http.get("/v1/trades", params={"cursor": cursor, "format": "ndjson"})
    assert [int(json.loads(line)["trade_id"]) for line in rest.text.splitlines()] == [
        *range(17, 0, -1)
    ]


def test_a_plan_has_an_estimate_and_no_rows(http):
    answer = http.get("/v1/trades?symbol=BTCUSDT&plan_only=true&format=csv").json()
    assert (answer["data"], answer["estimate"]["rows"]) == ([], COUNT)


@pytest.mark.parametrize("columns", ["", "&columns=trade_id,price"])
def test_pages_of_every_form_go_on(http, columns):
    path = f"/v1/trades?symbol=BTCUSDT&limit=9&format=csv{columns}"
    ids, sizes, more = [], [], ""
    while more is not None:
        page = http.get(path + more)
        head, *lines = page.text.splitlines()
        at = head.split(",").index("trade_id")
        ids += [int(line.split(",")[at]) for line in lines]
        sizes.append(len(lines))
        following = page.headers.get("k2-next-cursor")
        more = None if following is None else f"&cursor={following}"
    assert (ids, sizes) == (list(range(COUNT, 0, -1)), [9, 9, 5])


def test_a_cursor_is_where_the_form_has_it(http):
    path = "/v1/trades?symbol=BTCUSDT&order=asc"
    page = http.get(f"{path}&limit=6")
    assert page.json()["next_cursor"] == http.get(f"{path}&limit=6&format=arrow").headers[CURSOR]
    assert CURSOR not in page.headers
    streamed = http.get(f"{path}&{STREAMED}&format=csv")
    assert CURSOR not in streamed.headers
    assert len(streamed.text.splitlines()) == 1 + COUNT


@pytest.mark.parametrize("form", ["json", "csv"])
def test_what_k2_refuses_has_its_status_in_every_form(http, k2, form):
    k2.fail_calls = [status(code_pb2.RESOURCE_EXHAUSTED, "SHED", "no", retry_after_s=2.0)]
    refused = http.get(f"/v1/trades?symbol=BTCUSDT&format={form}")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
    k2.fail_rows = [(0, unavailable())]
    refused = http.get(f"/v1/trades?symbol=BTCUSDT&format={form}")
    assert (refused.status_code, refused.json()["reason"]) == (503, "TAIL_BEHIND")


def test_long_answers_are_packed_for_those_that_unpack(http):
    path = "/v1/trades?symbol=BTCUSDT"
    assert http.get(path).headers["content-encoding"] == "gzip"
    plain = http.get(path, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert "content-encoding" not in http.get(f"{path}&format=parquet").headers


def test_a_page_is_read_again_when_its_answer_changed(http, k2):
    k2.fail_rows = [(4, unavailable("ANSWER_CHANGED"))]
    answer = http.get("/v1/trades?symbol=BTCUSDT")
    assert [int(row["trade_id"]) for row in answer.json()["data"]] == list(range(COUNT, 0, -1))


def test_a_stream_that_breaks_ends_the_connection(parts, k2):
    k2.fail_rows = [(4, unavailable())]
    server = HttpServer("127.0.0.1:0", make_app(parts), SystemClock())
    server.start()
    connection = http_client.HTTPConnection(server.address, timeout=10)
    connection.request("GET", f"/v1/trades?symbol=BTCUSDT&{STREAMED}&format=csv")
    answer = connection.getresponse()
    assert answer.status == 200
    with pytest.raises(http_client.IncompleteRead):
        answer.read()
    connection.close()
    server.drain()
    parts.streams.enter()()  # its place is free


def test_streams_are_bounded(http, parts):
    leave = [parts.streams.enter() for _ in range(limits.EDGE_STREAMS_MAX)]
    refused = http.get(f"/v1/trades?symbol=BTCUSDT&{STREAMED}&format=csv")
    assert (refused.status_code, refused.json()["reason"]) == (429, "TOO_MANY_CALLS")
    for each in leave:
        each()
    assert http.get(f"/v1/trades?symbol=BTCUSDT&{STREAMED}&format=csv").status_code == 200
