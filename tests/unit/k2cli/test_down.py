import json
import subprocess
import sys

from k2client import stack
from tests.support.eventually import eventually
from tests.unit.k2cli.conftest import STAND_IN


def test_with_nothing_running_it_says_so_and_is_content(k2, tmp_path):
    done = k2("down", "--data-dir", tmp_path)
    assert done.code == 0
    assert f"no K2 runs in {tmp_path}: nothing to stop" in done.stderr


def test_a_file_left_by_a_dead_stack_stops_nobody(k2, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "lock").touch()
    (run / "stack.json").write_text(json.dumps({"supervisor_pid": 1, "state": "SERVING"}))
    assert "nothing to stop" in k2("down", "--data-dir", tmp_path).stderr


def test_one_that_does_not_end_in_time_is_an_error(k2, script, monkeypatch):
    directory = script("up", [{"event": "ready"}], stay=True)
    stubborn = "import signal,sys,runpy;sys.argv=['servers','up'];"
    stubborn += "signal.signal=lambda *a: None;"
    stubborn += "__import__('ctypes').CDLL(None).signal(15, 1);"
    stubborn += "runpy.run_module('servers', run_name='__main__')"
    environment = {"K2_DATA_DIR": str(directory), "PYTHONPATH": str(STAND_IN)}
    with subprocess.Popen(
        [sys.executable, "-c", stubborn], env=environment, stdout=subprocess.DEVNULL
    ) as process:
        try:
            eventually(lambda: stack.read_stack(directory).supervisor_pid == process.pid)
            done = k2("down", "--timeout", "0.2", "--data-dir", directory)
        finally:
            process.kill()
    assert done.code == 1
    assert f"k2: DEADLINE_EXCEEDED: process {process.pid} still drains" in done.stderr
