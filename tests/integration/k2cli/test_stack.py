"""The command against a whole K2 on this machine: up, ask in every way, down, and up again.

One stack for all, in the order of the tests: the last one takes its broker's data away.
"""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import timedelta
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
UP = ("up", "-d", "--venue", "synthetic", "--rate", "100", "--ports", "free")


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
        } | {"K2_LAKE__COMMIT_INTERVAL_S": "1", "K2_DEGRADE__DWELL_S": "2"}

    def json(self, *arguments):
        return json.loads(self(*arguments, "--json").stdout)

    def error(self, *arguments, code):
        said = self(*arguments, code=code).stderr.decode().splitlines()
        return said[-1]

    def process(self, name):
        """What the stack wrote down of a process."""
        written = stack.read_stack(self.directory).processes
        return next(each for each in written if each["name"] == name)


@pytest.fixture
def client(k2):
    with k2client.connect(data_dir=str(k2.directory)) as made:
        yield made


@pytest.fixture(scope="module")
def k2(tmp_path_factory):
    """A stack with a synthetic market, left running by `k2 up -d`."""
    command = Command(tmp_path_factory.mktemp("stack"))
    command(*UP, "--json")
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


def test_newer_trades_a_moment_later(client):
    first = client.trades("BTCUSDT", last="15m").to_polars()

    def newer():
        second = client.trades("BTCUSDT", last="15m").to_polars()
        return [second] if second["trade_id"].max() > first["trade_id"].max() else None

    (second,) = eventually(newer, timeout_s=60)
    assert second["trade_id"].is_unique().all()
    assert second["trade_id"][-1] - second["trade_id"][0] == second.height - 1


def test_every_format_has_the_same_rows(k2, client):
    eventually(client.snapshots, timeout_s=60)
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


def test_a_query_waits_for_a_query_server_that_was_killed(k2, client):
    def query():
        listed = k2.json("status")["processes"]
        return [each for each in listed if (each["name"], each["state"]) == ("query", "SERVING")]

    (before,) = query()
    os.kill(before["pid"], signal.SIGKILL)
    assert client.trades("BTCUSDT", limit=3, deadline_s=60).to_arrow().num_rows == 3
    (after,) = eventually(query, timeout_s=60, interval_s=0.5)
    assert after["restarts"] == before["restarts"] + 1
    assert after["addresses"] == before["addresses"]


def test_what_the_venue_sends_can_be_recorded(k2, tmp_path):
    path = tmp_path / "market.jsonl"
    found = k2.json("record", str(path), "--frames", "20", "--duration", "30s")
    assert found["frames"] == 20
    assert len(path.read_text().splitlines()) >= 20


def rises(client):
    """Changes to the level of the rehearsal, the newest first."""
    return [each for each in client.transitions() if each.to_level == "AGGRESSIVE"]


def test_a_rehearsal_is_obeyed_survives_a_restart_and_is_kept(k2, client):
    until = client.inject_pressure("queries_running", 0.9, 300.0, "query")
    eventually(lambda: client.degradation().level == "AGGRESSIVE", 20)
    assert client.degradation().injected
    eventually(lambda: rises(client), 20)
    rise = rises(client)[0]
    assert (rise.cause, rise.process) == ("PRESSURE", "query")
    assert (rise.signal, rise.pressure, rise.injected) == ("queries_running", 0.9, True)
    assert rise.time - (until - timedelta(seconds=300)) < timedelta(seconds=20)

    k2.json("degrade", "set", "graceful", "--for", "5m", "--reason", "a rehearsal")
    assert k2.json("degrade")["level"] == "GRACEFUL"
    assert k2.json("status")["level"] == "GRACEFUL"

    before = k2.process("control")
    os.kill(before["pid"], signal.SIGKILL)
    eventually(lambda: k2.process("control")["restarts"] > before["restarts"], 60)
    eventually(lambda: k2.process("control")["state"] == "SERVING", 60)
    eventually(lambda: client.degradation().override is not None, 60, 0.2)
    assert k2.json("degrade")["override"]["reason"] == "a rehearsal"

    assert k2.json("degrade", "clear")["ended"]["level"] == "GRACEFUL"
    eventually(lambda: client.degradation().level == "AGGRESSIVE", 20)
    client.inject_pressure("queries_running", 0.0, 1.0, "query")
    eventually(lambda: client.degradation().level in ("NORMAL", "SOFT"), 60)

    causes = [each.cause for each in client.transitions()][::-1]
    assert causes[causes.index("OVERRIDE") :][:4] == ["OVERRIDE", "OVERRIDE_ENDED", "CALM", "CALM"]
    assert "PRESSURE" in causes[: causes.index("OVERRIDE")]

    def stored():
        lake = next(each for each in client.status().components if each.name == "lake")
        return int(lake.counters["ops.transitions.rows"])

    eventually(lambda: stored() >= len(causes), 60, 0.2)
    assert [each.cause for each in client.transitions()][::-1][: len(causes)] == causes


def committed_after(k2, rows):
    """The newest snapshot, once it has more rows."""

    def found():
        listed = client.snapshots(limit=1)
        return listed[0] if listed and listed[0].rows_total > rows else None

    with k2client.connect(data_dir=str(k2.directory)) as client:
        return eventually(found, timeout_s=120, interval_s=0.2)


def test_a_broker_that_lost_its_data_is_said_once_and_gone_on_without(k2):
    before = str(committed_after(k2, 0).snapshot_id)
    held = k2("trades", "BTCUSDT", "--as-of", before, "--format", "csv").stdout
    k2("down")
    shutil.rmtree(k2.directory / "kafka")

    failed = k2(*UP, code=6).stderr.decode().splitlines()
    assert failed[-1].startswith("k2: CLUSTER_CHANGED: ")
    assert "k2 tape new-epoch" in failed[-1]
    assert not [line for line in failed if "restart" in line]
    status = k2("status", code=1).stderr.decode()
    assert "CLUSTER_CHANGED" in status
    assert "k2 tape new-epoch" in status

    shown = k2.json("tape", "new-epoch")
    assert (shown["ended"], shown["reason"], shown["epoch"]) == (False, "CLUSTER_CHANGED", 0)
    ended = k2.json("tape", "new-epoch", "--yes")
    assert (ended["ended"], ended["rows"]) == (True, shown["rows"])

    k2(*UP)
    snapshot = committed_after(k2, int(ended["rows"]) + 100)  # so that each symbol has some
    assert snapshot.positions.epoch == 1
    as_of = ("trades", "BTCUSDT", "--as-of", str(snapshot.snapshot_id), "--format", "json")
    rows = json.loads(k2(*as_of, "--columns", "trade_id,tape_epoch").stdout)
    ids = [int(row["trade_id"]) for row in rows]
    assert ids == sorted(set(ids))
    assert {row["tape_epoch"] for row in rows} == {0, 1}
    assert k2("trades", "BTCUSDT", "--as-of", before, "--format", "csv").stdout == held
    report = k2.json("verify")
    assert (report["ok"], report["problems"]) == (True, [])
    assert report["rows_of_earlier_epochs"] == int(ended["rows"])
