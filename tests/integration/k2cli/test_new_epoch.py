"""A stack whose broker has lost its data: said once, and gone on from by command."""

import json
import shutil

import pytest

from tests.integration.k2cli.test_stack import Command
from tests.support.eventually import eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def k2(tmp_path):
    command = Command(tmp_path)
    yield command
    command("down")


def newest(k2):
    listed = k2.json("snapshots", "--limit", "1")["snapshots"]
    return listed[0] if listed else None


def committed_after(k2, rows):
    """The newest snapshot, once it has more rows."""

    def found():
        snapshot = newest(k2)
        return snapshot if snapshot and int(snapshot["rows_total"]) > rows else None

    return eventually(found, timeout_s=120)


def test_a_broker_that_lost_its_data_is_gone_on_without(k2):
    up = ("up", "-d", "--venue", "synthetic", "--rate", "60", "--ports", "free")
    k2(*up)
    before = committed_after(k2, 0)["snapshot_id"]
    held = k2("trades", "BTCUSDT", "--as-of", before, "--format", "csv").stdout
    k2("down")
    shutil.rmtree(k2.directory / "kafka")

    failed = k2(*up, code=6).stderr.decode().splitlines()
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

    k2(*up)
    snapshot = committed_after(k2, ended["rows"])
    assert int(snapshot["positions"]["epoch"]) == 1
    as_of = ("trades", "BTCUSDT", "--as-of", snapshot["snapshot_id"], "--format", "json")
    rows = json.loads(k2(*as_of, "--columns", "trade_id,tape_epoch").stdout)
    ids = [int(row["trade_id"]) for row in rows]
    assert ids == sorted(set(ids))
    assert {row["tape_epoch"] for row in rows} == {0, 1}
    assert k2("trades", "BTCUSDT", "--as-of", before, "--format", "csv").stdout == held
    report = k2.json("verify")
    assert (report["ok"], report["problems"]) == (True, [])
    assert report["rows_of_earlier_epochs"] == ended["rows"]
