"""Notebooks, Jupyter and an assistant on one real stack, started by `k2 up --notebooks`."""

import json
import sys
import urllib.error
import urllib.request
from datetime import timedelta

import anyio
import mcp
import pytest

import k2client
from k2 import settings
from k2client import stack as stack_of
from k2client.times import from_us
from scripts import notebooks
from tests.chaos.stack import CLOCK, Stack, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]
# Commits every 2 s and a short tail, so that answers have rows of both sides.
ENVIRONMENT = {"K2_LAKE__COMMIT_INTERVAL_S": "2", "K2_QUERY__TAIL_RECENT_S": "20"}
# The trades that each needs before it begins. Those that need least run first, and with the tests
# before them they take the time that the others would wait for.
HISTORY = {
    "quickstart": timedelta(seconds=10),
    "executive_demo": timedelta(seconds=10),
    "time_travel": timedelta(seconds=10),
    "backtest": timedelta(seconds=44),
    "transaction_costs": timedelta(seconds=66),
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    options = ("--venue", "synthetic", "--rate", "60", "--notebooks")
    with Stack(folder, *options, environment=ENVIRONMENT) as running:
        yield running


def address(stack):
    return stack.recorded()["jupyter"]["addresses"]["jupyter"]


def status_of(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_jupyter_opens_with_its_token_alone(stack):
    url = address(stack)
    bare, _, token = url.partition("/?token=")
    assert bare.startswith("http://127.0.0.1:")
    assert status_of(f"{bare}/api/contents?token={token}") == 200
    assert status_of(f"{bare}/api/contents") == 403
    assert stack_of.read_stack(stack.data_dir).addresses["jupyter"] == url
    copies = {path.stem for path in (stack.data_dir / "notebooks").glob("*.ipynb")}
    assert copies == set(notebooks.NAMES)
    with urllib.request.urlopen(f"{bare}/api/contents?token={token}", timeout=10) as answer:
        shown = {one["name"] for one in json.load(answer)["content"]}
    assert {f"{name}.ipynb" for name in notebooks.NAMES} <= shown


def test_an_assistant_asks_the_stack_over_stdio(stack):
    argv = ["-m", "k2cli", "mcp", "--data-dir", str(stack.data_dir)]
    server = mcp.StdioServerParameters(
        command=sys.executable, args=argv, env=dict(settings.environment())
    )

    today = from_us(CLOCK.now_us())

    async def session():
        async with mcp.Client(server) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            asked = {
                "trades": {"symbols": "BTCUSDT", "limit": 5},
                "bars": {"symbols": "BTCUSDT", "every": "1s", "last": "1m"},
                "vwap": {"last": "1m"},
                "twap": {"last": "1m"},
                "latest": {},
                "asof": {"left": "ETHUSDT", "right": "BTCUSDT", "last": "1m", "limit": 5},
                "markouts": {"symbols": "BTCUSDT", "last": "1m", "limit": 5},
                "summary": {"symbols": "BTCUSDT", "date": f"{today:%Y-%m-%d}"},
                "symbols": {},
                "availability": {},
                "snapshots": {},
                "gaps": {},
                "status": {},
            }
            assert list(asked) == names
            return {
                name: await client.call_tool(name, arguments) for name, arguments in asked.items()
            }

    for name, result in anyio.run(session).items():
        assert not result.is_error, f"{name}: {result.content}"
        assert result.structured_content["provenance"]["source"] == "SIMULATED", name


def test_a_dead_jupyter_does_not_hurt_the_stack(stack):
    before = stack.recorded()
    stack.kill("jupyter")
    until(
        lambda: (
            stack.recorded()["jupyter"]["restarts"] == 1
            and stack.recorded()["jupyter"]["state"] == "SERVING"
        ),
        "Jupyter serves again",
        60,
    )
    after = stack.recorded()
    assert address(stack) == before["jupyter"]["addresses"]["jupyter"]
    others = set(before) - {"jupyter"}
    assert {name: after[name]["pid"] for name in others} == {
        name: before[name]["pid"] for name in others
    }
    assert stack_of.read_stack(stack.data_dir).state == "SERVING"


def test_all_notebooks_are_executed_here():
    assert set(HISTORY) == set(notebooks.NAMES)


@pytest.mark.parametrize("name", HISTORY)
def test_a_notebook_runs_and_its_figures_hold(stack, name, tmp_path):
    with k2client.connect(data_dir=str(stack.data_dir)) as k2:

        def has_history():
            times = k2.trades("ETHUSDT", columns="event_time").to_arrow()["event_time"].to_pylist()
            return times and times[-1] - times[0] > HISTORY[name]

        until(has_history, "there are enough trades")
    text = notebooks.execute(name, str(stack.data_dir))
    (tmp_path / f"{name}.ipynb").write_text(text)  # to look at
    document = json.loads(text)
    assert "**simulated** trades" in "".join(document["cells"][0]["source"])
    assert list(notebooks.charts(document))
