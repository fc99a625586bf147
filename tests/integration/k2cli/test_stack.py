"""The command against a whole K2 on this machine: up, ask in every way, down, and up again."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from decimal import Decimal

import pyarrow as pa
import pyarrow.ipc
import pytest

import k2client
from k2 import settings
from k2client import stack
from tests.support.eventually import eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]
START_S = 300


class Command:
    """Runs `k2` commands on one data directory."""

    def __init__(self, directory):
        self.directory = directory

    def __call__(self, *arguments, code=0):
        done = subprocess.run(
            [*self.line(*arguments)],
            capture_output=True,
            env=self.environment(),
            timeout=START_S,
            check=False,
        )
        said = done.stderr.decode()
        assert done.returncode == code, f"{arguments}: {done.returncode} {said}"
        assert "Traceback" not in said
        return done

    def line(self, *arguments):
        return [sys.executable, "-m", "k2cli", *arguments, "--data-dir", str(self.directory)]

    def environment(self):
        return {
            name: value
            for name, value in settings.environment().items()
            if name not in ("K2_ADDRESS", "K2_DATA_DIR")
        } | {"K2_LAKE__COMMIT_INTERVAL_S": "1"}

    def json(self, *arguments):
        return json.loads(self(*arguments, "--json").stdout)

    def error(self, *arguments, code):
        said = self(*arguments, code=code).stderr.decode().splitlines()
        return said[-1]


@pytest.fixture(scope="module")
def k2(tmp_path_factory):
    """A stack with a synthetic market, left running by `k2 up -d`."""
    command = Command(tmp_path_factory.mktemp("stack"))
    command("up", "-d", "--venue", "synthetic", "--rate", "200", "--ports", "free", "--json")
    yield command
    command("down")
    assert not stack.read_stack(command.directory).running


def test_status_names_every_process(k2):
    found = k2.json("status")
    names = {each["name"] for each in found["processes"]}
    ours = {"venue", "feed", "lake", "query", "control", "edge"}
    assert names == {"broker", "registry"} | ours
    assert {each["state"] for each in found["processes"]} == {"SERVING"}
    assert (found["state"], found["source"]) == ("SERVING", "simulated")
    os.kill(found["supervisor_pid"], 0)
    assert b"SERVING" in k2("status").stdout


def test_a_second_start_is_refused(k2):
    assert k2.error("up", "-d", code=7).startswith("k2: ALREADY_RUNNING: ")


def test_newer_trades_a_moment_later(k2):
    with k2client.connect(data_dir=str(k2.directory)) as client:
        first = client.trades("BTCUSDT", last="15m").to_polars()

        def newer():
            second = client.trades("BTCUSDT", last="15m").to_polars()
            return [second] if second["trade_id"].max() > first["trade_id"].max() else None

        (second,) = eventually(newer)
    assert second["trade_id"].is_unique().all()
    assert second["trade_id"][-1] - second["trade_id"][0] == second.height - 1


def test_every_format_has_the_same_rows(k2):
    eventually(lambda: k2.json("snapshots", "--limit", "1")["snapshots"], timeout_s=60)
    snapshot = k2.json("snapshots", "--limit", "1")["snapshots"][0]["snapshot_id"]
    asked = ("trades", "BTCUSDT,ETHUSDT", "--as-of", snapshot)
    documents = json.loads(k2(*asked, "--format", "json").stdout)
    lines = list(csv.DictReader(io.StringIO(k2(*asked, "--format", "csv").stdout.decode())))
    table = pa.ipc.open_stream(k2(*asked, "--format", "arrow").stdout).read_all()
    assert len(documents) > 0
    ids = [row["trade_id"] for row in documents]
    assert [row["trade_id"] for row in lines] == ids
    assert [str(each) for each in table.column("trade_id").to_pylist()] == ids
    prices = [Decimal(row["price"]) for row in documents]
    assert [Decimal(row["price"]) for row in lines] == prices
    assert table.column("price").to_pylist() == prices
    times = [(row["event_time"], row["exchange"], row["symbol"], row["trade_id"]) for row in lines]
    assert sorted(times, key=lambda key: (*key[:3], int(key[3]))) == times
    assert json.loads(table.schema.metadata[b"k2.provenance"])["snapshot_id"] == snapshot


def test_the_control_plane_speaks(k2):
    assert k2.json("degradation")["level"] in ("NORMAL", "SOFT", "GRACEFUL", "AGGRESSIVE")
    feed = k2.json("feeds")["feeds"][0]
    assert {each["symbol"] for each in feed["symbols"]} == set(settings.FeedSettings().symbols)
    for name in ("snapshots", "degradation", "feeds"):
        assert k2(name).stdout


def test_verify_proves_it(k2):
    found = k2.json("verify")
    assert found["ok"] is True
    assert found["problems"] == []


def test_bad_input_has_a_reason_and_harms_nobody(k2):
    for arguments, code, reason in (
        (["NOSUCH"], 1, "UNKNOWN_SYMBOL"),
        (["BTCUSDT", "--from", "2026-01-02", "--to", "2026-01-01"], 2, "RANGE_REVERSED"),
        (["BTCUSDT", "--as-of", "12345"], 1, "UNKNOWN_SNAPSHOT"),
    ):
        assert k2.error("trades", *arguments, code=code).startswith(f"k2: {reason}: ")
    assert k2("trades", "BTCUSDT", "--limit", "1", "--format", "csv").stdout.count(b"\n") == 2


def test_a_query_waits_for_a_query_server_that_was_killed(k2):
    def query():
        return next(each for each in k2.json("status")["processes"] if each["name"] == "query")

    before = query()
    os.kill(before["pid"], signal.SIGKILL)
    with k2client.connect(data_dir=str(k2.directory)) as client:
        assert client.trades("BTCUSDT", limit=3, deadline_s=60).to_arrow().num_rows == 3
    after = eventually(lambda: query() if query()["state"] == "SERVING" else None, timeout_s=60)
    assert after["restarts"] == before["restarts"] + 1
    assert after["addresses"] == before["addresses"]


def test_what_the_venue_sends_can_be_recorded(k2, tmp_path):
    path = tmp_path / "market.jsonl"
    found = k2.json("record", str(path), "--frames", "20", "--duration", "30s")
    assert found["frames"] == 20
    assert len(path.read_text().splitlines()) >= 20
