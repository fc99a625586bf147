"""What an assistant sees of K2: tools, bounded rows with their provenance, reasons of errors."""

import functools
import inspect
import json
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial

import anyio
import mcp
import pyarrow as pa
import pytest

import k2client
from k2cli.assistant import answers, mcp_server
from k2client import records
from k2client.errors import NotFound, Unavailable
from tests.fakes.k2_server import K2Server, trade_rows

TOOLS = [
    *("trades", "bars", "vwap", "twap", "latest", "asof", "markouts", "summary", "symbols"),
    *("availability", "snapshots", "gaps", "status"),
]
TIME = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


class FakeClient:
    """Answers each verb with the same rows, as many of them as are asked for, or with an error."""

    address = "127.0.0.1:50051"

    def __init__(self, rows=None, error=None):
        self.rows = trade_rows(5) if rows is None else rows
        self.error = error
        self.asked = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __getattr__(self, verb):
        if verb not in TOOLS:
            raise AttributeError(verb)
        return partial(self._ask, verb)

    def _ask(self, verb, *, limit, **given):
        self.asked.append((verb, given | {"limit": limit}))
        if self.error:
            raise self.error
        return FakeAnswer(self.rows.slice(0, limit))

    def snapshots(self, limit):
        self.asked.append(("snapshots", {"limit": limit}))
        return [{"snapshot_id": number} for number in range(3)][:limit]

    def status(self):
        return records.Status("SERVING", "NORMAL", "SIMULATED", (), "0.1.0", TIME)


class FakeAnswer:
    def __init__(self, rows):
        self.rows = rows

    def to_arrow(self):
        return self.rows

    @property
    def provenance(self):
        none = dict.fromkeys(records.Provenance.__dataclass_fields__)
        gaps = tuple(records.Gap("BINANCE", "BTCUSDT", first, first) for first in range(90))
        known = {"source": "SIMULATED", "token": "k2t1.x", "gaps": gaps, "gaps_total": 90}
        return records.Provenance(**none | known)


CONNECTED = []


@functools.cache
def server():
    """One server for all tests; it connects to the newest of `CONNECTED`."""
    return mcp_server.build(lambda: CONNECTED[-1])


def answered(k2, tool, arguments):
    """The result of a tool, over a client session in memory."""
    CONNECTED.append(k2)

    async def session():
        async with mcp.Client(server()) as client:
            return await client.call_tool(tool, arguments)

    return anyio.run(session)


def call(k2, tool, **arguments):
    """Whether a call failed, and the document that it answered with."""
    result = answered(k2, tool, arguments)
    (content,) = result.content
    assert result.structured_content == json.loads(content.text)
    return result.is_error, result.structured_content


def refused(k2, tool, **arguments):
    """The text with which arguments are refused."""
    result = answered(k2, tool, arguments)
    assert result.is_error
    return result.content[0].text


def listed():
    async def session():
        async with mcp.Client(server()) as client:
            return (await client.list_tools()).tools

    return anyio.run(session)


def test_each_verb_is_a_read_only_tool():
    tools = listed()
    assert [tool.name for tool in tools] == TOOLS
    assert all(tool.annotations.read_only_hint for tool in tools)
    assert all(tool.description for tool in tools)
    (summary,) = (tool for tool in tools if tool.name == "summary")
    assert summary.input_schema["required"] == ["date"]
    (asof,) = (tool for tool in tools if tool.name == "asof")
    assert asof.input_schema["required"] == ["left", "right"]


@pytest.mark.parametrize("question", mcp_server.QUESTIONS, ids=lambda question: question.verb)
def test_a_tool_takes_what_its_verb_takes(question):
    verb = inspect.signature(getattr(k2client.Client, question.verb)).parameters
    taken = set(verb) | set(k2client.TradesQuestion.__dataclass_fields__)
    assert set(question.parameters) <= taken


def test_rows_are_exact_and_come_with_their_provenance():
    k2 = FakeClient()
    failed, found = call(k2, "trades", symbols="BTCUSDT", last="15m")
    assert not failed
    assert k2.asked == [
        ("trades", {"symbols": "BTCUSDT", "last": "15m", "order": "desc", "limit": 101})
    ]
    assert (found["count"], found["cut"]) == (5, False)
    first = found["rows"][0]
    assert (first["trade_id"], first["price"]) == ("1", "39432.28000000")
    assert first["quantity"] == "0.00000001"
    assert first["event_time"].endswith("Z")
    assert found["provenance"]["source"] == "SIMULATED"
    assert found["provenance"]["token"] == "k2t1.x"
    assert len(found["provenance"]["gaps"]) == 20
    assert found["provenance"]["gaps_total"] == 90


def test_an_answer_says_when_there_are_more_rows():
    failed, found = call(FakeClient(), "bars", symbols=["BTCUSDT"], every="1s", limit=4)
    assert not failed
    assert (len(found["rows"]), found["count"], found["cut"]) == (4, 4, True)
    assert "only the first 4 are here" in found["note"]
    _, whole = call(FakeClient(), "bars", limit=5)
    assert (whole["count"], whole["cut"], "note" in whole) == (5, False, False)


