"""A rehearsal on a whole stack: pressure, an override downward, a restart of control, the end."""

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta

import pytest

import k2client
from k2 import settings
from tests.support.eventually import eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]
START_S = 300


class Rehearsal:
    """`k2` on one data directory, and a client of its stack."""

    def __init__(self, directory):
        self.directory = directory

    def json(self, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", "k2cli", *arguments, "--json", "--data-dir", self.directory],
            capture_output=True,
            env=self.environment(),
            timeout=START_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout.splitlines()[-1] if "up" in arguments else done.stdout)

    def environment(self):
        own = {name: v for name, v in settings.environment().items() if not name.startswith("K2_")}
        return own | {"K2_LAKE__COMMIT_INTERVAL_S": "1", "K2_DEGRADE__DWELL_S": "2"}

    def pid(self, process):
        found = {each["name"]: each["pid"] for each in self.json("status")["processes"]}
        return found[process]


@pytest.fixture(scope="module")
def k2(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("stack"))
    command = Rehearsal(directory)
    command.json("up", "-d", "--venue", "synthetic", "--rate", "50", "--ports", "free")
    yield command
    subprocess.run(
        [sys.executable, "-m", "k2cli", "down", "--data-dir", directory],
        env=command.environment(),
        timeout=START_S,
        check=True,
    )


@pytest.fixture
def client(k2):
    with k2client.connect(data_dir=k2.directory) as made:
        yield made


def test_a_rehearsal_is_obeyed_survives_a_restart_and_is_kept(k2, client):
    until = client.inject_pressure("queries_running", 0.9, 300.0, "query")
    eventually(lambda: client.degradation().level == "AGGRESSIVE", 20)
    assert client.degradation().injected
    eventually(lambda: client.transitions(1), 20)
    rise = client.transitions(1)[0]
    assert (rise.cause, rise.to_level, rise.process) == ("PRESSURE", "AGGRESSIVE", "query")
    assert (rise.signal, rise.pressure, rise.injected) == ("queries_running", 0.9, True)
    assert rise.time - (until - timedelta(seconds=300)) < timedelta(seconds=3)

    k2.json("degrade", "set", "graceful", "--for", "5m", "--reason", "a rehearsal")
    assert k2.json("degrade")["level"] == "GRACEFUL"
    assert k2.json("status")["level"] == "GRACEFUL"

    os.kill(before := k2.pid("control"), signal.SIGKILL)
    eventually(lambda: k2.pid("control") not in (before, None), 60)
    eventually(lambda: k2.json("degrade")["override"] is not None, 60)
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

    eventually(lambda: stored() >= len(causes), 60)
    assert [each.cause for each in client.transitions()][::-1][: len(causes)] == causes
