"""The whole embedded stack, with a real broker and a real registry."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import psutil
import pytest

from k2 import limits, settings
from tests.support.eventually import eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]
START_S = 400  # on a machine that is busy with other things
DEAD_PROXIES = {  # nothing of a stack goes through a proxy
    name: "http://127.0.0.1:9"
    for lower in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
    for name in (lower, lower.upper())
}
PARTS = ["broker", "registry", "venue", "feed", "lake", "query", "control", "edge"]


class Up:
    """A running `servers up` and what it printed."""

    def __init__(self, data_dir, *options):
        argv = ["-m", "servers", "up", "--data-dir", str(data_dir), "--ports", "free", *options]
        self.data_dir = data_dir
        self.events = []
        self.process = subprocess.Popen(
            [sys.executable, *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env=settings.environment() | DEAD_PROXIES,
        )

    def until(self, event, **fields):
        """Read what it prints until the line that is asked for."""
        for line in self.process.stdout:
            said = json.loads(line)
            self.events.append(said)
            if said["event"] == event and fields.items() <= said.items():
                return said
        raise AssertionError(f"no {event} in {self.events}")

    def rest(self):
        """Read to the end; the exit code."""
        self.events += [json.loads(line) for line in self.process.stdout]
        return self.process.wait(60)

    def published(self):
        return json.loads((self.data_dir / "run" / "stack.json").read_text())

    def part(self, name):
        return next(one for one in self.published()["processes"] if one["name"] == name)

    def pids(self):
        return [one["pid"] for one in self.published()["processes"] if one["pid"]]


@contextmanager
def up(data_dir, *options):
    running = Up(data_dir, *options)
    try:
        yield running
    finally:
        running.process.terminate()
        running.rest()
        running.process.stdout.close()


def gone(pids):
    return [pid for pid in pids if psutil.pid_exists(pid)] == []


def test_a_stack_serves_restarts_what_dies_and_goes_on_where_it_stopped(tmp_path, artifacts):
    options = ("--venue", "synthetic", "--symbols", "BTCUSDT", "--rate", "20")
    with up(tmp_path, *options) as first:
        ready = first.until("ready")
        assert [one["name"] for one in ready["processes"]] == PARTS
        assert {one["state"] for one in ready["processes"]} == {"SERVING"}
        assert (ready["source"], ready["venue"]) == ("simulated", "synthetic")
        assert ready["control"].startswith("127.0.0.1:")
        assert ready["flight"] == ready["addresses"]["flight"]
        assert resident(ready) < limits.STACK_RSS_MAX
        assert_second_start_is_refused(tmp_path)
        assert_comes_back(first, "venue")
        assert_comes_back(first, "broker")
        pids = first.pids()
        cluster = cluster_id(tmp_path)
        first.process.send_signal(signal.SIGKILL)
        first.rest()
        eventually(lambda: gone(pids))
    with up(tmp_path) as second:  # auto: what the directory was made for
        second.until("serving", name="broker")
        assert second.published()["source"] == "simulated"
        assert cluster_id(tmp_path) == cluster
        pids = second.pids()
        second.process.send_signal(signal.SIGINT)
        assert second.rest() == 0
        assert gone(pids)
        assert second.published()["state"] == "STOPPED"
        assert second.events[-1] == {"event": "stopped"}


def resident(ready):
    pids = [one["pid"] for one in ready["processes"]] + [ready["supervisor_pid"]]
    return sum(psutil.Process(pid).memory_info().rss for pid in pids)


def assert_second_start_is_refused(data_dir):
    with up(data_dir) as other:
        assert other.until("failed")["reason"] == "ALREADY_RUNNING"
        assert other.rest() == 7


def assert_comes_back(stack, name):
    before = stack.part(name)
    os.kill(before["pid"], signal.SIGKILL)
    said = stack.until("restarting", name=name)
    assert said["exit_code"] == -9
    stack.until("serving", name=name)
    after = eventually(lambda: stack.part(name) if stack.part(name)["pid"] else None)
    assert after["restarts"] == 1
    assert after["addresses"] == before["addresses"]


def cluster_id(data_dir):
    text = (data_dir / "kafka" / "data" / "meta.properties").read_text()
    return next(line for line in text.splitlines() if line.startswith("cluster.id="))