def test_rows_are_bounded():
    k2 = FakeClient(trade_rows(1200))
    _, found = call(k2, "trades", limit=answers.ROWS_MAX)
    assert (found["count"], found["cut"]) == (1000, True)
    assert "less than or equal to 1000" in refused(k2, "trades", limit=1001)
    assert len(k2.asked) == 1


@pytest.mark.parametrize("tool", ["vwap", "twap", "latest", "symbols", "availability"])
def test_a_question_without_arguments_asks_for_all(tool):
    k2 = FakeClient()
    assert call(k2, tool)[0] is False
    assert k2.asked == [(tool, {"symbols": None, "limit": 101})]


def test_the_arguments_of_a_verb_are_passed_by_name():
    k2 = FakeClient()
    call(k2, "asof", left="ETHUSDT", right="BTCUSDT", tolerance="5s", allow_partial=True, limit=1)
    call(k2, "summary", symbols="BTCUSDT", date="2026-01-31", tz="Europe/Berlin")
    call(k2, "markouts", symbols="BTCUSDT", horizons=["1s"], as_of="9007199254740993")
    assert k2.asked == [
        (
            "asof",
            {"left": "ETHUSDT", "right": "BTCUSDT", "tolerance": "5s", "allow_partial": True}
            | {"order": "desc", "limit": 2},
        ),
        ("summary", {"symbols": "BTCUSDT", "date": "2026-01-31", "tz": "Europe/Berlin"}
            | {"limit": 101}),
        (
            "markouts",
            {"symbols": "BTCUSDT", "horizons": ["1s"], "as_of": "9007199254740993"}
            | {"order": "desc", "limit": 101},
        ),
    ]  # fmt: skip


def test_what_json_lacks_is_text():
    rows = pa.table({"date": [date(2026, 1, 31)], "final": [True], "volume": [Decimal("1.50")]})
    _, found = call(FakeClient(rows), "summary", symbols="BTCUSDT", date="2026-01-31")
    assert found["rows"] == [{"date": "2026-01-31", "final": True, "volume": "1.50"}]


def test_an_error_has_the_reason_of_k2():
    error = NotFound("UNKNOWN_SYMBOL", "there is no NOSUCH", metadata={"symbol": "NOSUCH"})
    failed, found = call(FakeClient(error=error), "trades", symbols="NOSUCH")
    assert failed
    assert found["reason"] == "UNKNOWN_SYMBOL"
    assert found["message"] == "there is no NOSUCH"
    assert found["metadata"] == {"symbol": "NOSUCH"}
    again = Unavailable("TAIL_BEHIND", "not yet", retry_after_s=0.5)
    assert call(FakeClient(error=again), "latest")[1]["retry_after_s"] == 0.5


def test_an_argument_that_a_tool_does_not_have_is_refused():
    k2 = FakeClient()
    assert "trades has no argument symbol" in refused(k2, "trades", symbol="BTCUSDT")
    assert k2.asked == []
    assert "NOSUCH" in refused(k2, "NOSUCH")


def test_records_come_with_the_platform_they_are_from():
    failed, found = call(FakeClient(), "snapshots", limit=2)
    assert not failed
    assert found["snapshots"] == [{"snapshot_id": "0"}, {"snapshot_id": "1"}]
    assert (found["count"], found["cut"]) == (2, True)
    assert found["provenance"] == {
        "address": "127.0.0.1:50051",
        "source": "SIMULATED",
        "state": "SERVING",
        "level": "NORMAL",
        "time": "2026-01-31T09:30:00.000000Z",
    }


def test_over_the_wire_trades_gaps_and_status_are_those_of_k2():
    with K2Server() as server:
        with k2client.connect(server.address) as k2:
            expected = k2.trades("BTCUSDT").to_arrow().num_rows

        def fresh(tool, **arguments):
            return call(k2client.connect(server.address), tool, **arguments)

        _, trades = fresh("trades", symbols="BTCUSDT", order="asc")
        _, gaps = fresh("gaps")
        _, status = fresh("status")
    assert trades["count"] == expected > 0
    assert trades["provenance"]["snapshot_id"].isdecimal()
    assert gaps["count"] == len(gaps["gaps"])
    assert status["status"]["state"] == status["provenance"]["state"]
    assert status["degradation"]["level"]


def test_without_the_sdk_the_command_says_how_to_get_it(k2, monkeypatch):
    monkeypatch.delitem(sys.modules, "k2cli.assistant.mcp_server")
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    done = k2("mcp")
    assert done.code == 2
    assert done.stderr == (
        "k2: BAD_REQUEST: the MCP SDK is not installed: pip install 'k2-lakehouse[mcp]'\n"
    )


def test_without_a_stack_the_tool_says_so(tmp_path):
    def connect():
        return k2client.connect(data_dir=str(tmp_path))

    async def session():
        async with mcp.Client(mcp_server.build(connect)) as client:
            return await client.call_tool("status", {})

    result = anyio.run(session)
    assert result.is_error
    assert result.structured_content["reason"] == "STACK_NOT_RUNNING"
