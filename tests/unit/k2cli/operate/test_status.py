import dataclasses
import datetime as dt
import json

import pytest

from k2cli.operate import status, status_screen
from k2client import records, stack

PROCESSES = [
    {"name": "broker", "pid": 41, "state": "SERVING", "restarts": 0, "addresses": {"kafka": "b:1"}},
    {"name": "query", "pid": 42, "state": "SERVING", "restarts": 2, "addresses": {"flight": "f:1"}},
]
PROCESSES[1]["addresses"] |= {"query": "q:1", "grpc": "q:1"}
NOW = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)


def test_a_stack_that_is_down_is_said_so_with_exit_code_1(k2, tmp_path):
    done = k2("status", "--json", "--data-dir", tmp_path)
    assert done.code == 1
    assert done.json["state"] == "STOPPED"
    assert done.json["supervisor_pid"] is None
    assert done.json["processes"] == []
    assert done.stderr.startswith("k2: STACK_NOT_RUNNING: no K2 runs in")
    assert k2("status", "--data-dir", tmp_path).code == 1


def test_why_the_last_stack_failed_is_said(k2, tmp_path):
    (tmp_path / "run").mkdir()
    failure = {"reason": "TOPIC_RECREATED", "message": "made again"}
    (tmp_path / "run" / "stack.json").write_text(json.dumps({"failure": failure}))
    done = k2("status", "--json", "--data-dir", tmp_path)
    assert (done.code, done.json["failure"]) == (1, failure)
    assert done.stderr.splitlines()[1] == "it failed: TOPIC_RECREATED: made again"


def test_what_runs_is_listed_with_what_the_control_plane_adds(k2, script, server):
    content = {
        "addresses": {"control": server.address},
        "processes": PROCESSES,
        "source": "simulated",
        "venue": "synthetic",
    }
    events = [{"event": "ready"}]
    directory = script("up", events, stay=True, stack=content)
    k2("up", "-d", "--data-dir", directory)
    found = k2("status", "--json", "--data-dir", directory)
    people = k2("status", "--data-dir", directory)
    k2("down", "--data-dir", directory)
    assert found.code == 0
    assert found.json["source"] == "simulated"
    assert isinstance(found.json["supervisor_pid"], int)
    broker, query = found.json["processes"]
    assert (broker["state"], broker["restarts"], broker["level"]) == ("SERVING", 0, None)
    assert (query["pid"], query["restarts"], query["level"]) == (42, 2, "NORMAL")
    assert query["counters"] == {"queries": "7"}
    assert people.code == 0
    assert "simulated trades from synthetic · level NORMAL" in people.stdout
    assert "f:1  q:1" in people.stdout
    assert people.stdout.count("q:1") == 1
    assert (found.json["override"], found.json["injected"]) == (None, True)
    assert found.json["shadow"] is False
    assert "INJECTED pressure" in people.stdout


def test_what_needs_a_person_is_said():
    processes = [
        {"name": "lake", "counters": {"alerts": '["partition 1: late"]'}},
        {"name": "query", "counters": {}},
    ]
    assert status._alerts(processes) == [("lake", "partition 1: late")]


def component(**changes):
    heard = records.Component("query", "SERVING", 42, "run", {}, "NORMAL", {}, NOW)
    return dataclasses.replace(heard, **changes)


@pytest.mark.parametrize(
    ("supervised", "heard", "expected"),
    [
        ("SERVING", None, "SERVING"),
        ("SERVING", component(), "SERVING"),
        ("SERVING", component(state="LOST"), "LOST"),
        ("SERVING", component(state="LOST", report_time=None), "SERVING"),
        ("SERVING", component(state="LOST", pid=7), "SERVING"),
        ("RESTARTING", component(), "RESTARTING"),
        ("SERVING", component(state="DRAINING"), "DRAINING"),
    ],
)
def test_the_supervisor_knows_who_lives_and_the_process_whether_it_works(
    tmp_path, supervised, heard, expected
):
    content = {"processes": [{"name": "query", "pid": 42, "state": supervised}]}
    live = records.Status("SERVING", "NORMAL", "LIVE", (heard,) if heard else (), "1", NOW)
    view = status.View(stack.Stack(tmp_path, True, content), live)
    assert view.document()["processes"][0]["state"] == expected


def test_a_control_plane_that_is_down_leaves_the_supervisors_view(tmp_path):
    content = {"processes": PROCESSES, "failure": {"reason": "PROCESS_DIED", "message": "feed"}}
    found = status.View(stack.Stack(tmp_path, True, content), None).document()
    assert [each["state"] for each in found["processes"]] == ["SERVING", "SERVING"]
    assert found["level"] is None
    assert found["failure"]["reason"] == "PROCESS_DIED"


def test_a_stack_that_trusts_networks_says_so(tmp_path, capsys):
    opened = {"processes": PROCESSES, "trusted_networks": ["172.28.0.0/16"]}
    view = status.View(stack.Stack(tmp_path, True, opened), None)
    assert view.document()["trusted_networks"] == ["172.28.0.0/16"]
    status._show(view)
    assert "OPEN: peers inside 172.28.0.0/16" in capsys.readouterr().out
    status._show(status.View(stack.Stack(tmp_path, True, {"processes": PROCESSES}), None))
    assert "OPEN" not in capsys.readouterr().out


def test_a_stack_is_watched_until_ctrl_c(k2, script, server, monkeypatch):
    def ended(seconds):
        raise KeyboardInterrupt

    content = {"addresses": {"control": server.address}, "processes": PROCESSES}
    directory = script("up", [{"event": "ready"}], stay=True, stack=content)
    k2("up", "-d", "--data-dir", directory)
    with monkeypatch.context() as patched:
        patched.setattr(status_screen.time, "sleep", ended)
        done = k2("status", "--watch", "--data-dir", directory)
    k2("down", "--data-dir", directory)
    assert (done.code, done.stderr.strip()) == (130, "k2: interrupted")
    assert "level SOFT: enrichment waits · INJECTED pressure" in done.stdout
    assert "commit 2021-01-08" in done.stdout


def test_a_watch_is_no_document(k2, tmp_path):
    done = k2("status", "--watch", "--json", "--data-dir", tmp_path)
    assert done.code == 2
    assert k2("status", "--watch", "--data-dir", tmp_path).code == 1


def test_a_frame_of_a_stack_that_is_down_has_no_level(tmp_path):
    frame = status._frame(tmp_path)
    assert (frame.degradation, frame.trades, frame.freshness) == (None, None, None)
