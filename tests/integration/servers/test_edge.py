"""A whole stack over HTTP: by curl, page by page while it commits, as events, and by a fuzzer."""

import http.client
import io
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import k2client
from k2 import settings
from servers.edge.access import DEVELOPMENT_KEY
from tests.chaos.stack import BRISK, Stack, until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]
log = logging.getLogger(__name__)
RATE = 150
SYMBOL = "BTCUSDT"
SYMBOLS = {"BTCUSDT", "ETHUSDT", "BNBUSDT"}
FUZZER = Path(sys.executable).with_name("st")
EXAMPLES = settings.environment().get("K2_TEST_FUZZER_EXAMPLES", "3")  # of each operation
# Values that are each valid may contradict each other, such as a range that ends before its start.
FUZZER_CONFIG = """
[checks]
positive_data_acceptance.expected-statuses = \
    ["2xx", "400", "401", "403", "404", "406", "409", "429", "503"]
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    options = ("--venue", "synthetic", "--rate", str(RATE))
    with Stack(tmp_path_factory.mktemp("edge"), *options, environment=BRISK) as running:
        yield running


@pytest.fixture(scope="module")
def k2(stack):
    with k2client.connect(str(stack.addresses["control"])) as client:
        yield client


def get(stack, path, headers=None, **parameters):
    """Status, headers and content of an answer."""
    connection = http.client.HTTPConnection(str(stack.addresses["edge"]), timeout=60)
    try:
        query = f"?{urlencode(parameters)}" if parameters else ""
        connection.request("GET", path + query, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def page(stack, path="/v1/trades", **parameters):
    status, _, content = get(stack, path, **parameters)
    assert status == 200, content
    return json.loads(content)


def curl(stack, path, *options):
    port = str(stack.addresses["edge"]).rpartition(":")[2]
    url = f"http://localhost:{port}{path}"
    done = subprocess.run(
        ["curl", "-sf", *options, url], capture_output=True, timeout=60, check=True
    )
    return json.loads(done.stdout)


def test_curl_gets_what_it_asks_for(stack):
    key = ("-H", f"X-API-Key: {DEVELOPMENT_KEY}")
    assert curl(stack, "/health")["status"] == "SERVING"
    assert curl(stack, "/v1/snapshots", *key)["data"]
    assert len(curl(stack, f"/v1/trades?symbol={SYMBOL}&limit=5", *key)["data"]) == 5
    assert len(curl(stack, f"/v1/trades/recent?symbol={SYMBOL}&limit=10", *key)["data"]) == 10


def test_rows_are_those_of_the_command(stack):
    found = page(stack, symbol=SYMBOL, limit=200)
    token = found["provenance"]["token"]
    arguments = ("--order", "desc", "--limit", "200", "--as-of", token)
    assert found["data"] == stack.json("trades", SYMBOL, *arguments)
    assert found["provenance"]["rows_lake"] + found["provenance"]["rows_tail"] > 0


def test_bars_are_those_of_the_command(stack):
    found = page(stack, "/v1/bars", symbol=SYMBOL, every="1s", last="10s", order="asc")
    origin = found["provenance"]
    since = ("--from", origin["range"]["start_time"], "--as-of", origin["token"])
    printed = stack.json("bars", SYMBOL, "--every", "1s", *since)
    for bar in (*found["data"], *printed):
        del bar["final"]  # what is vouched for by now, not by then
    assert found["data"] == printed
    assert len(printed) > 1
    newest = page(stack, "/v1/latest", as_of=origin["token"])["data"]
    listed = page(stack, "/v1/symbols", as_of=origin["token"])["data"]
    assert {row["symbol"] for row in newest} == {row["symbol"] for row in listed} == SYMBOLS
    day = origin["planned_time"][:10]
    (row,) = page(stack, f"/v1/summary/{SYMBOL}/{day}")["data"]
    assert (row["date"], row["symbol"]) == (day, SYMBOL)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_are_one_answer_although_the_lake_commits(stack, k2, order):
    before = k2.snapshot().snapshot_id
    found = page(stack, symbol=SYMBOL, limit=100, order=order, last="20s")
    token, start = found["provenance"]["token"], found["provenance"]["range"]["start_time"]
    rows = found["data"]
    until(lambda: k2.snapshot().snapshot_id != before, "a commit after the first page")
    while (cursor := found["next_cursor"]) is not None:
        found = page(stack, cursor=cursor, limit=100)
        rows += found["data"]
    expected = k2.trades(SYMBOL, start=start, order=order, as_of=token).to_arrow()
    ids = expected.column("trade_id").to_pylist()
    assert [int(row["trade_id"]) for row in rows] == ids
    assert len(ids) > 200


def test_a_token_has_the_same_tag_and_saves_its_rows(stack):
    token = page(stack, symbol=SYMBOL, limit=5)["provenance"]["token"]
    asked = {"symbol": SYMBOL, "limit": 50, "as_of": token}

    def again():
        """Asked twice; a tag says whether rows are missing, which is known a moment later."""
        _, headers, _ = get(stack, "/v1/trades", **asked)
        status, _, content = get(stack, "/v1/trades", {"If-None-Match": headers["ETag"]}, **asked)
        return (status, content) if status == 304 else None

    assert until(again, "the tag is the same, once it is known what is missing") == (304, b"")


def test_every_form_has_the_same_rows(stack):
    token = page(stack, symbol=SYMBOL, limit=5)["provenance"]["token"]
    asked = {"symbol": SYMBOL, "limit": 3000, "as_of": token, "columns": "trade_id"}
    ids = [row["trade_id"] for row in page(stack, **asked)["data"]]
    content = {
        form: get(stack, "/v1/trades", **asked, format=form)[2]
        for form in ("ndjson", "csv", "arrow", "parquet")
    }
    assert [json.loads(line)["trade_id"] for line in content["ndjson"].splitlines()] == ids
    assert content["csv"].decode().split() == ["trade_id", *ids]
    arrow = pa.ipc.open_stream(content["arrow"]).read_all()
    assert arrow.column("trade_id").cast(pa.string()).to_pylist() == ids
    assert pq.read_table(io.BytesIO(content["parquet"])).equals(arrow)


def events(stack, path, count):
    """The first events of a stream: name and data."""
    connection = http.client.HTTPConnection(str(stack.addresses["edge"]), timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    found = []
    try:
        while len(found) < count:
            line = answer.readline().decode()
            if line.startswith("event: "):
                name = line.removeprefix("event: ").strip()
            if line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
    finally:
        connection.close()
    return found


def test_events_have_each_new_trade_once(stack, k2):
    found = events(stack, f"/v1/trades/stream?symbol={SYMBOL}", 6)
    assert {name for name, _ in found} == {"trades"}
    ids = [int(row["trade_id"]) for _, data in found for row in data["data"]]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    newest = k2.trades(SYMBOL, limit=1, order="desc").to_arrow().column("trade_id")[0].as_py()
    assert ids[-1] <= newest
    assert {data["source"] for _, data in found} == {"SIMULATED"}


def test_who_may_not_ask_is_refused(stack):
    assert get(stack, "/v1/status", {"X-API-Key": "another"})[0] == 401
    assert get(stack, "/v1/status", {"Host": "k2.example"})[0] == 403
    assert get(stack, "/health", {"X-API-Key": "another"})[0] == 200


def test_health_is_not_that_of_a_level(stack, k2):
    k2.set_override("CIRCUIT_BREAK", 60, "a test")
    try:

        def refused():
            status, headers, _ = get(stack, "/v1/trades", symbol=SYMBOL)
            return status == 429 and headers

        assert int(until(refused, "queries are refused")["Retry-After"]) > 0
        status, _, content = get(stack, "/health")
        assert (status, json.loads(content)["level"]) == (200, "CIRCUIT_BREAK")
    finally:
        k2.clear_override()
    until(lambda: get(stack, "/v1/trades", symbol=SYMBOL)[0] == 200, "queries are answered")


def test_health_says_within_ten_seconds_that_the_feed_is_gone(stack):
    pid = stack.pid("feed")
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: get(stack, "/health")[0] == 503, "it does not serve", 10)
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: get(stack, "/health")[0] == 200, "it serves")


def test_a_fuzzer_finds_nothing(stack, tmp_path):
    (tmp_path / "fuzzer.toml").write_text(FUZZER_CONFIG)
    command = [
        *(str(FUZZER), "--config-file", "fuzzer.toml", "run"),
        f"http://{stack.addresses['edge']}/openapi.json",
        *("--max-examples", EXAMPLES, "--seed", "1", "--no-color"),
        *("--exclude-path-regex", "/stream$", "--phases", "examples,fuzzing"),
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:]
    log.info("%s", done.stdout[-1500:])
