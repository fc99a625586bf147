import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from k2cli.up import first_answer
from k2client import stack

STACK = {
    "source": "simulated",
    "venue": "synthetic",
    "exchange": "BINANCE",
    "symbols": ["BTCUSDT"],
    "data_dir": "/d",
}


def ready(server=None):
    address = server.address if server else "127.0.0.1:1"
    flat = {"control": address, "flight": "127.0.0.1:2", "took_s": 1.25}
    return [
        {"event": "step", "name": "ports", "message": "looking for free ports"},
        {"event": "progress", "name": "artifacts", "what": "kafka.jar", "done": 1, "total": 2},
        {"event": "serving", "name": "broker", "pid": 1, "addresses": {}},
        {"event": "ready", "addresses": {"control": address}} | flat,
    ]


def given(directory):
    return json.loads((directory / "up.given.json").read_text())


def test_detached_it_returns_when_all_is_serving_and_leaves_it_running(k2, script, server):
    directory = script("up", ready(server), stay=True, stack=STACK)
    options = ("--venue", "synthetic", "--rate", "5", "--observe", "--notebooks")
    done = k2("up", "-d", *options, "--data-dir", directory)
    assert done.code == 0
    assert f"control   {server.address}" in done.stdout
    assert "simulated trades of BTCUSDT" in done.stdout
    assert "39441.28000000" in done.stdout
    assert "broker: SERVING" in done.stderr
    passed = ["--venue", "synthetic", "--rate", "5.0", "--observe", "--notebooks"]
    assert given(directory)["arguments"] == passed
    assert stack.read_stack(directory).running
    down = k2("down", "--data-dir", directory)
    assert (down.code, "stopped in" in down.stderr) == (0, True)
    assert not stack.read_stack(directory).running


def test_json_is_one_object_with_flat_addresses_and_a_first_answer(k2, script, server):
    directory = script("up", ready(server), stay=True, stack=STACK)
    found = k2("up", "-d", "--json", "--data-dir", directory).json
    k2("down", "--data-dir", directory)
    assert found["control"] == server.address
    assert found["flight"] == "127.0.0.1:2"
    assert found["source"] == "simulated"
    assert found["supervisor_pid"] == given(directory)["pid"]
    assert found["first_answer"]["rows"][0]["trade_id"] == "10"
    assert "event" not in found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_in_the_foreground_a_signal_drains_it(script, server, number):
    directory = script("up", ready(server), stay=True, stack=STACK)
    command = [sys.executable, "-m", "k2cli", "up", "--json", "--data-dir", str(directory)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        timer = threading.Timer(30, process.kill)
        timer.start()
        assert json.loads(process.stdout.readline())["control"] == server.address
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait() == 0
        timer.cancel()
    assert f"signal {2 if number == signal.SIGINT else 15}" in said
    assert "Traceback" not in said


def test_a_failure_is_one_line_and_the_supervisors_exit_code(k2, script):
    failed = {"event": "failed", "reason": "PORT_IN_USE", "message": "port 50051 is in use"}
    directory = script("up", [{"event": "step", "name": "ports"}, failed], exit=3)
    done = k2("up", "--data-dir", directory)
    assert done.code == 3
    assert done.stderr.splitlines()[-1] == "k2: PORT_IN_USE: port 50051 is in use"
    assert done.stdout == ""


def test_a_supervisor_that_dies_without_an_event_is_explained_by_its_log(k2, script):
    directory = script("up", [], exit=9, stderr="boom\nImportError: no broker\n")
    done = k2("up", "-d", "--data-dir", directory)
    assert done.code == 9
    assert "PROCESS_DIED" in done.stderr
    assert "ImportError: no broker" in done.stderr


def test_an_end_after_serving_is_reported_with_its_reason(k2, script, server):
    failed = {"event": "failed", "reason": "PROCESS_DIED", "message": "feed died five times"}
    restarting = {"event": "restarting", "name": "feed", "exit_code": -9, "restarts": 1, "in_s": 1}
    directory = script("up", [*ready(server), restarting, failed], exit=8, stack=STACK)
    done = k2("up", "--data-dir", directory)
    assert done.code == 8
    assert "feed ended with -9: starts again in 1 s (restart 1)" in done.stderr
    assert done.stderr.splitlines()[-1] == "k2: PROCESS_DIED: feed died five times"


def test_a_directory_that_cannot_be_written_is_the_supervisors_to_explain(k2, script, tmp_path):
    directory = script("up", [], exit=5)
    (directory / "logs").write_text("not a folder")
    done = k2("up", "--data-dir", directory)
    assert done.code == 5


def test_the_child_does_not_import_what_lies_about(k2, script, tmp_path, monkeypatch):
    directory = script("up", [], exit=4)
    (tmp_path / "json.py").write_text("raise SystemExit(77)")
    assert os.getcwd() == str(tmp_path)
    assert k2("up", "--data-dir", directory).code == 4


def test_the_newest_trades_with_their_provenance(server):
    answer = first_answer(server.address, "BTCUSDT", lambda: False)
    document = answer.document()
    assert [row["trade_id"] for row in document["rows"]] == ["10", "9", "8"]
    assert document["rows"][0]["price"] == "39441.28000000"
    assert document["provenance"]["snapshot_id"] == "9007199254740993"
    assert answer.text().splitlines()[0].startswith("event_time")


def test_a_symbol_without_a_trade_yet_is_asked_again(server):
    server.fail_calls = [server.gone()]
    assert first_answer(server.address, "BTCUSDT", lambda: False).symbol == "BTCUSDT"
    assert len(server.calls) == 2


def test_the_first_answer_is_not_awaited_after_an_interrupt(server):
    assert first_answer(server.address, "NOSUCH", lambda: bool(server.calls)) is None
    assert len(server.calls) == 1
